"""Screen forces at borders: what the label-edge force and the edge term share.

Both push, for a pair of neighbouring pixels p and q, by 1/2 (g_p + g_q) . (c_p - c_q) along the axis of the pair on
the nearer of the two surface points (derived in `fitting.label_edge`); they differ in which pairs count and in
the colours. Once for the CPU kernels, once in torch operations for any device and float type.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from fitting._types import Array
from fitting.parts import LABEL_IDS

UPPER, LOWER = LABEL_IDS["upper_lip"], LABEL_IDS["lower_lip"]


@njit(cache=True, nogil=True, error_model="numpy")
def push(
    clip: Array, faces: Array, raster: Array, row: int, column: int, axis: int, force: float, grad_clip: Array
) -> None:
    """Add a screen force (loss per pixel along x if axis is 0, along y if 1) at one surface point of one image."""
    height, width = raster.shape[:2]
    f = int(raster[row, column, 3]) - 1
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    u, v = raster[row, column, 0], raster[row, column, 1]
    t = np.float32(1.0) - u - v
    w = u * clip[i, 3] + v * clip[j, 3] + t * clip[k, 3]
    size, place = (width, column) if axis == 0 else (height, row)
    along = force * np.float32(0.5 * size) / w
    depth = along * np.float32(1.0 - (2.0 * place + 1.0) / size)
    grad_clip[i, axis] += u * along
    grad_clip[j, axis] += v * along
    grad_clip[k, axis] += t * along
    grad_clip[i, 3] += u * depth
    grad_clip[j, 3] += v * depth
    grad_clip[k, 3] += t * depth


@njit(cache=True, nogil=True)
def surface_w(clip: Array, faces: Array, raster: Array, row: int, column: int) -> float:
    """Depth w of the surface point that pixel (row, column) of one image sees."""
    f = int(raster[row, column, 3]) - 1
    u, v = raster[row, column, 0], raster[row, column, 1]
    t = np.float32(1.0) - u - v
    return u * clip[faces[f, 0], 3] + v * clip[faces[f, 1], 3] + t * clip[faces[f, 2], 3]


@njit(cache=True, nogil=True)
def push_border(
    clip: Array,
    faces: Array,
    raster: Array,
    p: int,
    q: int,
    row: int,
    column: int,
    axis: int,
    force: float,
    shared_within: float,
    grad_clip: Array,
) -> None:
    """Add the force of a border between labels p and q, at pixel (row, column) and its next one along axis.

    On the nearer surface point; half on each if both belong to one surface, that is, if their w differ by no
    more than shared_within (0: never) and they are not the two lips.
    """
    row2, column2 = row + axis, column + 1 - axis
    contact = min(p, q) == UPPER and max(p, q) == LOWER
    if shared_within > 0.0 and p != 0 and q != 0 and not contact:
        gap = abs(surface_w(clip, faces, raster, row, column) - surface_w(clip, faces, raster, row2, column2))
        if gap <= shared_within:
            half = np.float32(0.5) * force
            push(clip, faces, raster, row, column, axis, half, grad_clip)
            push(clip, faces, raster, row2, column2, axis, half, grad_clip)
            return
    if q == 0 or (p != 0 and raster[row, column, 2] <= raster[row2, column2, 2]):
        push(clip, faces, raster, row, column, axis, force, grad_clip)
    else:
        push(clip, faces, raster, row2, column2, axis, force, grad_clip)


def surface_points(clip: Tensor, faces: Tensor, raster: Tensor) -> tuple[Tensor, Tensor]:
    """Screen positions (B, H, W, 2) in pixels and w (B, H, W) of the seen surface points; visibility is fixed.

    Both move with the clip positions (B, V, 4). Pixels that see nothing hold an arbitrary point.
    """
    height, width = raster.shape[1:3]
    u, v, _, owner = raster.unbind(-1)
    corners = faces.long()[(owner.long() - 1).clamp_min(0)]
    image = torch.arange(len(clip), device=clip.device)[:, None, None, None].expand_as(corners)
    weights = torch.stack((u, v, 1 - u - v), -1)
    point = (clip[image, corners] * weights[..., None]).sum(-2)
    size = clip.new_tensor([width, height])
    return (point[..., :2] / point[..., 3:] + 1) * 0.5 * size, point[..., 3]


def pair_forces(
    grad: Tensor,
    colours: Tensor,
    depth: Tensor,
    counts: tuple[Tensor, ...] | None = None,
    shared: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """Screen force on the surface point of each pixel, in loss per pixel.

    Args:
        grad: (B, H, W, C) gradient of the image.
        colours: (B, H, W, C) the image.
        depth: (B, H, W), smaller is nearer, infinite where nothing is seen.
        counts: bool, which of the (B, H, W-1) pairs along x and the (B, H-1, W) along y count; None for all.
        shared: likewise, which pairs share the force instead of leaving it to the nearer point; None for none.

    Returns:
        (B, H, W, 2) in the dtype of ``grad``; x, y.
    """
    force = grad.new_zeros(*depth.shape, 2)
    for component, axis in enumerate((2, 1)):
        (gp, gq), (cp, cq), (depth_p, depth_q) = (pairs(image, axis) for image in (grad, colours, depth))
        pull = 0.5 * ((gp + gq) * (cp - cq)).sum(-1)
        if counts is not None:
            pull = pull * counts[component]
        share = (depth_p <= depth_q).to(pull.dtype)
        if shared is not None:
            share = torch.where(shared[component], 0.5, share)
        on_p, on_q = pairs(force[..., component], axis)
        on_p += pull * share
        on_q += pull * (1 - share)
    return force


def pairs(image: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """First and second pixels of all neighbouring pairs along one axis of (B, H, W, ...), as views."""
    n = image.shape[axis] - 1
    return image.narrow(axis, 0, n), image.narrow(axis, 1, n)


def lip_contacts(ids: Tensor, axis: int) -> Tensor:
    """Which pairs along one axis of label ids (B, H, W) go from one lip to the other."""
    p, q = pairs(ids, axis)
    return ((p == UPPER) & (q == LOWER)) | ((p == LOWER) & (q == UPPER))
