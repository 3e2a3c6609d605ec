"""What fine-tuning minimises: errors of 3D shape and of 2D parsing (NEO-3DF eq. 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from segmodel.linear import LinearShapes
from segmodel.parts import REGIONS
from segmodel.pieces import LatentModel
from segmodel.regressors import ImageRegressors
from segmodel.vae import kl_to_standard_normal

Rows = NDArray[np.int64]


class RenderParts(Protocol):
    """Differentiable rendering of neutral faces as the photos of ``rows`` show them."""

    def __call__(self, vertices: Tensor, rows: Rows) -> Tensor:
        """``vertices (B, V, 3)`` mm and ``rows (B,)`` to part images ``(B, H, W, 5)`` in PARTS order, 0 to 1."""


class MaskSource(Protocol):
    """Target masks ``(N, H, W, 5)``, 0 to 1 or bool: an array, tensor or memory map, indexed by an array of rows."""

    def __getitem__(self, rows: Rows, /) -> ArrayLike | Tensor:
        """Masks ``(B, H, W, 5)`` of the given rows."""


class AugmentedEncodings(Protocol):
    """Encodings to train on, of photos that differ a little each time."""

    def __call__(self, rows: Rows, own: slice, /) -> Tensor:
        """Encodings ``(B, E)`` of the photos ``rows[own]``; random numbers are drawn for all ``rows``.

        Processes that share a batch each ask for a part of it, and so draw the same.
        """


@dataclass(frozen=True)
class Terms:
    """Differentiable loss terms of one batch."""

    shape: Tensor
    parts: Tensor
    kl: Tensor


@dataclass(frozen=True)
class Problem:
    """Everything a loss evaluation needs; only the networks in it change."""

    model: LatentModel
    regressors: ImageRegressors
    encode: Callable[[Rows], Tensor]
    shapes: LinearShapes
    render_parts: RenderParts
    target_masks: MaskSource
    soften: Callable[[Tensor], Tensor] | None
    augmented: AugmentedEncodings
    min_mask_px: float

    def terms(self, rows: Rows) -> Terms:
        """Loss terms of the photos ``rows``."""
        return self.terms_of(self.encode(rows), rows)

    def training_terms(self, rows: Rows, own: slice, noise: float, random: torch.Generator) -> Terms:
        """Loss terms of the ``own`` rows of a batch of augmented photos, with noise on their encodings.

        ``noise`` is in standard deviations of the encodings, and drawn for the whole batch.
        """
        encodings = self.augmented(rows, own)
        normal = torch.randn(len(rows), encodings.shape[1], generator=random)[own].to(encodings)
        return self.terms_of(encodings + noise * self.regressors.encoding_std * normal, rows[own])

    def terms_of(self, encodings: Tensor, rows: Rows) -> Terms:
        """Regress (no sampling), compose unblended, render, compare."""
        posterior = self.regressors.posterior(encodings)
        composed, _ = self.model.compose({name: mu for name, (mu, _) in posterior.items()})
        kl = sum(kl_to_standard_normal(mu, logvar).sum(dim=1).mean() for mu, logvar in posterior.values())
        return Terms(
            shape=shape_loss(composed, self.shapes.vertices(rows), self.model),
            parts=self._parsing(composed, rows),
            kl=torch.as_tensor(kl),
        )

    def _parsing(self, composed: Tensor, rows: Rows) -> Tensor:
        rendered = self.render_parts(composed, rows)
        target = torch.as_tensor(self.target_masks[rows]).to(rendered)
        if rendered.shape != target.shape:
            raise ValueError(
                f"render_parts returned {tuple(rendered.shape)} but the target masks are {tuple(target.shape)}: "
                "both must be (B, H, W, 5)"
            )
        return parsing_loss(rendered, target, soften=self.soften, min_mask_px=self.min_mask_px)

    def trained(self) -> list[nn.Module]:
        """The networks that change: regressors, what places the parts, and the encoder if it is one."""
        modules: list[nn.Module] = [self.regressors, *self.model.placers]
        return [*modules, self.encode] if isinstance(self.encode, nn.Module) else modules


class BatchTerms(nn.Module):
    """:meth:`Problem.training_terms` as a module: to average gradients over processes its forward is wrapped."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.networks = nn.ModuleList(problem.trained())
        self._problem = problem

    def forward(self, rows: Rows, own: slice, noise: float, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Shape, parts and kl terms of the ``own`` rows of a batch."""
        terms = self._problem.training_terms(rows, own, noise, random)
        return terms.shape, terms.parts, terms.kl


def shape_loss(vertices: Tensor, target: Tensor, model: LatentModel) -> Tensor:
    """Squared vertex error in mm^2, mean over the vertices of each region, then over the six regions and the batch.

    ``vertices`` and ``target`` are ``(B, V, 3)``. Regions count equally, or the many skin vertices would decide.
    """
    squared = (vertices - target.to(vertices)).square().sum(dim=-1)
    return torch.stack([squared[:, model.layout.core(region)].mean() for region in REGIONS]).mean()


def parsing_loss(
    rendered: Tensor,
    target: Tensor,
    *,
    soften: Callable[[Tensor], Tensor] | None = None,
    min_mask_px: float = 20.0,
) -> Tensor:
    """Squared difference of softened part images over the target's pixel count, mean over photos (after NEO-3DF eq. 2).

    Args:
        rendered, target: ``(B, H, W, 5)``, 0 to 1.
        soften: a linear map of ``(B, H, W, 5)`` to itself, such as a Gaussian blur.
        min_mask_px: parts with a smaller target are left out for that photo.
    """
    visible = (target.sum(dim=(1, 2)) >= min_mask_px).to(target.dtype)
    pixels = (target.sum(dim=(1, 2)) * visible).sum(dim=1)
    difference = rendered - target
    if soften is not None:
        difference = soften(difference)  # linear: the difference of the softened images, at half the cost
    squared = (difference.square().sum(dim=(1, 2)) * visible).sum(dim=1)
    return (squared / pixels.clamp_min(1.0)).mean()
