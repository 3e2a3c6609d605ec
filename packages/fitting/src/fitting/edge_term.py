"""The edge term: the gradient of occlusion that interpolated images lack.

Where one surface hides another, or the background, the image jumps between two neighbouring pixels p and q and
interpolation has no gradient for the motion of that jump; analytic antialiasing has one only where it finds the
silhouette edge in a triangle that owns a pixel, which is rare on meshes finer than the pixels. The edge term
adds the label-edge force (derived in `fitting.label_edge`) there, with the interpolated colours c:

    F = 1/2 (g_p + g_q) . (c_p - c_q) on the nearer of the two surface points, along the axis of the pair,

for the pairs in which only one pixel sees the surface or whose depths differ by more than a threshold. Closed
lips hide each other with almost no difference in depth: there a pair counts if it goes from one lip to the
other. The image itself is not changed. Needs raster and clip positions only, so it is the same on any backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fitting._borders import LOWER, UPPER, lip_contacts, pair_forces, pairs, push, surface_points, surface_w
from fitting._types import Array
from fitting.label_edge import dominant_labels


@dataclass(frozen=True)
class EdgeTerm:
    """Which neighbouring pixels the edge term takes for an occlusion.

    Attributes:
        depth_step: they do if their depths differ by more than this, mm. Small values overcount steep but
            continuous surfaces.
        lip_pairs: they also do if one shows the upper and the other the lower lip.

    Raises:
        ValueError: the step is not positive.
    """

    depth_step: float = 10.0
    lip_pairs: bool = True

    def __post_init__(self) -> None:
        if not self.depth_step > 0:
            raise ValueError(f"depth_step is {self.depth_step} mm; it must be positive")


@njit(cache=True, nogil=True)
def _depths(clip: Array, faces: Array, raster: Array, depth: Array) -> None:
    """Overwrite depth (H,W) float32 with w at the surface points of one image, infinite where nothing is seen."""
    height, width = depth.shape
    for row in range(height):
        for column in range(width):
            if raster[row, column, 3] > 0:
                depth[row, column] = surface_w(clip, faces, raster, row, column)
            else:
                depth[row, column] = np.inf


@njit(cache=True, nogil=True)
def _edge_term_backward(
    clip: Array,
    faces: Array,
    raster: Array,
    ids: Array,
    depth_step: float,
    image: Array,
    grad_image: Array,
    grad_clip: Array,
) -> None:
    """Add the edge term of grad_image (B,H,W,C) to grad_clip (B,V,4); ids has 0 images for no lip pairs."""
    batch, height, width, channels = image.shape
    lips = ids.shape[0] > 0
    depth = np.empty((height, width), np.float32)
    for b in range(batch):
        _depths(clip[b], faces, raster[b], depth)
        for row in range(height):
            for column in range(width):
                here = depth[row, column]
                for axis in range(2):
                    row2, column2 = row + axis, column + 1 - axis
                    if row2 >= height or column2 >= width:
                        continue
                    there = depth[row2, column2]
                    occluded = abs(here - there) > depth_step  # false where both are infinite
                    if lips and not occluded:
                        p, q = ids[b, row, column], ids[b, row2, column2]
                        occluded = (p == UPPER and q == LOWER) or (p == LOWER and q == UPPER)
                    if not occluded:
                        continue
                    force = np.float32(0.0)
                    for channel in range(channels):
                        jump = image[b, row, column, channel] - image[b, row2, column2, channel]
                        force += (grad_image[b, row, column, channel] + grad_image[b, row2, column2, channel]) * jump
                    if force == 0.0:
                        continue
                    force *= np.float32(0.5)
                    if here <= there:
                        push(clip[b], faces, raster[b], row, column, axis, force, grad_clip[b])
                    else:
                        push(clip[b], faces, raster[b], row2, column2, axis, force, grad_clip[b])


class _EdgeTerm(Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, clip: Tensor, faces: Tensor, raster: Tensor, ids: Tensor, depth_step: float
    ) -> Tensor:
        ctx.save_for_backward(image, clip, faces, raster, ids)
        ctx.depth_step = depth_step
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        image, clip, faces, raster, ids = ctx.saved_tensors
        grad_clip = torch.zeros_like(clip)
        _edge_term_backward(
            clip.numpy(),
            faces.numpy(),
            raster.numpy(),
            ids.numpy(),
            ctx.depth_step,
            image.numpy(),
            grad_image.contiguous().numpy(),
            grad_clip.numpy(),
        )
        return grad_image, grad_clip, None, None, None, None


class _EdgeTermTorch(Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, points: Tensor, depth: Tensor, ids: Tensor, depth_step: float) -> Tensor:
        ctx.save_for_backward(image, depth, ids)
        ctx.depth_step = depth_step
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        image, depth, ids = ctx.saved_tensors
        counts = []
        for axis in (2, 1):
            here, there = pairs(depth, axis)
            occluded = (here - there).abs() > ctx.depth_step
            counts.append(occluded | lip_contacts(ids, axis) if len(ids) else occluded)
        force = pair_forces(grad_image, image, depth, tuple(counts))
        return grad_image, force, None, None, None


def add_edge_term(
    image: Tensor, clip: Tensor, raster: Tensor, labels: Tensor, faces: Tensor, settings: EdgeTerm
) -> Tensor:
    """The same image, whose backward also gives the clip positions the gradient of occlusion.

    Args:
        image: (B, H, W, C) interpolated attributes, differentiable.
        clip: (B, V, 4) clip positions, differentiable; w in mm.
        raster: (B, H, W, 4) their raster.
        labels: (V,) uint8 label ids, for the lips.
        faces: (F, 3) int32.
        settings: which pairs count.

    Returns:
        (B, H, W, C), equal to ``image``.
    """
    raster = raster.detach()
    ids = dominant_labels(raster if settings.lip_pairs else raster[:0], labels, faces)
    if clip.device.type == "cpu" and clip.dtype == torch.float32:
        return _EdgeTerm.apply(image.contiguous(), clip.contiguous(), faces, raster, ids, settings.depth_step)
    points, w = surface_points(clip, faces.to(clip.device), raster)
    depth = torch.where(raster[..., 3] > 0, w.detach(), torch.inf)
    return _EdgeTermTorch.apply(image, points, depth, ids, settings.depth_step)
