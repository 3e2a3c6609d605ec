"""Principal component analysis as a network: the linear twin of :class:`segmodel.vae.PartVae`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segmodel._subspace import Subspace


class PcaNetwork(nn.Module):
    """Encoder and decoder of the first D principal components, whitened: latents have unit variance.

    The same methods and buffers as :class:`segmodel.vae.PartVae`, and ``axis_std (D,)`` mm, the standard deviation
    along each component. ``basis (3n, r)`` holds all axes of the region's shapes, of which the first D are used. A
    direction in which the training faces do not vary has latent 0.
    """

    mean: Tensor
    basis: Tensor
    axis_std: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, mean: Tensor, basis: Tensor, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("basis", basis.float().contiguous())
        self.register_buffer("axis_std", torch.zeros(latent_dim))
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))

    @classmethod
    def for_subspace(cls, subspace: Subspace, latent_dim: int) -> PcaNetwork:
        """The PCA whose axes and variances these are."""
        network = cls(torch.from_numpy(subspace.mean), torch.from_numpy(subspace.basis), latent_dim)
        std = torch.from_numpy(subspace.variance[:latent_dim]).sqrt().float()
        network.axis_std[: len(std)] = torch.where(std > 1e-6 * std.max(), std, 0.0)
        return network

    @property
    def n_vertices(self) -> int:
        """Number of vertices n."""
        return len(self.mean) // 3

    def encode_coordinates(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(B, D)`` of ``coordinates (B, r)`` mm, and their log-variance, which is minus infinity: a point."""
        used = self._padded(coordinates, self.latent_dim)
        mu = torch.where(self.axis_std > 0, used / self.axis_std.clamp_min(1e-20), 0.0)
        return mu, torch.full_like(mu, -torch.inf)

    def decode_coordinates(self, latents: Tensor) -> Tensor:
        """Coordinates ``(B, r)`` mm of ``latents (B, D)``."""
        return self._padded(latents * self.axis_std, self.basis.shape[1])

    def encode(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``(B, D)`` of ``vertices (B, n, 3)`` mm, and their log-variance, minus infinity."""
        return self.encode_coordinates((vertices.flatten(1) - self.mean) @ self.basis)

    def decode(self, latents: Tensor) -> Tensor:
        """Vertices ``(B, n, 3)`` mm of ``latents (B, D)``."""
        k = min(self.latent_dim, self.basis.shape[1])
        moved = (latents * self.axis_std)[:, :k] @ self.basis[:, :k].T
        return (self.mean + moved).view(-1, self.n_vertices, 3)

    @staticmethod
    def _padded(values: Tensor, width: int) -> Tensor:
        """Columns cut off, or zeros added, to this width."""
        return torch.nn.functional.pad(values, (0, width - values.shape[1]))
