"""LD-VAE (Foti et al., CVPR 2022): one face model whose latent has a slice per region, disentangled by swapping.

The network encodes and decodes whole faces. Training on faces with a swapped region, and a loss that compares latents
of faces that share a region with those of faces that do not, push each region's shape into its own slice of the latent.
Here with the six regions of NEO-3DF, multilayer perceptrons as wide as the part models' instead of mesh convolutions,
and slices as large as the part models' latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from segmodel.baselines.swap import SwapSpace, swapped_grid
from segmodel.baselines.whole import WholeFaceModel
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.parts import REGIONS
from segmodel.vae import HIDDEN, kl_to_standard_normal, reparameterise


class LdNetwork(nn.Module):
    """VAE of whole faces, V vertices -> 512 -> 128 -> (mu, logvar) of size D; D -> 128 -> 512 -> V vertices, ReLU.

    First and last layer are kept in the coordinates of a :class:`SwapSpace`, like those of
    :class:`segmodel.vae.PartVae`: on swapped faces the same function class as layers of 3V standardised coordinates,
    the output being held in the span of the training faces' blocks. Latents are the regions' slices side by side, in
    REGIONS order. Buffers: ``latent_mean (D,)``, ``latent_std (D,)``, and ``slices (6, D)`` bool: whose latents.

    Args:
        space: of the faces. dims: latent size of each region. scale: one input and output unit of the networks, in
            coordinates of the space.
    """

    slices: Tensor
    scale: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, space: SwapSpace, dims: Sequence[int], scale: float = 1.0) -> None:
        super().__init__()
        wide, narrow = HIDDEN
        self.space = space
        self.latent_dim = sum(dims)
        owner = torch.repeat_interleave(torch.arange(len(dims)), torch.tensor(list(dims)))
        self.register_buffer("slices", owner == torch.arange(len(dims))[:, None], persistent=False)
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("latent_mean", torch.zeros(self.latent_dim))
        self.register_buffer("latent_std", torch.ones(self.latent_dim))
        self.encoder_in, self.encoder_mid = nn.Linear(space.rank, wide), nn.Linear(wide, narrow)
        self.mu_head = nn.Linear(narrow, self.latent_dim)
        self.logvar_head = nn.Linear(narrow, self.latent_dim)
        self.decoder_in, self.decoder_mid = nn.Linear(self.latent_dim, narrow), nn.Linear(narrow, wide)
        self.decoder_out = nn.Linear(wide, space.rank)

    @property
    def n_vertices(self) -> int:
        """Number of vertices V."""
        return self.space.n_vertices

    def encode_coordinates(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(..., D)``, of ``coordinates (..., r)``."""
        hidden = torch.relu(self.encoder_mid(torch.relu(self.encoder_in(coordinates / self.scale))))
        return self.mu_head(hidden), self.logvar_head(hidden)

    def decode_coordinates(self, latents: Tensor) -> Tensor:
        """Coordinates ``(..., r)`` of ``latents (..., D)``."""
        hidden = torch.relu(self.decoder_mid(torch.relu(self.decoder_in(latents))))
        return self.scale * self.decoder_out(hidden)

    def encode(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``, of ``vertices (B, V, 3)`` mm."""
        return self.encode_coordinates(self.space.coordinates(vertices))

    def decode(self, latents: Tensor) -> Tensor:
        """Vertices ``(B, V, 3)`` mm of ``latents (B, D)``."""
        return self.space.vertices(self.decode_coordinates(latents))


@dataclass(frozen=True)
class LdLoss:
    """The four terms of LD-VAE's loss before weighting.

    ``reconstruction``: mean squared error of a standardised coordinate; ``kl``: nats, summed over latents, mean over
    faces; ``consistency``: mean hinge; ``laplacian``: mean over vertices of the squared Laplacian of the standardised
    prediction (the published code takes it unsquared, which no reduced form can).
    """

    reconstruction: Tensor
    kl: Tensor
    consistency: Tensor
    laplacian: Tensor

    def terms(self) -> dict[str, Tensor]:
        """By name."""
        return dict(vars(self))


def consistency_loss(latents: Tensor, own: Tensor, margin: float) -> Tensor:
    """LD-VAE's latent consistency: latents of faces that share content must lie closer than those that do not.

    In a swapped grid, cells of one column share the swapped region, cells of one row share everything else. For every
    pair of indices (a, b) and every third index t the region's slice asks for
    ``|z_at - z_bt|^2 + margin <= |z_ta - z_tb|^2``, and the rest of the latent for the opposite.

    Args:
        latents: ``(G, B, B, D)``. own: ``(G, D)`` bool, the slice of the region each group swaps. margin: eta.

    Returns:
        Mean over groups of the sum of hinges over ``B^3 - B^2``, which is their number.
    """
    first, second = (list(index) for index in zip(*combinations(range(latents.shape[1]), 2), strict=True))
    column = (latents[:, first] - latents[:, second]).square()
    across = latents.transpose(1, 2)
    row = (across[:, first] - across[:, second]).square()
    mask = own[:, None, :, None].to(latents.dtype)
    other = 1.0 - mask
    in_slice = (column @ mask - row @ mask).squeeze(-1)
    outside = (row @ other - column @ other).squeeze(-1)
    return 0.5 * (torch.relu(in_slice + margin).mean() + torch.relu(outside + margin).mean())


def ld_loss(
    network: LdNetwork, coordinates: Tensor, regions: Tensor, smoothness: Tensor, noise: Tensor, margin: float = 0.5
) -> LdLoss:
    """Terms of LD-VAE's loss on swapped groups, in reduced form.

    Args:
        coordinates: ``(G, B, r)`` of G groups of B training faces. regions: ``(G,)`` which region each group swaps.
        smoothness: ``(r, r)`` of :meth:`SwapSpace.smoothness`. noise: ``(G, B, B, D)`` standard normal.
    """
    grid = swapped_grid(coordinates, network.space.blocks, regions)
    mu, logvar = network.encode_coordinates(grid)
    latents = reparameterise(mu, logvar, noise)
    predicted = network.decode_coordinates(latents)
    faces, n_vertices = predicted.shape[:-1].numel(), network.n_vertices
    return LdLoss(
        reconstruction=(predicted - grid).square().sum() / (faces * 3 * n_vertices),
        kl=kl_to_standard_normal(mu, logvar).sum() / faces,
        consistency=consistency_loss(latents, network.slices[regions], margin),
        laplacian=((predicted @ smoothness) * predicted).sum() / (faces * n_vertices),
    )


class LdVae(WholeFaceModel):
    """LD-VAE as a face model: latents ``{region: (B, D)}`` in REGIONS order, one decoder of the whole face."""

    kind = "ld-vae"

    @classmethod
    def network_for(cls, layout: PartLayout, state: Mapping[str, Tensor], dims: Mapping[str, int]) -> LdNetwork:
        """An untrained network for the swap space of this saved ``state``."""
        bases = [state[f"space.basis_{k}"] for k in range(len(REGIONS) + 1)]
        space = SwapSpace(layout, state["space.mean"], state["space.std"], bases)
        return LdNetwork(space, [dims[region] for region in REGIONS])

    def coordinates_of(self, shapes: LinearShapes) -> Tensor:
        """Coordinates ``(N, r)`` of the swap space."""
        return cast(LdNetwork, self._network).space.coordinates_of(shapes)

    def metric(self) -> Tensor:
        """The metric of the swap space, whose coordinates are standardised."""
        return cast(LdNetwork, self._network).space.metric()
