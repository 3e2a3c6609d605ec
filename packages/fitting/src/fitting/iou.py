"""Overlap of predicted and target parts, and the averages that papers call IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fitting.parts import FIRST_PART_ID, PARTS
from fitting.targets import MIN_AREA, check_ignore, check_label_masks


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


@dataclass(frozen=True)
class PartOverlap:
    """Pixel counts of predicted against target parts for a batch of photos.

    A part counts in a photo if its target has at least ``min_area`` pixels (`valid`). Values that do not exist
    (an invalid part, a photo without any valid part) are NaN in the per-photo results, and `summary` leaves
    them out and says how many were left.

    Attributes:
        intersection, union, predicted_area, target_area: (B, 5) int64, order of PARTS.
        any_intersection, any_union: (B,) int64, counts of "is any part" against "is any part".
        min_area: smallest target area that counts, in pixels.
    """

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]
    predicted_area: NDArray[np.int64]
    target_area: NDArray[np.int64]
    any_intersection: NDArray[np.int64]
    any_union: NDArray[np.int64]
    min_area: int = MIN_AREA

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(B, 5) whether a part's target is large enough to count."""
        return self.target_area >= self.min_area

    def iou(self) -> NDArray[np.float64]:
        """(B, 5) IoU of each part; NaN where the part is not valid."""
        return _ratio(self.intersection.astype(float), np.where(self.valid, self.union, 0).astype(float))

    def mean_of_parts(self) -> NDArray[np.float64]:
        """(B,) mean IoU of the valid parts; NaN for photos without any."""
        return _ratio(np.nansum(self.iou(), 1), self.valid.sum(1).astype(float))

    def frequency_weighted(self) -> NDArray[np.float64]:
        """(B,) IoU of the valid parts weighted by target area; NaN for photos without any."""
        weight = np.where(self.valid, self.target_area, 0).astype(float)
        return _ratio((np.nan_to_num(self.iou()) * weight).sum(1), weight.sum(1))

    def micro(self) -> NDArray[np.float64]:
        """(B,) summed intersections over summed unions of the valid parts; NaN for photos without any."""
        return _ratio(
            np.where(self.valid, self.intersection, 0).sum(1).astype(float),
            np.where(self.valid, self.union, 0).sum(1).astype(float),
        )

    def binary_union(self) -> NDArray[np.float64]:
        """(B,) IoU of "any part" against "any part"; NaN for photos without a valid part."""
        return _ratio(self.any_intersection.astype(float), np.where(self.valid.any(1), self.any_union, 0).astype(float))

    def summary(self) -> dict[str, float]:
        """The four averages over all photos, the mean IoU of each part, and how many values each rests on.

        Keys: mean_of_parts, frequency_weighted and binary_union (means over photos that have a valid part),
        micro (summed over all photos and parts), one per part name, n_photos, and n_<part>. NaN where nothing
        is valid.
        """
        photos = self.valid.any(1)
        result: dict[str, float] = {}
        for name in ("mean_of_parts", "frequency_weighted", "binary_union"):
            result[name] = float(getattr(self, name)()[photos].mean()) if photos.any() else float("nan")
        union = int(self.union[self.valid].sum())
        result["micro"] = int(self.intersection[self.valid].sum()) / union if union else float("nan")
        for part, values, valid in zip(PARTS, self.iou().T, self.valid.T, strict=True):
            result[part] = float(values[valid].mean()) if valid.any() else float("nan")
            result[f"n_{part}"] = int(valid.sum())
        result["n_photos"] = int(photos.sum())
        return result

    @staticmethod
    def concatenate(overlaps: Sequence[PartOverlap]) -> PartOverlap:
        """Join the photos of several batches.

        Raises:
            ValueError: nothing to join, or different ``min_area``.
        """
        if len({overlap.min_area for overlap in overlaps}) != 1:
            raise ValueError("overlaps to join must be at least one and share one min_area")
        counts = [field.name for field in fields(PartOverlap) if field.name != "min_area"]
        joined = {name: np.concatenate([getattr(overlap, name) for overlap in overlaps]) for name in counts}
        return PartOverlap(**joined, min_area=overlaps[0].min_area)


def part_iou(
    predicted: ArrayLike | Tensor,
    target: ArrayLike | Tensor,
    ignore: ArrayLike | Tensor | None = None,
    min_area: int = MIN_AREA,
) -> PartOverlap:
    """Count the overlap of label maps.

    Args:
        predicted: (B, H, W) label ids, for instance from `render_labels`.
        target: (B, H, W) label ids.
        ignore: (B, H, W) bool, pixels left out of every count.
        min_area: parts with fewer target pixels do not count.

    Returns:
        PartOverlap.

    Raises:
        ValueError: shapes differ or an id is outside 0..6.
    """
    ours, theirs = check_label_masks(predicted, "predicted labels"), check_label_masks(target, "target labels")
    if ours.shape != theirs.shape:
        raise ValueError(f"predicted labels have shape {ours.shape} but the target labels have {theirs.shape}")
    ignored = check_ignore(ignore, ours.shape)
    if ignored is not None:
        ours, theirs = np.where(ignored, 0, ours), np.where(ignored, 0, theirs)
    bins = FIRST_PART_ID + len(PARTS)
    pairs = np.stack(
        [
            np.bincount((a.astype(np.intp) * bins + b).ravel(), minlength=bins * bins).reshape(bins, bins)
            for a, b in zip(ours, theirs, strict=True)
        ]
        or [np.zeros((bins, bins), np.intp)]
    )[: len(ours)].astype(np.int64)
    intersection = np.diagonal(pairs, axis1=1, axis2=2)[:, FIRST_PART_ID:]
    predicted_area, target_area = pairs.sum(2)[:, FIRST_PART_ID:], pairs.sum(1)[:, FIRST_PART_ID:]
    any_intersection = pairs[:, FIRST_PART_ID:, FIRST_PART_ID:].sum((1, 2))
    return PartOverlap(
        intersection,
        predicted_area + target_area - intersection,
        predicted_area,
        target_area,
        any_intersection,
        predicted_area.sum(1) + target_area.sum(1) - any_intersection,
        min_area,
    )
