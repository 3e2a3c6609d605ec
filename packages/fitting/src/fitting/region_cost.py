"""The region loss of a hard label image without building the image: one pass for loss and label-edge force.

With one-hot colours the quadratic region loss only needs, per pixel, what each label would cost there:
``cost(l) = sum_k w_k ([l = k] - t_k)^2 = sum_k w_k t_k^2 + [l is part k] w_k (1 - 2 t_k)``. The first term does not
depend on the label; the second is stored per part. The force across a border (see `fitting.label_edge`) is the
mean over its two pixels of the difference of these costs; ignored pixels cost the same whatever they show.
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

from fitting._borders import push_border
from fitting._types import Array
from fitting.label_edge import dominant_labels
from fitting.losses import part_weights
from fitting.parts import FIRST_PART_ID
from fitting.targets import PartTargets

_FIRST = FIRST_PART_ID


@dataclass(frozen=True)
class LabelCosts:
    """What each label costs at each pixel, relative to showing no part.

    Attributes:
        change: (B, H, W, 5) float32, ``w_k (1 - 2 t_k)``; 0 where a pixel is ignored.
        constant: (B,) float64, the loss of an image without any part.
    """

    change: Tensor
    constant: Tensor

    @classmethod
    def from_targets(cls, targets: PartTargets) -> LabelCosts:
        """Costs of `region_loss`, whose values and gradient `label_cost` reproduces."""
        weights = part_weights(targets)[:, None, None]
        change, empty = weights * (1 - 2 * targets.images), weights * targets.images.square()
        if targets.ignore is not None:
            ignored = targets.ignore[..., None]
            change, empty = change.masked_fill(ignored, 0), empty.masked_fill(ignored, 0)
        return cls(change.contiguous(), empty.sum((1, 2, 3), dtype=torch.float64))


@njit(cache=True, nogil=True)
def _label_cost(
    clip: Array,
    faces: Array,
    raster: Array,
    ids: Array,
    change: Array,
    shared_within: float,
    loss: Array,
    grad_clip: Array,
) -> None:
    """Add to loss (B,) the cost of ids (B,H,W), and its label-edge force to grad_clip (B,V,4) (0 images: skipped)."""
    batch, height, width = ids.shape
    forces = grad_clip.shape[0] > 0
    for b in range(batch):
        total = 0.0
        for row in range(height):
            for column in range(width):
                p = int(ids[b, row, column])
                if p >= _FIRST:
                    total += change[b, row, column, p - _FIRST]
                if not forces:
                    continue
                for axis in range(2):
                    row2, column2 = row + axis, column + 1 - axis
                    if row2 >= height or column2 >= width:
                        continue
                    q = int(ids[b, row2, column2])
                    if p == q or (p < _FIRST and q < _FIRST):
                        continue
                    force = np.float32(0.0)
                    if p >= _FIRST:
                        force += change[b, row, column, p - _FIRST] + change[b, row2, column2, p - _FIRST]
                    if q >= _FIRST:
                        force -= change[b, row, column, q - _FIRST] + change[b, row2, column2, q - _FIRST]
                    force *= np.float32(0.5)
                    push_border(clip[b], faces, raster[b], p, q, row, column, axis, force, shared_within, grad_clip[b])
        loss[b] += total


class _LabelCost(Function):
    @staticmethod
    def forward(
        ctx: Any,
        clip: Tensor,
        faces: Tensor,
        raster: Tensor,
        ids: Tensor,
        costs: LabelCosts,
        shared_within: float,
    ) -> Tensor:
        loss = costs.constant.clone()
        grad_clip = torch.zeros_like(clip if ctx.needs_input_grad[0] else clip[:0])
        _label_cost(
            clip.numpy(),
            faces.numpy(),
            raster.numpy(),
            ids.numpy(),
            costs.change.numpy(),
            shared_within,
            loss.numpy(),
            grad_clip.numpy(),
        )
        ctx.save_for_backward(grad_clip)
        return loss.to(clip.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (grad_clip,) = ctx.saved_tensors
        return grad_clip * grad_loss[:, None, None], None, None, None, None, None


def label_cost(
    clip: Tensor, raster: Tensor, labels: Tensor, faces: Tensor, costs: LabelCosts, shared_within: float = 0.0
) -> Tensor:
    """Region loss of the hard label image of a raster, with the label-edge force as its gradient.

    Args:
        clip: (B, V, 4) float32 CPU clip positions, differentiable.
        raster: (B, H, W, 4) their raster.
        labels: (V,) uint8 label ids.
        faces: (F, 3) int32.
        costs: of the targets of the same B photos.
        shared_within: as for `label_edge_image`.

    Returns:
        (B,) the value of `region_loss` on the one-hot image of the labels.
    """
    ids = dominant_labels(raster, labels, faces)
    return _LabelCost.apply(clip.contiguous(), faces, raster, ids, costs, shared_within)
