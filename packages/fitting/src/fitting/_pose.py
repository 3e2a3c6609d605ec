"""Rigid motion of vertices on the CPU: one compiled pass forward and one backward, where a matrix product takes ten."""

from __future__ import annotations

from typing import Any

import torch
from numba import njit
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fitting._types import Array


@njit(cache=True, nogil=True)
def _move(points: Array, rotation: Array, translation: Array, moved: Array) -> None:
    """Overwrite moved (B,V,3) with rotation (B,3,3) @ point + translation (B,3)."""
    for b in range(points.shape[0]):
        r = rotation[b]
        for v in range(points.shape[1]):
            x, y, z = points[b, v, 0], points[b, v, 1], points[b, v, 2]
            for row in range(3):
                moved[b, v, row] = r[row, 0] * x + r[row, 1] * y + r[row, 2] * z + translation[b, row]


@njit(cache=True, nogil=True)
def _pull_back(
    points: Array, rotation: Array, grad: Array, grad_points: Array, grad_rotation: Array, grad_translation: Array
) -> None:
    """Overwrite grad_points (B,V,3) (0 images: skipped) and add to the float64 sums of rotation and translation."""
    for b in range(points.shape[0]):
        r = rotation[b]
        for v in range(points.shape[1]):
            gx, gy, gz = grad[b, v, 0], grad[b, v, 1], grad[b, v, 2]
            if grad_points.shape[0] > 0:
                for column in range(3):
                    grad_points[b, v, column] = r[0, column] * gx + r[1, column] * gy + r[2, column] * gz
            if gx == 0.0 and gy == 0.0 and gz == 0.0:
                continue
            for column in range(3):
                grad_rotation[b, 0, column] += gx * points[b, v, column]
                grad_rotation[b, 1, column] += gy * points[b, v, column]
                grad_rotation[b, 2, column] += gz * points[b, v, column]
            grad_translation[b, 0] += gx
            grad_translation[b, 1] += gy
            grad_translation[b, 2] += gz


class _Move(Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
        moved = torch.empty_like(points)
        _move(points.numpy(), rotation.numpy(), translation.numpy(), moved.numpy())
        ctx.save_for_backward(points, rotation)
        return moved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        points, rotation = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        grad_points = torch.empty_like(points if wanted else points[:0])
        grad_rotation = torch.zeros(*rotation.shape, dtype=torch.float64)
        grad_translation = torch.zeros(len(points), 3, dtype=torch.float64)
        _pull_back(
            points.numpy(),
            rotation.numpy(),
            grad.contiguous().numpy(),
            grad_points.numpy(),
            grad_rotation.numpy(),
            grad_translation.numpy(),
        )
        sums = grad_rotation.to(rotation.dtype), grad_translation.to(rotation.dtype)
        return (grad_points if wanted else None), *sums


def move(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """``points @ rotation.mT + translation`` for CPU tensors (B, V, 3), (B, 3, 3), (B, 3) of one float type."""
    return _Move.apply(points.contiguous(), rotation.contiguous(), translation.contiguous())


def is_fast(points: Tensor, rotation: Tensor, translation: Tensor) -> bool:
    """Whether `move` takes these tensors."""
    batch = points.shape[:1]
    return (
        points.shape[2:] == (3,)
        and rotation.shape == (*batch, 3, 3)
        and translation.shape == (*batch, 3)
        and points.device.type == rotation.device.type == translation.device.type == "cpu"
        and points.dtype == rotation.dtype == translation.dtype
        and points.dtype in (torch.float32, torch.float64)
    )
