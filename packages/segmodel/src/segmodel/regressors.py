"""From a photo's encoding to the six latent vectors: the image regressors F_i (NEO-3DF section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segmodel._ridge import ridge_by_leave_one_out
from segmodel._threading import read_threads, thread_hidden
from segmodel.model import SegmentModel
from segmodel.parts import REGIONS

HIDDEN = (128, 64)
LOGVAR_START = -4.0
"""Start of the log-variance: sampling noise of 0.14 latent units, well below the spread of the latents."""


class ImageRegressor(nn.Module):
    """One F_i: E -> 128 -> 64 -> (mu, logvar), ReLU, dropout at the input. A new one answers the mean latent."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, encoding_dim: int, latent_dim: int, dropout: float) -> None:
        super().__init__()
        wide, narrow = HIDDEN
        self.dropout = dropout
        self.trunk_in, self.trunk_out = nn.Linear(encoding_dim, wide), nn.Linear(wide, narrow)
        self.mu_head = nn.Linear(narrow, latent_dim)
        self.logvar_head = nn.Linear(narrow, latent_dim)
        for head in (self.mu_head, self.logvar_head):
            nn.init.zeros_(head.weight)
        nn.init.zeros_(self.mu_head.bias)
        nn.init.constant_(self.logvar_head.bias, LOGVAR_START)
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))

    def forward(self, standardised: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``, of standardised encodings ``(B, E)``."""
        inputs = torch.nn.functional.dropout(standardised, self.dropout, self.training)
        hidden = torch.relu(self.trunk_out(torch.relu(self.trunk_in(inputs))))
        return self.latent_mean + self.latent_std * self.mu_head(hidden), self.logvar_head(hidden)

    @torch.no_grad()
    def start_at_ridge(self, standardised: Tensor, latents: Tensor) -> None:
        """Set the weights so that mu is the ridge regression of ``latents (N, D)`` on ``standardised (N, E)``.

        The linear map passes the ReLUs exactly, in pairs; it keeps its strongest directions if D exceeds half the
        narrowest layer.
        """
        weight, bias = ridge_by_leave_one_out(standardised, (latents - self.latent_mean) / self.latent_std)
        outer, strength, inner = torch.linalg.svd(weight, full_matrices=False)
        k = min(len(strength), min(HIDDEN) // 2)
        carried = strength[:k, None] * inner[:k]
        thread_hidden([self.trunk_in, self.trunk_out], carried, torch.zeros_like(strength[:k]))
        read_threads(self.mu_head, outer[:, :k], bias)


class ImageRegressors(nn.Module):
    """The six F_i with the standardisation of their common input.

    Args:
        encoding_dim: E. latent_dims: ``{region: D}``, as ``SegmentModel.latent_dims``. dropout: of the inputs while
            training.
    """

    encoding_mean: Tensor
    encoding_std: Tensor

    def __init__(self, encoding_dim: int, latent_dims: Mapping[str, int], dropout: float = 0.1) -> None:
        super().__init__()
        self.encoding_dim, self.dropout = int(encoding_dim), float(dropout)
        self.heads = nn.ModuleDict({r: ImageRegressor(encoding_dim, latent_dims[r], dropout) for r in REGIONS})
        self.register_buffer("encoding_mean", torch.zeros(encoding_dim))
        self.register_buffer("encoding_std", torch.ones(encoding_dim))

    def forward(self, encodings: Tensor) -> dict[str, Tensor]:
        """Latents ``{region: (B, D)}`` (mu, no sampling) of encodings ``(B, E)``."""
        return {region: mu for region, (mu, _) in self.posterior(encodings).items()}

    def _head(self, region: str) -> ImageRegressor:
        return cast(ImageRegressor, self.heads[region])

    def posterior(self, encodings: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Posterior mean and log-variance ``{region: ((B, D), (B, D))}`` of encodings ``(B, E)``."""
        if encodings.ndim != 2 or encodings.shape[1] != self.encoding_dim:
            raise ValueError(f"encodings have shape {tuple(encodings.shape)}: give (B, {self.encoding_dim})")
        inputs = (encodings - self.encoding_mean) / self.encoding_std
        return {region: self._head(region)(inputs) for region in REGIONS}

    @torch.no_grad()
    def standardise_for(self, encodings: Tensor, model: SegmentModel) -> None:
        """Take the input statistics from ``encodings (N, E)`` and the output statistics from ``model``."""
        self.encoding_mean.copy_(encodings.mean(dim=0))
        self.encoding_std.copy_(encodings.std(dim=0, correction=0).clamp_min(1e-6))
        for region in REGIONS:
            head = self._head(region)
            head.latent_mean.copy_(model.latent_mean[region])
            head.latent_std.copy_(model.latent_std[region])

    def start_at_ridge(self, encodings: Tensor, latents: Mapping[str, Tensor]) -> None:
        """Make every F_i the ridge regression from ``encodings (N, E)`` to its ``latents {region: (N, D)}``."""
        inputs = (encodings - self.encoding_mean) / self.encoding_std
        for region in REGIONS:
            self._head(region).start_at_ridge(inputs, latents[region])

    def save(self, path: str | Path) -> None:
        """Write the weights as one safetensors file, which :meth:`load` reads."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, path, metadata={"format": "neo3df-image-regressors-1"})

    @classmethod
    def load(cls, path: str | Path) -> ImageRegressors:
        """Read regressors written by :meth:`save`, in eval mode. Raises FileNotFoundError or ValueError."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist: give a file written by ImageRegressors.save")
        state = load_file(path)
        if "encoding_mean" not in state:
            raise ValueError(f"{path} holds no image regressors: give a file written by ImageRegressors.save")
        dims = {region: len(state[f"heads.{region}.mu_head.bias"]) for region in REGIONS}
        regressors = cls(len(state["encoding_mean"]), dims)
        regressors.load_state_dict(state)
        return regressors.eval()
