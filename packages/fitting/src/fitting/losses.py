"""Losses between part images and targets, one value per photo so that photos in a batch stay independent.

NEO-3DF trains with the Frobenius norm of Gaussian-softened masks (`frobenius_loss`) and adjusts single photos with a
distance transform of the target and no softening; it gives no formula for the latter, which leaves two readings.
"The norm of the difference" is ``frobenius_loss(images, targets, sigma=None)`` on ramp targets; "every wrong pixel
costs its distance" is `distance_loss`. On hard images `distance_loss` and `region_loss` on the same ramp differ by
the factor R and a constant only, so that all three have their minimum at the target itself. Ignored pixels cost
nothing in any of them, and each part has the weight `PartTargets.weight`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fitting.targets import PartTargets, soften


def part_weights(targets: PartTargets) -> Tensor:
    """(B, 5) float32 weight of a pixel of each part: the part's weight / its target area, 0 for invalid parts."""
    return targets.weight / targets.area.clamp_min(1)


def _shown(images: Tensor, targets: PartTargets, values: Tensor) -> Tensor:
    """(B, H, W, 5) ``values`` with the ignored pixels at 0."""
    if targets.ignore is None:
        return values
    return values.masked_fill(targets.ignore.to(images.device)[..., None], 0.0)


def _check_shape(images: Tensor, targets: PartTargets) -> None:
    if images.shape != targets.images.shape:
        raise ValueError(
            f"part images have shape {tuple(images.shape)} but the targets have {tuple(targets.images.shape)}"
        )


def _difference(images: Tensor, targets: PartTargets) -> Tensor:
    _check_shape(images, targets)
    return _shown(images, targets, images - targets.images.to(images))


def region_loss(images: Tensor, targets: PartTargets) -> Tensor:
    """Area-normalised squared difference: ``sum_k w_k/area_k sum_px (image_k - target_k)^2``.

    Small parts count as much as large ones. Its gradient through the label-edge force is exact.

    Args:
        images: (B, H, W, 5) part images; differentiable.
        targets: their targets.

    Returns:
        (B,) loss of each photo.
    """
    weights = part_weights(targets).to(images)
    return (_difference(images, targets).square().sum((1, 2)) * weights).sum(-1)


def distance_loss(images: Tensor, targets: PartTargets) -> Tensor:
    """Distance of the wrong pixels: ``sum_k w_k/area_k sum_px image_k d_out_k + (1 - image_k) d_in_k``.

    d_out and d_in are Euclidean distances in pixels to the target's contour, from outside and from inside it, cut off
    at the targets' ramp_px: a pixel too many costs how far it is from the part, a missing one how deep in it.

    Args:
        images: (B, H, W, 5) part images; differentiable.
        targets: their targets, with ramp_px > 0; give the size of the image for distances that are not cut off.

    Returns:
        (B,) px, per pixel of a part's target.

    Raises:
        ValueError: binary targets.
    """
    _check_shape(images, targets)
    if not targets.ramp_px > 0:
        raise ValueError("distance_loss needs distances, but the targets are binary; make them with ramp_px > 0")
    outside = 2 * targets.ramp_px * (0.5 - targets.images.to(images))
    cost = images * outside.clamp_min(0) + (1 - images) * (-outside).clamp_min(0)
    return (_shown(images, targets, cost).sum((1, 2)) * part_weights(targets).to(images)).sum(-1)


def frobenius_loss(images: Tensor, targets: PartTargets, sigma: float | None = 1.0) -> Tensor:
    """The parsing loss of NEO-3DF (eq. 2): Frobenius norm of the difference of softened part images.

    Args:
        images: (B, H, W, 5) part images; differentiable.
        targets: their targets; use ramp_px = 0 for the paper's binary masks.
        sigma: Gaussian softening of both sides in pixels, see `soften`; None for none.

    Returns:
        (B,) loss of each photo, with the squares of each part times its weight; invalid parts are left out.
    """
    difference = _difference(images, targets)
    if sigma is not None:
        difference = soften(difference, sigma)
    squares = (difference.square().sum((1, 2)) * targets.weight.to(images)).sum(-1)
    return torch.sqrt(squares + torch.finfo(squares.dtype).tiny)
