"""The overlaps of one method as scores of every photograph, from the pixel counts that are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..methods import Method, in_table_order
from ..tables import Columns

SMALLEST_PART = 20
"""Pixels of the reference from which on a part counts, as in ``fitting.part_iou``."""


@dataclass(frozen=True)
class Scores:
    """N photographs, all in the order of ``face_id``: whose they are, and IoU (N, 5), NaN where a part is not there.

    ``area`` (N, 5): pixels of the reference, 0 for a part that does not count. ``micro``: pixels of all photographs and
    parts together.
    """

    face_id: tuple[str, ...]
    people: NDArray[np.str_]
    iou: NDArray[np.float64]
    area: NDArray[np.float64]
    micro: float

    @property
    def mean_of_five(self) -> NDArray[np.float64]:
        """(N,) mean over the parts that count; NaN where none does."""
        seen = ~np.isnan(self.iou)
        return _ratio(np.nansum(self.iou, 1), seen.sum(1))

    @property
    def frequency_weighted(self) -> NDArray[np.float64]:
        """(N,) mean weighted by the area of the parts in the reference; NaN where none counts."""
        return _ratio((np.nan_to_num(self.iou) * self.area).sum(1), self.area.sum(1))


def scores_of(overlaps: Columns, reference: str) -> dict[Method, Scores]:
    """Scores of every (model, step) of an ``overlaps`` table against one reference, in the order of tables.

    Raises UserError where a method has a face twice, or other faces than the others have.
    """
    keys = list(zip(overlaps["model"], overlaps["step"], overlaps["reference"], strict=True))
    found: dict[Method, list[int]] = {}
    for row, (model, step, against) in enumerate(keys):
        if against == reference:
            found.setdefault((model, step), []).append(row)
    scores = {method: _scores(overlaps, found[method], method) for method in in_table_order(found)}
    _require_one_set_of_faces(scores)
    return scores


def _scores(overlaps: Columns, rows: Sequence[int], method: Method) -> Scores:
    rows = sorted(rows, key=lambda row: overlaps["face_id"][row])
    faces = tuple(overlaps["face_id"][row] for row in rows)
    if twice := [face for face, following in pairwise(faces) if face == following]:
        raise UserError(f"face {twice[0]} has two rows of {', '.join(method)}: give runs whose validation faces differ")
    intersection, union, area = (
        overlaps[key][rows].astype(np.float64) for key in ("intersection", "union", "target_area")
    )
    seen = area >= SMALLEST_PART
    total = union[seen].sum()
    return Scores(
        face_id=faces,
        people=np.array([overlaps["person"][row] for row in rows]),
        iou=_ratio(intersection, np.where(seen, union, 0)),
        area=np.where(seen, area, 0),
        micro=float(intersection[seen].sum() / total) if total else np.nan,
    )


def _require_one_set_of_faces(scores: Mapping[Method, Scores]) -> None:
    for method, found in scores.items():
        first = next(iter(scores.values()))
        if found.face_id != first.face_id:
            other = set(found.face_id) ^ set(first.face_id)
            raise UserError(
                f"{', '.join(method)} was measured on other faces than {', '.join(next(iter(scores)))} "
                f"({min(other)} is one of {len(other)} that differ); run neo3df run again"
            )


def _ratio(numerator: NDArray[np.floating], denominator: NDArray[np.number]) -> NDArray[np.float64]:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
