"""Morph targets from controls: the face's movement per standard deviation, with the error of calling it linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editing.editor import LIMIT_SIGMA, FaceEditor

RANGE_SIGMA = 3.0


@dataclass(frozen=True)
class ControlMorphs:
    """Linear stand-ins for controls, around one face.

    Attributes:
        deltas: ``{"id_nose_width": (V, 3)}`` float32 mm per standard deviation.
        max_error_mm: the same names -> largest distance over all vertices between the face and the morph at the two
            ends of the range.
        range_sigma: the same names -> the ends, standard deviations from the present face: -3 and +3, or nearer where
            the editor's limit comes first.
    """

    deltas: dict[str, NDArray[np.float32]]
    max_error_mm: dict[str, float]
    range_sigma: dict[str, tuple[float, float]]


def control_morphs(editor: FaceEditor, names: Sequence[str] | None = None) -> ControlMorphs:
    """Linearise controls around the editor's present face.

    The delta of a control is (v(c + 1) - v(c - 1)) / 2, in mm per standard deviation, with a shorter step to the side
    where the editor's limit is nearer than 1; up to four rebuilt faces per control.

    Args:
        editor: the face; its state is not changed.
        names: full names of the controls, all by default.

    Returns:
        Deltas named ``id_<region>_<control>``, their errors, and how far out the errors were taken.

    Raises:
        ValueError: unknown names.
    """
    neutral = editor.vertices().astype(np.float64)
    deltas, errors, ranges = {}, {}, {}
    for name in editor.names if names is None else names:
        centre = editor.get(name)
        low, high = _ends(centre, RANGE_SIGMA)
        below, above = _ends(centre, 1.0)
        at = {
            step: editor.build({**editor.state.controls, name: centre + step}).astype(np.float64)
            for step in (low, below, above, high)
        }
        delta = (at[above] - at[below]) / (above - below)
        target = f"id_{name.replace('.', '_')}"
        deltas[target] = delta.astype(np.float32)
        errors[target] = max(float(np.linalg.norm(at[s] - neutral - s * delta, axis=-1).max()) for s in (low, high))
        ranges[target] = (low, high)
    return ControlMorphs(deltas, errors, ranges)


def _ends(centre: float, reach: float) -> tuple[float, float]:
    """How far a control at ``centre`` can go down and up, at most ``reach``."""
    return max(-reach, -LIMIT_SIGMA - centre), min(reach, LIMIT_SIGMA - centre)
