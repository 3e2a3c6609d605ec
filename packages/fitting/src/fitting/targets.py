"""Targets for fitting: from label-id masks to soft five-channel images, and resizing of label-id masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from fitting.parts import FIRST_PART_ID, LABEL_IDS, PARTS, REGIONS

MIN_AREA = 20
"""Parts with fewer target pixels than this are left out of losses and averages (method: unreliable or occluded)."""


@dataclass(frozen=True)
class PartTargets:
    """Targets of a batch of photos.

    Attributes:
        images: (B, H, W, 5) float32 in [0, 1], order of PARTS.
        area: (B, 5) int64, target pixels of each part that are not ignored.
        valid: (B, 5) bool, False for parts that are too small to be used.
        ignore: (B, H, W) bool, pixels that cost nothing, or None.
        weight: (B, 5) float32, what each part counts in a loss; 0 for invalid parts.
        ramp_px: half width of the ramp in ``images`` in pixels, 0 if they are binary.
    """

    images: Tensor
    area: Tensor
    valid: Tensor
    ignore: Tensor | None
    weight: Tensor
    ramp_px: float


def check_label_masks(masks: ArrayLike | Tensor, name: str = "masks") -> NDArray[np.uint8]:
    """Return (B, H, W) label-id masks as uint8.

    Raises:
        ValueError: not three-dimensional integers (or bool), or an id outside 0..6.
    """
    ids = np.asarray(masks)
    if ids.ndim != 3 or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} have shape {ids.shape} and type {ids.dtype}; expected (B, H, W) integer label ids")
    if ids.size and (ids.min() < 0 or ids.max() > len(REGIONS)):
        wrong = ids[(ids < 0) | (ids > len(REGIONS))][0]
        raise ValueError(f"{name} hold the id {wrong}; label ids are 0 to {len(REGIONS)} ({', '.join(LABEL_IDS)})")
    return ids.astype(np.uint8)


def check_ignore(ignore: ArrayLike | Tensor | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return the ignore mask as bool of the given (B, H, W) shape, or None.

    Raises:
        ValueError: the shape differs.
    """
    if ignore is None:
        return None
    pixels = np.asarray(ignore, bool)
    if pixels.shape != shape:
        raise ValueError(f"ignore has shape {pixels.shape} but the masks have {shape}; they must be equal")
    return pixels


def signed_ramp(inside: NDArray[np.bool_], ramp_px: float) -> NDArray[np.float32]:
    """Soft version of a binary mask that is 1/2 on its contour.

    ``clip(1/2 - sd / (2 R), 0, 1)`` with sd the signed Euclidean distance to the contour, negative inside,
    which runs half a pixel from the nearest pixel centres. A ramp_px of 0 returns the binary mask.

    Args:
        inside: (H, W) bool.
        ramp_px: R, the distance in pixels at which the ramp ends; >= 0.
    """
    if ramp_px == 0 or inside.all() or not inside.any():
        return inside.astype(np.float32)
    reach = int(np.ceil(ramp_px)) + 1  # beyond it the ramp is 0, so the transform may be limited to the box
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = tuple(slice(max(line[0] - reach, 0), line[-1] + reach + 1) for line in (rows, columns))
    part = inside[box]
    distance = np.where(part, 0.5 - distance_transform_edt(part), distance_transform_edt(~part) - 0.5)
    ramp = np.zeros(inside.shape, np.float32)
    ramp[box] = np.clip(0.5 - distance / (2 * ramp_px), 0, 1)
    return ramp


