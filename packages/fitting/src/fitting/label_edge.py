r"""The label-edge force: how a hard label image changes when the labelled surface moves.

A hard label image is piecewise constant, so its derivative lives on the borders between labels. Let p and q be
neighbouring pixels with different labels and one-hot colours c_p and c_q, and let L be any function of the
image with gradient g = dL/dimage. If the border between them moves by dx pixels from p towards q, a strip of
dx pixels changes its colour from c_q to c_p, so to first order

    dL = g . (c_p - c_q) dx.

The border lies between the two pixels, where neither g_p nor g_q alone is the gradient; their mean is:

    F = 1/2 (g_p + g_q) . (c_p - c_q).

For the quadratic region loss L = sum_px w |c - t|^2, g = 2 w (c - t), this mean is exact: F is the mean over p
and q of the change of the loss if that pixel changes from q's label to p's, because
(c_p + c_q) . (c_p - c_q) = |c_p|^2 - |c_q|^2 telescopes (if w is the same at p and q; next to ignored pixels only
`fitting.region_cost`, which knows the costs, is exact). F acts along the axis of the pair on the nearer of
the two surface points, since the border belongs to whichever surface hides the other. A surface point is
X = sum_i b_i V_i with the perspective-correct weights b_i of its triangle, so a screen force F on it gives
b_i J^T F to vertex i, where J is the Jacobian of the projection at X. Background has no surface point.

Unlike the gradient of interpolated vertex colours, this needs no triangle that straddles the border, sees
occlusion, and does not care whether triangles are smaller than a pixel.

Inside one continuous surface the border lies between the two points and "nearer" is arbitrary to within a pixel.
That makes no difference while both move alike. If a part moves without its surround it does, and the force can
be shared: half on each point wherever their depths differ by less than a step, except between the lips, which
touch but are two surfaces.

This module holds the numba kernel (CPU) and the same sum in torch operations (any device, any float type).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fitting._borders import lip_contacts, pair_forces, pairs, push_border, surface_points
from fitting._types import Array
from fitting.parts import FIRST_PART_ID, PARTS, REGIONS

_FIRST = FIRST_PART_ID
_N_REGIONS = len(REGIONS)


@njit(cache=True, nogil=True)
def _dominant_labels(labels: Array, faces: Array, raster: Array, ids: Array) -> None:
    """Overwrite ids (B,H,W) uint8: the label with most interpolated weight, the lowest id of equal ones; 0 empty."""
    batch, height, width = ids.shape
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                f = int(raster[b, row, column, 3]) - 1
                if f < 0:
                    ids[b, row, column] = 0
                    continue
                i, j, k = labels[faces[f, 0]], labels[faces[f, 1]], labels[faces[f, 2]]
                if i == j and j == k:
                    ids[b, row, column] = i
                    continue
                u, v = raster[b, row, column, 0], raster[b, row, column, 1]
                t = np.float32(1.0) - u - v
                if i == j:
                    u, v = u + v, np.float32(0.0)
                elif i == k:
                    u, t = u + t, np.float32(0.0)
                elif j == k:
                    v, t = v + t, np.float32(0.0)
                best, weight = i, u
                if v > weight or (v == weight and j < best):
                    best, weight = j, v
                if t > weight or (t == weight and k < best):
                    best = k
                ids[b, row, column] = best


@njit(cache=True, nogil=True)
def _one_hot(ids: Array, image: Array) -> None:
    """Overwrite image (B,H,W,5) with the one-hot part colours of ids (B,H,W); zeros for background and rest."""
    batch, height, width, channels = image.shape
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                for channel in range(channels):
                    image[b, row, column, channel] = 0.0
                if ids[b, row, column] >= _FIRST:
                    image[b, row, column, ids[b, row, column] - _FIRST] = 1.0


@njit(cache=True, nogil=True)
def _label_edge_backward(
    clip: Array,
    faces: Array,
    raster: Array,
    ids: Array,
    shared_within: float,
    grad_image: Array,
    grad_clip: Array,
) -> None:
    """Add the label-edge force of grad_image (B,H,W,5) to grad_clip (B,V,4)."""
    batch, height, width = ids.shape
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                p = int(ids[b, row, column])
                for axis in range(2):
                    row2, column2 = row + axis, column + 1 - axis
                    if row2 >= height or column2 >= width:
                        continue
                    q = int(ids[b, row2, column2])
                    if p == q:
                        continue
                    force = np.float32(0.0)
                    if p >= _FIRST:
                        force += grad_image[b, row, column, p - _FIRST] + grad_image[b, row2, column2, p - _FIRST]
                    if q >= _FIRST:
                        force -= grad_image[b, row, column, q - _FIRST] + grad_image[b, row2, column2, q - _FIRST]
                    if force == 0.0:
                        continue
                    force *= np.float32(0.5)
                    push_border(clip[b], faces, raster[b], p, q, row, column, axis, force, shared_within, grad_clip[b])


def dominant_labels(raster: Tensor, labels: Tensor, faces: Tensor) -> Tensor:
    """Hard label image of a raster.

    Args:
        raster: (B, H, W, 4) from `Renderer.rasterise`.
        labels: (V,) uint8 vertex label ids 1 to 6.
        faces: (F, 3) int32.

    Returns:
        (B, H, W) uint8 on the device of ``raster``: argmax of the interpolated one-hot vertex labels (the
        lower id where two weigh the same), 0 where nothing is seen.
    """
    if raster.device.type == "cpu" and raster.dtype == torch.float32:
        ids = torch.empty(raster.shape[:3], dtype=torch.uint8)
        _dominant_labels(labels.numpy(), faces.numpy(), raster.detach().numpy(), ids.numpy())
        return ids
    corners = labels.to(raster.device).long()[faces.to(raster.device).long()]
    u, v, _, owner = raster.detach().unbind(-1)
    weights = torch.stack((u, v, 1 - u - v), -1)
    corner_labels = corners[(owner.long() - 1).clamp_min(0)]
    one_hot = torch.nn.functional.one_hot(corner_labels, _N_REGIONS + 1).to(weights.dtype)
    ids = (one_hot * weights[..., None]).sum(-2).argmax(-1)
    return torch.where(owner > 0, ids, 0).to(torch.uint8)


class _LabelEdge(Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, raster: Tensor, ids: Tensor, shared_within: float) -> Tensor:
        image = torch.empty(*ids.shape, len(PARTS))
        _one_hot(ids.numpy(), image.numpy())
        ctx.save_for_backward(clip, faces, raster, ids)
        ctx.shared_within = shared_within
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor, None, None, None, None]:
        clip, faces, raster, ids = ctx.saved_tensors
        grad_clip = torch.zeros_like(clip)
        _label_edge_backward(
            clip.numpy(),
            faces.numpy(),
            raster.numpy(),
            ids.numpy(),
            ctx.shared_within,
            grad_image.contiguous().numpy(),
            grad_clip.numpy(),
        )
        return grad_clip, None, None, None, None


class _LabelEdgeTorch(Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, w: Tensor, raster: Tensor, ids: Tensor, shared_within: float) -> Tensor:
        ctx.save_for_backward(w, raster, ids)
        ctx.shared_within = shared_within
        image = torch.nn.functional.one_hot(ids.long(), _N_REGIONS + 1)[..., _FIRST:]
        return image.to(points.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        w, raster, ids = ctx.saved_tensors
        image = torch.nn.functional.one_hot(ids.long(), _N_REGIONS + 1)[..., _FIRST:].to(grad.dtype)
        depth = torch.where(ids > 0, raster[..., 2], torch.inf)
        shared = None
        if ctx.shared_within > 0:
            seen_w = torch.where(ids > 0, w, torch.inf)
            gaps = [(axis, pairs(seen_w, axis)) for axis in (2, 1)]  # infinite or NaN next to the background
            shared = tuple(((p - q).abs() <= ctx.shared_within) & ~lip_contacts(ids, axis) for axis, (p, q) in gaps)
        force = pair_forces(grad, image, depth, shared=shared)
        return force * (ids > 0)[..., None], None, None, None, None


def label_edge_image(
    clip: Tensor, raster: Tensor, labels: Tensor, faces: Tensor, shared_within: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Hard part image whose backward is the label-edge force.

    Args:
        clip: (B, V, 4) clip positions, differentiable.
        raster: (B, H, W, 4) their raster.
        labels: (V,) uint8 label ids.
        faces: (F, 3) int32.
        shared_within: where the w of two surface points differ by no more than this, both take half of the
            force; 0 to leave all of it to the nearer one.

    Returns:
        image (B, H, W, 5) one-hot in the dtype of ``clip`` (zeros on rest and background), and the label ids
        (B, H, W) uint8.
    """
    raster = raster.detach()
    ids = dominant_labels(raster, labels, faces)
    if clip.device.type == "cpu" and clip.dtype == torch.float32:
        return _LabelEdge.apply(clip.contiguous(), faces, raster, ids, shared_within), ids
    points, w = surface_points(clip, faces.to(clip.device), raster)
    return _LabelEdgeTorch.apply(points, w.detach(), raster, ids, shared_within), ids
