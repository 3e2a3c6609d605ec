"""What stands below the pictures of edits: what was done, in which unit, and on how many faces."""

from collections.abc import Sequence

import numpy as np

from ..methods import OURS
from .edit_reach import EditReach
from .edit_sequence import LIMIT, STRENGTH, Stillness
from .nose_ablation import NoseEdit


def reach_caption(columns: Sequence[Sequence[EditReach]], radius_mm: float, n_measured: int) -> str:
    """Below the heat maps of some methods, one sequence of regions each."""
    sentences = [
        "How far edits reach. From the average face, each control of a region alone at +3 and at −3 σ (30 controls; a "
        "σ is the spread of the measurement over random faces); the largest displacement of every vertex over all "
        "edits of the region, on a scale from 0 to the largest of the map, which stands below it in mm. out/in is the "
        "mean displacement outside the region over that inside, over all edits.",
    ]
    responses = ", ".join(
        f"{rows[0].method} {np.concatenate([row.responses for row in rows]).mean():.2f}" for rows in columns
    )
    sentences.append(f"Mean response of the controls' own measurements, 1 being what was asked: {responses}.")
    if any(rows[0].method.startswith(OURS) for rows in columns):
        sentences.append(
            f"An edit of a part by {OURS} is 0 outside the part and its transition area of {radius_mm:g} mm by "
            "construction, and unblended 0 outside the part; so leakage is quoted outside the part itself, the "
            "transition area counted in. Edits of the rest carry the parts along."
        )
    if any(not rows[0].method.startswith(OURS) for rows in columns):
        sentences.append(f"The rivals' controls are fitted on their own reconstructions of {n_measured} random faces.")
    return " ".join(sentences)


def three_controls_caption() -> str:
    """Below the nose edit of figure 5."""
    return (
        "One nose edit with three controls at once: tip −3 σ, width +3 σ and bridge width −3 σ; the tip up/down in the "
        "second row and in/out in the third. Every model edits its own reconstruction (first row) of the same fitted "
        "face (n = 1), turned 40°. Below: mean displacement of the nose, and of everything else, in mm."
    )


def cumulative_caption(still: Stillness, n_faces: int, n_steps: int) -> str:
    """Below the steps of figure 6."""
    return (
        f"{n_steps} random edits on top of each other on a fitted face: all controls of one region at a time, drawn "
        f"with a standard deviation of {STRENGTH:g} σ and clipped at ±{LIMIT:g} σ; the region that was edited last is "
        "tinted. The rest comes first and carries the parts along. "
        f"Over {n_faces} faces, {100 * still.share:.6g} % of {still.compared:,} vertices of parts that were not being "
        "edited, and of skin that no blending moves, kept every bit through an edit of a part; the longest way was "
        f"{still.largest_mm:g} mm."
    )


def nose_caption(edits: Sequence[NoseEdit], n_faces: int, yaw: float) -> str:
    """Below the noses of figure 7."""
    open_gaps = ", ".join(f"{e.name.removesuffix(', unblended')} {e.gap.max():.1f}" for e in edits if not e.blended)
    return (
        f"Nose tip up by 3 σ: in full; without offsets, the nose learned and controlled where it stands in the face "
        "(by PCA, blended); the same PCA about its box centre; and without blending. One fitted face, turned "
        f"{-yaw:.0f}°; numbers over {n_faces} fitted faces: length of the nose's mean displacement, motion of its box "
        "centre, and the largest change of length of an edge between nose and skin against the rest decoder's own "
        f"skin, in mm. Largest gaps before blending: {open_gaps} mm."
    )