def mask_targets(
    masks: ArrayLike | Tensor,
    ramp_px: float = 5.0,
    *,
    ignore: ArrayLike | Tensor | None = None,
    min_area: int = MIN_AREA,
    part_weight: ArrayLike | Tensor | None = None,
) -> PartTargets:
    """Targets for the part image of `render_parts`.

    Args:
        masks: (B, H, W) label ids 0 to 6.
        ramp_px: half width of the signed distance ramp in pixels, so that a small overlap already pulls;
            0 for binary targets.
        ignore: (B, H, W) bool, pixels that cost nothing (hair over a brow, a hand).
        min_area: parts with fewer unignored pixels are marked invalid.
        part_weight: (5,) what each part counts in a loss, >= 0; None for 1 each.

    Returns:
        PartTargets; the channel of an invalid part is still filled.

    Raises:
        ValueError: wrong shapes, ids outside 0..6, or a negative ramp or weight.
    """
    if not ramp_px >= 0:
        raise ValueError(f"ramp_px is {ramp_px}; it must be >= 0")
    weight = np.ones(len(PARTS), np.float32) if part_weight is None else np.asarray(part_weight, np.float32)
    if weight.shape != (len(PARTS),) or not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(f"part_weight is {weight.tolist()}; expected {len(PARTS)} finite numbers >= 0")
    ids = check_label_masks(masks)
    ignored = check_ignore(ignore, ids.shape)
    part_ids = np.arange(FIRST_PART_ID, FIRST_PART_ID + len(PARTS), dtype=np.uint8)
    inside = ids[..., None] == part_ids
    counted = inside if ignored is None else inside & ~ignored[..., None]
    area = counted.sum((1, 2), dtype=np.int64)
    images = np.empty((*ids.shape, len(PARTS)), np.float32)
    for photo in range(len(ids)):
        for channel in range(len(PARTS)):
            images[photo, ..., channel] = signed_ramp(inside[photo, ..., channel], ramp_px)
    valid = area >= min_area
    return PartTargets(
        torch.from_numpy(images),
        torch.from_numpy(area),
        torch.from_numpy(valid),
        None if ignored is None else torch.from_numpy(ignored),
        torch.from_numpy(np.where(valid, weight, np.float32(0))),
        float(ramp_px),
    )


def soften(images: Tensor, sigma: float = 1.0) -> Tensor:
    """Gaussian softening of part images (NEO-3DF section 3.4).

    The paper uses 10 x 10 taps at sigma 1, which shifts both sides by half a pixel; the nearest odd kernel,
    11 x 11 at sigma 1, is the same filter without the shift.

    Args:
        images: (B, H, W, C) float; differentiable.
        sigma: standard deviation in pixels, > 0.

    Returns:
        (B, H, W, C), blurred channel by channel.
    """
    from kornia.filters import gaussian_blur2d

    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; it must be positive")
    size = 2 * int(np.ceil(5 * sigma)) + 1
    planes = images.movedim(-1, 1)
    return gaussian_blur2d(planes, (size, size), (sigma, sigma), border_type="replicate").movedim(1, -1)


def _overlaps(source: int, target: int) -> NDArray[np.float64]:
    """(target, source) overlap of each target cell with each source cell of one axis; rows sum to `source`.

    In units of 1 / (source * target) of the axis, so that the lengths are whole numbers and sums are exact.
    """
    cells, new_cells = np.arange(source) * target, np.arange(target)[:, None] * source
    overlap = np.minimum(new_cells + source, cells + target) - np.maximum(new_cells, cells)
    return np.clip(overlap, 0, None).astype(np.float64)


def resize_labels(mask: ArrayLike | Tensor, size: int | tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a label-id image by exact area averaging of each label.

    A pixel gets a part's id if that part covers more than half of it; otherwise background or rest, whichever
    covers more. So no part is dilated, whatever the ratio.

    Args:
        mask: (h, w) label ids 0 to 6.
        size: new (height, width), or one number for both.

    Returns:
        (height, width) uint8.

    Raises:
        ValueError: not two-dimensional integers, an id outside 0..6, or a size below 1.
    """
    ids = check_label_masks(np.asarray(mask)[None], "mask")[0]
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1 or not ids.size:
        raise ValueError(f"cannot resize a mask of {ids.shape} to ({height}, {width}); sizes must be at least 1")
    rows, columns = _overlaps(ids.shape[0], height), _overlaps(ids.shape[1], width).T
    areas = np.stack([rows @ (ids == label) @ columns for label in LABEL_IDS.values()])
    parts = areas[FIRST_PART_ID:]
    surround = (areas[LABEL_IDS["rest"]] > areas[LABEL_IDS["background"]]).astype(np.uint8)
    return np.where(2 * parts.max(0) > ids.size, parts.argmax(0) + FIRST_PART_ID, surround).astype(np.uint8)
