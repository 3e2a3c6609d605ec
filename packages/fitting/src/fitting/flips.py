"""Triangles that turn over: how many do, and a penalty that keeps them from doing so.

Masks say nothing about a surface folding over itself, so a fit may turn triangles to move a border. A triangle with
normal n (length twice its area) that started with n_0 counts as flipped if ``n . n_0 < 0``: it then faces away from
where it faced, which a head pose changed by less than a right angle does not do by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import ArrayLike
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fitting._types import Array

MARGIN = 0.1
"""A triangle costs once its area along its start normal is below this share of its start area."""


@njit(cache=True, nogil=True)
def _normal(v: Array, i: int, j: int, k: int) -> tuple[float, float, float]:
    ax, ay, az = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
    bx, by, bz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@njit(cache=True, nogil=True)
def _normals(vertices: Array, faces: Array, normals: Array) -> None:
    """Overwrite normals (B,F,3) with (b - a) x (c - a) of every triangle of vertices (B,V,3)."""
    for b in range(vertices.shape[0]):
        for f in range(faces.shape[0]):
            x, y, z = _normal(vertices[b], faces[f, 0], faces[f, 1], faces[f, 2])
            normals[b, f, 0], normals[b, f, 1], normals[b, f, 2] = x, y, z


@njit(cache=True, nogil=True)
def _count_flipped(vertices: Array, faces: Array, directions: Array, count: Array) -> None:
    """Add to count (B,) the triangles with a normal against directions (B,F,3)."""
    for b in range(vertices.shape[0]):
        for f in range(faces.shape[0]):
            x, y, z = _normal(vertices[b], faces[f, 0], faces[f, 1], faces[f, 2])
            if x * directions[b, f, 0] + y * directions[b, f, 1] + z * directions[b, f, 2] < 0.0:
                count[b] += 1


@njit(cache=True, nogil=True)
def _penalise(vertices: Array, faces: Array, directions: Array, least: Array, penalty: Array, grad: Array) -> None:
    """Add to penalty (B,) ``max(0, least - n . direction)`` of all triangles, and its gradient to grad (B,V,3)."""
    for b in range(vertices.shape[0]):
        total = 0.0
        for f in range(faces.shape[0]):
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            x, y, z = _normal(vertices[b], i, j, k)
            dx, dy, dz = directions[b, f, 0], directions[b, f, 1], directions[b, f, 2]
            missing = least[b, f] - (x * dx + y * dy + z * dz)
            if missing <= 0.0:
                continue
            total += missing
            v, g = vertices[b], grad[b]
            ax, ay, az = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
            bx, by, bz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
            jx, jy, jz = dy * bz - dz * by, dz * bx - dx * bz, dx * by - dy * bx
            kx, ky, kz = ay * dz - az * dy, az * dx - ax * dz, ax * dy - ay * dx
            g[j, 0] += jx
            g[j, 1] += jy
            g[j, 2] += jz
            g[k, 0] += kx
            g[k, 1] += ky
            g[k, 2] += kz
            g[i, 0] -= jx + kx
            g[i, 1] -= jy + ky
            g[i, 2] -= jz + kz
        penalty[b] += total


class _Penalty(Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor, directions: Tensor, least: Tensor) -> Tensor:
        penalty, grad = vertices.new_zeros(len(vertices)), torch.zeros_like(vertices)
        _penalise(vertices.numpy(), faces.numpy(), directions.numpy(), least.numpy(), penalty.numpy(), grad.numpy())
        ctx.save_for_backward(grad)
        return penalty

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_penalty: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_penalty[:, None, None], None, None, None


class Orientation:
    """Which way the triangles of B meshes of one topology face at their start.

    The work is done on the CPU; vertices on another device are brought there and the results back.

    Args:
        start: (B, V, 3) vertices.
        faces: (F, 3) integer.
    """

    def __init__(self, start: Tensor, faces: ArrayLike | Tensor) -> None:
        self._faces = torch.from_numpy(np.ascontiguousarray(np.asarray(faces), np.int32))
        points = start.detach().cpu().contiguous()
        normals = points.new_empty(len(points), len(self._faces), 3)
        _normals(points.numpy(), self._faces.numpy(), normals.numpy())
        size = normals.norm(dim=-1, keepdim=True)
        tiny = torch.finfo(points.dtype).tiny
        mean = size.mean(1, keepdim=True).clamp_min(tiny)
        self._directions = normals / (size * mean).clamp_min(tiny)
        self._least = (MARGIN * size / mean)[..., 0].contiguous()

    def _on_cpu(self, vertices: Tensor) -> Tensor:
        return vertices.to("cpu", self._directions.dtype).contiguous()

    def flipped(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) -> (B,) float64 share of triangles whose normal points against the start's."""
        count = torch.zeros(len(vertices), dtype=torch.float64)
        points = self._on_cpu(vertices.detach())
        _count_flipped(points.numpy(), self._faces.numpy(), self._directions.numpy(), count.numpy())
        return count / max(len(self._faces), 1)

    def penalty(self, vertices: Tensor) -> Tensor:
        """Area that faces backwards, in triangles of mean area; differentiable.

        ``sum_f max(0, .1 |n_0f| - n_f . n_0f / |n_0f|) / mean |n_0|``: nothing as long as every triangle keeps a tenth
        of its area along its start normal, then rising linearly with what is missing.

        Args:
            vertices: (B, V, 3).

        Returns:
            (B,).
        """
        penalty = _Penalty.apply(self._on_cpu(vertices), self._faces, self._directions, self._least)
        return penalty.to(vertices)
