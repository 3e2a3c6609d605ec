"""From a photo's encoding to the latent vectors of a face model: the image regressors F_i (NEO-3DF section 3.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segmodel._ridge import ridge_by_leave_one_out
from segmodel._threading import read_threads, thread_hidden
from segmodel.parts import REGIONS
from segmodel.pieces import LatentModel

_FORMAT = "neo3df-image-regressors-1"
HIDDEN = (128, 64)
"""Least widths of the hidden layers. A latent of D > 32 gets layers of 2 D, through which any linear map passes."""

EVERY = slice(None)
LOGVAR_START = -4.0
"""Start of the log-variance: sampling noise of 0.14 latent units, well below the spread of the latents."""


class ImageRegressor(nn.Module):
    """One F_i: E -> 128 -> 64 -> (mu, logvar), ReLU, dropout at the input. A new one answers the mean latent.

    The hidden layers have at least 2 D units.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, encoding_dim: int, latent_dim: int, dropout: float) -> None:
        super().__init__()
        wide, narrow = (max(width, 2 * latent_dim) for width in HIDDEN)
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

    def forward(self, standardised: Tensor, own: slice = EVERY) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``, of the ``own`` rows of standardised encodings.

        While training, dropout is drawn for all rows.
        """
        inputs = torch.nn.functional.dropout(standardised, self.dropout, self.training)[own]
        hidden = torch.relu(self.trunk_out(torch.relu(self.trunk_in(inputs))))
        return self.latent_mean + self.latent_std * self.mu_head(hidden), self.logvar_head(hidden)

    @torch.no_grad()
    def start_at_ridge(self, standardised: Tensor, latents: Tensor) -> None:
        """Set the weights so that mu is the ridge regression of ``latents (N, D)`` on ``standardised (N, E)``.

        The linear map passes the ReLUs exactly, in pairs.
        """
        weight, bias = ridge_by_leave_one_out(standardised, (latents - self.latent_mean) / self.latent_std)
        outer, strength, inner = torch.linalg.svd(weight, full_matrices=False)
        thread_hidden([self.trunk_in, self.trunk_out], strength[:, None] * inner, torch.zeros_like(strength))
        read_threads(self.mu_head, outer, bias)


class ImageRegressors(nn.Module):
    """One F_i for each latent of a face model, with the standardisation of their common input.

    For the part models there are six, by region; for a model of whole faces as many as its latent has names.

    Args:
        encoding_dim: E. latent_dims: ``{name: D}``, as ``SegmentModel.latent_dims``. dropout: of the inputs while
            training.

    Raises:
        ValueError: no latent is named.
    """

    encoding_mean: Tensor
    encoding_std: Tensor

    def __init__(self, encoding_dim: int, latent_dims: Mapping[str, int], dropout: float = 0.1) -> None:
        super().__init__()
        if not latent_dims:
            raise ValueError("latent_dims names no latent: give one name and size at least")
        self.encoding_dim, self.dropout = int(encoding_dim), float(dropout)
        heads = {name: ImageRegressor(encoding_dim, dim, dropout) for name, dim in latent_dims.items()}
        self.heads = nn.ModuleDict(heads)
        self.register_buffer("encoding_mean", torch.zeros(encoding_dim))
        self.register_buffer("encoding_std", torch.ones(encoding_dim))

    @property
    def latent_dims(self) -> dict[str, int]:
        """Latent size D by name."""
        return {name: len(self._head(name).latent_mean) for name in self.heads}

    def forward(self, encodings: Tensor) -> dict[str, Tensor]:
        """Latents ``{name: (B, D)}`` (mu, no sampling) of encodings ``(B, E)``, for the model's ``decode``."""
        return {name: mu for name, (mu, _) in self.posterior(encodings).items()}

    def _head(self, name: str) -> ImageRegressor:
        return cast(ImageRegressor, self.heads[name])

    def posterior(self, encodings: Tensor, own: slice = EVERY) -> dict[str, tuple[Tensor, Tensor]]:
        """Posterior mean and log-variance ``{name: ((B, D), (B, D))}`` of the ``own`` rows of encodings ``(N, E)``.

        While training, dropout is drawn for all rows: processes that share a batch draw the same.
        """
        if encodings.ndim != 2 or encodings.shape[1] != self.encoding_dim:
            raise ValueError(f"encodings have shape {tuple(encodings.shape)}: give (B, {self.encoding_dim})")
        inputs = (encodings - self.encoding_mean) / self.encoding_std
        return {name: self._head(name)(inputs, own) for name in self.heads}

    def require_latents_of(self, model: LatentModel) -> None:
        """Raise ValueError unless these regressors answer the latents of ``model``, by name and size."""
        if self.latent_dims != model.latent_dims:
            raise ValueError(
                f"the regressors answer {_in_words(self.latent_dims)} but {type(model).__name__} has the latents "
                f"{_in_words(model.latent_dims)}: use regressors that were trained for it"
            )

    @torch.no_grad()
    def standardise_for(self, encodings: Tensor, model: LatentModel) -> None:
        """Take the input statistics from ``encodings (N, E)`` and the output statistics from ``model``.

        Raises ValueError when the model has other latents.
        """
        self.require_latents_of(model)
        self.encoding_mean.copy_(encodings.mean(dim=0))
        self.encoding_std.copy_(encodings.std(dim=0, correction=0).clamp_min(1e-6))
        for name in self.heads:
            head = self._head(name)
            head.latent_mean.copy_(model.latent_mean[name])
            head.latent_std.copy_(model.latent_std[name])

    def start_at_ridge(self, encodings: Tensor, latents: Mapping[str, Tensor]) -> None:
        """Make every F_i the ridge regression from ``encodings (N, E)`` to its ``latents {name: (N, D)}``.

        Raises ValueError when latents are missing.
        """
        if missing := [name for name in self.heads if name not in latents]:
            raise ValueError(f"latents lack {', '.join(missing)}: give one (N, D) tensor for each")
        inputs = (encodings - self.encoding_mean) / self.encoding_std
        for name in self.heads:
            self._head(name).start_at_ridge(inputs, latents[name])

    def save(self, path: str | Path) -> None:
        """Write weights and names as one safetensors file, which :meth:`load` reads."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        # one key: safetensors writes several in a random order, and equal regressors should be equal bytes
        save_file(tensors, path, metadata={"regressors": json.dumps({"format": _FORMAT, "names": list(self.heads)})})

    @classmethod
    def load(cls, path: str | Path) -> ImageRegressors:
        """Read regressors written by :meth:`save`, in eval mode. Raises FileNotFoundError or ValueError."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist: give a file written by ImageRegressors.save")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        metadata = json.loads(metadata.get("regressors", "null")) or metadata
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} holds no image regressors: give a file written by ImageRegressors.save")
        names = metadata.get("names", REGIONS)  # files of version 0.1 lack them
        dims = {name: len(state[f"heads.{name}.mu_head.bias"]) for name in names}
        regressors = cls(len(state["encoding_mean"]), dims)
        regressors.load_state_dict(state)
        return regressors.eval()


def _in_words(dims: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({dim})" for name, dim in dims.items())
