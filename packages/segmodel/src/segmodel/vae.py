"""One variational auto-encoder per region: the networks, their exact reduced form and their loss (NEO-3DF 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segmodel._subspace import ShapePenalty, Subspace
from segmodel._threading import read_threads, thread_hidden

HIDDEN = (512, 128)
"""Widths of the encoder's hidden layers; the decoder uses them in reverse."""


class PartVae(nn.Module):
    """VAE of one region: n vertices -> 512 -> 128 -> (mu, logvar) of size D; D -> 128 -> 512 -> n vertices.

    The first encoder and the last decoder layer are kept in reduced form: with the region's shapes in
    ``mean + span(basis)``, the layer ``W (3n, 512)`` acts as ``basis @ W_r`` with ``W_r (r, 512)``. On such shapes this
    is the same function class with the same loss and 20 to 80 times fewer weights. Vertices are re-centred ones for a
    part (see :func:`segmodel.linear.recentre`) and plain ones for the rest. Buffers: ``mean (3n,)``, ``basis (3n, r)``,
    ``scale ()`` mm, ``latent_mean (D,)`` and ``latent_std (D,)`` of mu over the training faces.

    Args:
        mean: ``(3n,)`` mm. basis: ``(3n, r)`` with orthonormal columns. latent_dim: D. scale: one input and output
            unit of the networks, mm.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, latent_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        rank = basis.shape[1]
        wide, narrow = HIDDEN
        self.latent_dim = latent_dim
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("basis", basis.float().contiguous())
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))
        self.encoder_in, self.encoder_mid = nn.Linear(rank, wide), nn.Linear(wide, narrow)
        self.mu_head = nn.Linear(narrow, latent_dim)
        self.logvar_head = nn.Linear(narrow, latent_dim)
        self.decoder_in, self.decoder_mid = nn.Linear(latent_dim, narrow), nn.Linear(narrow, wide)
        self.decoder_out = nn.Linear(wide, rank)

    @classmethod
    def for_subspace(cls, subspace: Subspace, latent_dim: int) -> PartVae:
        """Untrained network (PyTorch's default initialisation) for the region with this subspace."""
        scale = float(subspace.variance.mean() ** 0.5)
        return cls(torch.from_numpy(subspace.mean), torch.from_numpy(subspace.basis), latent_dim, max(scale, 1e-6))

    @property
    def n_vertices(self) -> int:
        """Number of vertices n of the region."""
        return len(self.mean) // 3

    def coordinates(self, vertices: Tensor) -> Tensor:
        """Coordinates ``(B, r)`` mm of ``vertices (B, n, 3)`` in the subspace (orthogonal projection)."""
        return (vertices.flatten(1) - self.mean) @ self.basis

    def vertices(self, coordinates: Tensor) -> Tensor:
        """Vertices ``(B, n, 3)`` mm of ``coordinates (B, r)``."""
        return (self.mean + coordinates @ self.basis.T).view(-1, self.n_vertices, 3)

    def encode_coordinates(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``, of ``coordinates (B, r)``."""
        hidden = torch.relu(self.encoder_mid(torch.relu(self.encoder_in(coordinates / self.scale))))
        return self.mu_head(hidden), self.logvar_head(hidden)

    def decode_coordinates(self, latents: Tensor) -> Tensor:
        """Coordinates ``(B, r)`` mm of ``latents (B, D)``."""
        hidden = torch.relu(self.decoder_mid(torch.relu(self.decoder_in(latents))))
        return self.scale * self.decoder_out(hidden)

    def encode(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``, of the region's ``vertices (B, n, 3)`` mm."""
        return self.encode_coordinates(self.coordinates(vertices))

    def decode(self, latents: Tensor) -> Tensor:
        """Region vertices ``(B, n, 3)`` mm of ``latents (B, D)``; a part comes out re-centred."""
        return self.vertices(self.decode_coordinates(latents))

    @torch.no_grad()
    def start_at_pca(self, variance: Tensor, lambda_kl: float) -> None:
        """Set the weights so that the network is the region's PCA of D components with unit-variance latents.

        ``variance (r,)`` mm^2 of the coordinates, which must be PCA axes. The log-variance starts at its optimum for
        this linear network, ``log((l / 2) / (w + l / 2))``. Raises ValueError when 2 D exceeds the narrowest layer.
        """
        k = min(self.latent_dim, len(variance))
        used = variance[:k].float()
        std = used.sqrt()
        # a direction without variance over the training faces carries no latent
        whiten = torch.where(std > 1e-6 * std.max(), 1.0 / std.clamp_min(1e-20), torch.zeros(()))
        unit = torch.eye(self.latent_dim, k)
        inner = torch.zeros(k, len(variance))
        inner[:, :k] = torch.diag(whiten * self.scale)
        outer = torch.zeros(len(variance), self.latent_dim)
        outer[:k, :k] = torch.diag(std / self.scale)
        zeros = torch.zeros(self.latent_dim)
        thread_hidden([self.encoder_in, self.encoder_mid], inner, torch.zeros(k))
        read_threads(self.mu_head, unit, zeros)
        thread_hidden([self.decoder_in, self.decoder_mid], torch.eye(self.latent_dim), zeros)
        read_threads(self.decoder_out, outer, torch.zeros(len(variance)))
        self.logvar_head.weight.zero_()
        half = max(lambda_kl, 1e-6) / 2
        self.logvar_head.bias.zero_()
        self.logvar_head.bias[:k] = torch.log(half / (used + half))


@dataclass(frozen=True)
class VaeLoss:
    """Batch means: ``fit``, squared errors summed over vertices plus weighted smoothness (mm^2); ``kl`` (nats)."""

    fit: Tensor
    kl: Tensor


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) per latent dimension, nats; any shape in, same shape out."""
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def reparameterise(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """Sample ``mu + exp(logvar / 2) * noise`` (Kingma and Welling 2014)."""
    return mu + torch.exp(0.5 * logvar) * noise


def vae_loss(
    vae: PartVae, coordinates: Tensor, smoothness: Tensor, noise: Tensor, penalty: ShapePenalty | None = None
) -> VaeLoss:
    """Terms of the training loss of NEO-3DF section 3.1 in reduced form.

    Args:
        coordinates: ``(B, r)`` of the training shapes. smoothness: ``S (r, r)`` of
            :func:`segmodel._subspace.smoothness_factor`; the identity for none. noise: ``(B, D)`` standard normal.
        penalty: smoothness of the decoded shape itself, :func:`segmodel._subspace.shape_penalty`.
    """
    mu, logvar = vae.encode_coordinates(coordinates)
    decoded = vae.decode_coordinates(reparameterise(mu, logvar, noise))
    fit = ((decoded - coordinates) @ smoothness).square().sum(dim=1).mean()
    if penalty is not None:
        fit = fit + (decoded @ penalty.factor + penalty.offset).square().sum(dim=1).mean() + penalty.constant.sum()
    return VaeLoss(fit=fit, kl=kl_to_standard_normal(mu, logvar).sum(dim=1).mean())
