"""What the image regressors are trained on: the pieces a face model decodes its latents to.

A part model decodes six pieces, each from a latent of its own; a model of whole faces decodes one piece from all its
latents. Regressors and fine-tuning know no more of a face model than :class:`LatentModel` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes

Rows = NDArray[np.int64] | Tensor


class CoordinateNetwork(Protocol):
    """Encoder and decoder of shapes given by coordinates ``(B, r)`` in the network's own subspace."""

    @property
    def n_vertices(self) -> int:
        """Number of vertices of a shape."""

    def encode_coordinates(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``."""

    def decode_coordinates(self, latents: Tensor) -> Tensor:
        """Coordinates ``(B, r)`` of ``latents (B, D)``."""


@dataclass(frozen=True)
class FacePiece:
    """One region of N faces, or the whole of them: what it is, and the network that decodes it.

    Attributes:
        latent_dims: names and sizes of the latents that the network takes, in the order in which they lie side by side.
        network: frozen while regressors are trained.
        coordinates: ``(N, r)`` of the true shapes.
        metric: ``(r, r)`` by which errors in coordinates become as long as errors of the vertices, mm; None where they
            are already.
    """

    latent_dims: Mapping[str, int]
    network: CoordinateNetwork
    coordinates: Tensor
    metric: Tensor | None = None

    @torch.no_grad()
    def true_latents(self, rows: Rows) -> dict[str, Tensor]:
        """Latents mu ``{name: (len(rows), D)}`` of the true shapes."""
        mu = self.network.encode_coordinates(self.coordinates[rows])[0]
        return dict(zip(self.latent_dims, mu.split(list(self.latent_dims.values()), dim=1), strict=True))

    def joined(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The latents of this piece side by side, as its network takes them."""
        return torch.cat([latents[name] for name in self.latent_dims], dim=1)

    def difference(self, predicted: Tensor, rows: Rows) -> Tensor:
        """``(B, r)`` mm, as long as the vertex errors of ``predicted (B, r)`` coordinates, summed over vertices."""
        error = predicted - self.coordinates[rows]
        return error if self.metric is None else error @ self.metric

    def rms_mm(self, predicted: Tensor, rows: Rows) -> float:
        """Root of the mean over faces and vertices of the squared 3D error of ``predicted (B, r)`` coordinates."""
        squared = self.difference(predicted, rows).double().square().sum(dim=1)
        return float((squared.mean() / self.network.n_vertices).sqrt())


class LatentModel(Protocol):
    """A face model that image regressors can be trained for and fine-tuned with.

    :class:`segmodel.model.SegmentModel`, its linear twins, and :class:`segmodel.baselines.whole.WholeFaceModel`.
    """

    layout: PartLayout

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def latent_dims(self) -> dict[str, int]:
        """Latent size by name."""

    @property
    def latent_mean(self) -> dict[str, Tensor]:
        """Mean ``(D,)`` of the latents of the training faces, by name."""

    @property
    def latent_std(self) -> dict[str, Tensor]:
        """Standard deviation ``(D,)`` of the latents of the training faces, by name."""

    @property
    def decoders(self) -> nn.Module:
        """The networks that stay as they are while regressors are trained and fine-tuned."""

    @property
    def placers(self) -> Sequence[nn.Module]:
        """The networks that fine-tuning trains along with the regressors: those that put parts where they belong."""

    def pieces_of(self, shapes: LinearShapes) -> dict[str, FacePiece]:
        """Everything the model decodes, by name, of all faces of a linear model."""

    def compose(self, latents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Unblended faces ``(B, V, 3)`` mm of ``{name: (B, D)}``, and the faces that blending would start from."""
