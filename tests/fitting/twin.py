"""The slow, obvious twin of the renderer in float64: loops and torch autograd, no code of the package.

Rasterise by testing every pixel against every triangle, interpolate, antialias, average, and the forces at
borders between pixels as the gradient of a sum that is written down.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pair = tuple[tuple[int, int], tuple[int, int], int]
"""Pixel (row, column), its right or lower neighbour, and the axis between them: 0 = x, 1 = y."""


def rasterise(clip: NDArray[np.floating], faces: NDArray[np.integer], height: int, width: int) -> NDArray[np.float64]:
    """(H, W, 4) u, v, z/w, id+1 by testing every pixel against every triangle: integers, rays and planes."""
    clip = clip.astype(np.float64)
    result = np.zeros((height, width, 4))
    nearest = np.full((height, width), np.inf)
    rows, columns = np.mgrid[:height, :width]
    with np.errstate(divide="ignore", invalid="ignore"):
        screen = (clip[:, :2] / clip[:, 3:] + 1) / 2 * (width, height)
    for index, triangle in enumerate(faces):
        if (clip[triangle, 3] <= 0).any():
            continue
        corners = np.rint(screen[triangle] * 16).astype(np.int64)
        if np.linalg.det(np.c_[corners, np.ones(3)]) < 0:
            corners = corners[::-1]
        covered = np.ones((height, width), bool)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
            side = (bx - ax) * (16 * rows + 8 - ay) - (by - ay) * (16 * columns + 8 - ax)
            top_left = by < ay or (by == ay and bx > ax)
            covered &= (side >= 0) if top_left else (side > 0)
        if not covered.any() or abs(np.linalg.det(np.c_[corners, np.ones(3)])) < 0.5:
            continue
        # ray through the pixel: find weights with sum_i b_i (x_i - X w_i) = 0 and the same for y
        centre = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
        p = clip[triangle, :2] - centre[..., None, :] * clip[triangle, 3:]
        cross = np.stack(
            [p[..., i, 0] * p[..., j, 1] - p[..., j, 0] * p[..., i, 1] for i, j in ((1, 2), (2, 0), (0, 1))], -1
        )
        weights = cross / cross.sum(-1, keepdims=True)
        depth = (weights @ clip[triangle, 2]) / (weights @ clip[triangle, 3])
        drawn = covered & (depth <= nearest)
        nearest[drawn] = depth[drawn]
        result[drawn] = np.stack([weights[..., 0], weights[..., 1], depth, np.full_like(depth, index + 1)], -1)[drawn]
    return result


def weights(clip: Tensor, faces: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Corners (H, W, 3) of the triangles that own the pixels of one image, and their perspective-correct weights.

    Where snapped coverage reaches beyond the triangle, the values are clamped and their gradients are not.
    """
    height, width = owner.shape
    corners = faces[(owner - 1).clamp_min(0)]
    position = clip[corners]
    x = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    y = (2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1
    px = position[..., 0] - x[:, None] * position[..., 3]
    py = position[..., 1] - y[:, None, None] * position[..., 3]
    cross = torch.stack([px[..., i] * py[..., j] - px[..., j] * py[..., i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
    exact = cross / torch.where(owner > 0, cross.sum(-1), 1.0)[..., None]
    clamped = exact.clamp_min(0) / exact.clamp_min(0).sum(-1, keepdim=True).clamp_min(1e-12)
    return corners, exact + (clamped - exact).detach()


def interpolate(clip: Tensor, attributes: Tensor, faces: Tensor, raster: Tensor) -> Tensor:
    """(B, H, W, C) image of (B, V, C) attributes, differentiable; only the owners of raster are used."""
    owners = raster[..., 3].long()
    images = []
    for image in range(len(clip)):
        corners, share = weights(clip[image], faces, owners[image])
        seen = (owners[image] > 0)[..., None]
        images.append((share[..., None] * attributes[image][corners]).sum(-2) * seen)
    return torch.stack(images)


def neighbours(height: int, width: int) -> list[Pair]:
    pairs = []
    for row, column in itertools.product(range(height), range(width)):
        if column + 1 < width:
            pairs.append(((row, column), (row, column + 1), 0))
        if row + 1 < height:
            pairs.append(((row, column), (row + 1, column), 1))
    return pairs


def _side(a: NDArray, b: NDArray, point: NDArray) -> float:
    return float((b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]))


def antialias(image: Tensor, raster: Tensor, clip: Tensor, faces: Tensor) -> Tensor:
    """Antialiased (H, W, C) of one image, differentiable in the image and in clip (V, 4)."""
    height, width = image.shape[:2]
    screen = (clip[:, :2] / clip[:, 3:] + 1) / 2 * torch.tensor([width, height], dtype=torch.float64)
    place, triangles = screen.detach().numpy(), faces.numpy()
    around: dict[frozenset[int], list[int]] = {}
    for a, b, c in triangles.tolist():
        for edge, apex in ((frozenset((a, b)), c), (frozenset((b, c)), a), (frozenset((c, a)), b)):
            around.setdefault(edge, []).append(apex)
    out = image
    for first, second, axis in neighbours(height, width):
        (z1, id1), (z2, id2) = raster[first][2:].tolist(), raster[second][2:].tolist()
        if id1 == id2:
            continue
        p, q, step = (first, second, 1) if id2 == 0 or (id1 != 0 and z1 < z2) else (second, first, -1)
        corners = triangles[int(raster[p][3]) - 1]
        along, across = (p[1] + 0.5, p[0] + 0.5) if axis == 0 else (p[0] + 0.5, p[1] + 0.5)
        for corner in range(3):
            a, b = corners[(corner + 1) % 3], corners[(corner + 2) % 3]
            apexes = around[frozenset((int(a), int(b)))]
            sides = [_side(place[a], place[b], place[apex]) for apex in apexes]
            if len(apexes) == 2 and sides[0] * sides[1] < 0:
                continue  # the surface goes on to the other side
            run, rise = abs(place[b] - place[a])[[axis, 1 - axis]]
            if rise < run or (place[a][1 - axis] <= across) == (place[b][1 - axis] <= across):
                continue
            share = (across - screen[a, 1 - axis]) / (screen[b, 1 - axis] - screen[a, 1 - axis])
            s = step * (screen[a, axis] + share * (screen[b, axis] - screen[a, axis]) - along)
            if not -1 / 16 <= s.item() <= 17 / 16:
                continue
            amount = s.clamp(0, 1) - 0.5
            mixed = q if amount.item() > 0 else p
            change = torch.zeros_like(image)
            change[mixed] = amount * (image[p] - image[q])
            out = out + change
            break
    return out


def area_average(image: Tensor, factor: int) -> Tensor:
    """(B, factor H, factor W, C) -> (B, H, W, C)."""
    batch, height, width, channels = image.shape
    return image.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def border_gradient(
    clip: Tensor,
    faces: Tensor,
    raster: Tensor,
    colours: Tensor,
    grad: Tensor,
    pairs: list[Pair],
    shared: Collection[Pair] = (),
) -> Tensor:
    """(V, 4) gradient of the force 1/2 (g_p + g_q) . (c_p - c_q) on the nearer surface point of each pair of pixels.

    On both, half each, for the shared pairs. clip (V, 4) and raster, colours, grad (H, W, .) are those of one image.
    """
    height, width = raster.shape[:2]
    clip = clip.detach().clone().requires_grad_()
    owner = raster[..., 3].long()
    corners, share = weights(clip, faces, owner)
    point = (clip[corners] * share.detach()[..., None]).sum(-2)
    screen = (point[..., :2] / point[..., 3:] + 1) / 2 * torch.tensor([width, height], dtype=torch.float64)
    total = clip.new_zeros(())
    for pair in pairs:
        p, q, axis = pair
        force = 0.5 * ((grad[p] + grad[q]) * (colours[p] - colours[q])).sum()
        nearer = p if owner[q] == 0 or (owner[p] > 0 and raster[p][2] <= raster[q][2]) else q
        place = (screen[p][axis] + screen[q][axis]) / 2 if pair in shared else screen[nearer][axis]
        total = total + force * place
    return torch.autograd.grad(total, clip)[0]
