"""Losses between part images and targets, one value per photo so that photos in a batch stay independent."""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.targets import PartTargets, soften


def part_weights(targets: PartTargets) -> Tensor:
    """(B, 5) float32 weight of each part: 1 / target area, 0 for invalid parts."""
    return torch.where(targets.valid, 1.0 / targets.area.clamp_min(1), 0.0).float()


def _difference(images: Tensor, targets: PartTargets) -> Tensor:
    if images.shape != targets.images.shape:
        raise ValueError(
            f"part images have shape {tuple(images.shape)} but the targets have {tuple(targets.images.shape)}"
        )
    difference = images - targets.images.to(images)
    if targets.ignore is None:
        return difference
    return difference.masked_fill(targets.ignore.to(images.device)[..., None], 0.0)


def region_loss(images: Tensor, targets: PartTargets) -> Tensor:
    """Area-normalised squared difference: ``sum_k 1/area_k sum_px (image_k - target_k)^2``.

    Small parts count as much as large ones. Its gradient through the label-edge force is exact.

    Args:
        images: (B, H, W, 5) part images; differentiable.
        targets: their targets.

    Returns:
        (B,) loss of each photo.
    """
    weights = part_weights(targets).to(images)
    return (_difference(images, targets).square().sum((1, 2)) * weights).sum(-1)


def frobenius_loss(images: Tensor, targets: PartTargets, sigma: float | None = 1.0) -> Tensor:
    """The parsing loss of NEO-3DF (eq. 3): Frobenius norm of the difference of softened part images.

    Args:
        images: (B, H, W, 5) part images; differentiable.
        targets: their targets; use ramp_px = 0 for the paper's binary masks.
        sigma: Gaussian softening of both sides in pixels; None for none.

    Returns:
        (B,) loss of each photo; invalid parts are left out.
    """
    difference = _difference(images, targets)
    if sigma is not None:
        difference = soften(difference, sigma)
    squares = (difference.square().sum((1, 2)) * targets.valid.to(images)).sum(-1)
    return torch.sqrt(squares + torch.finfo(squares.dtype).tiny)
