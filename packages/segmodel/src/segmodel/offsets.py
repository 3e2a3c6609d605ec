"""Where the parts sit: the regression from the rest latent to the parts' box centres (NEO-3DF section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segmodel._threading import read_threads, thread_hidden
from segmodel.parts import PARTS

TRUNK, HEAD = 32, 8


class OffsetRegressor(nn.Module):
    """Rest latent ``(B, D)`` to part box centres ``(B, 5, 2)`` mm: trunk D -> 32 -> 32, ten heads 32 -> 8 -> 1, ReLU.

    Inputs and targets are standardised inside (buffers). A new regressor returns ``centre_mean`` for every input.
    """

    latent_mean: Tensor
    latent_std: Tensor
    centre_mean: Tensor
    centre_std: Tensor

    def __init__(self, latent_dim: int, centre_mean: Tensor | None = None) -> None:
        super().__init__()
        n_heads = 2 * len(PARTS)
        self.trunk_in, self.trunk_out = nn.Linear(latent_dim, TRUNK), nn.Linear(TRUNK, TRUNK)
        self.heads = nn.Linear(TRUNK, n_heads * HEAD)
        self.head_weight = nn.Parameter(torch.zeros(n_heads, HEAD))
        self.head_bias = nn.Parameter(torch.zeros(n_heads))
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_std", torch.ones(latent_dim))
        self.register_buffer("centre_mean", torch.zeros(n_heads) if centre_mean is None else centre_mean.flatten())
        self.register_buffer("centre_std", torch.ones(n_heads))

    def forward(self, rest_latents: Tensor) -> Tensor:
        """Box centres (y, z) in mm of the five parts in PARTS order, ``(B, 5, 2)``, for ``rest_latents (B, D)``."""
        return (self.standardised(rest_latents) * self.centre_std + self.centre_mean).view(-1, len(PARTS), 2)

    def standardised(self, rest_latents: Tensor) -> Tensor:
        """The ten outputs ``(B, 10)`` in units of their standard deviations about their means."""
        standardised = (rest_latents - self.latent_mean) / self.latent_std
        hidden = torch.relu(self.trunk_out(torch.relu(self.trunk_in(standardised))))
        heads = torch.relu(self.heads(hidden)).view(-1, *self.head_weight.shape)
        return (heads * self.head_weight).sum(dim=-1) + self.head_bias

    @torch.no_grad()
    def start_at_least_squares(self, latents: Tensor, centres: Tensor) -> None:
        """Set standardisation and weights so that the network is the linear least squares fit.

        ``latents (N, D)``, ``centres (N, 10)`` mm. The ten linear values pass the ReLUs exactly, in pairs; the units
        left over keep random weights.
        """
        self.latent_mean.copy_(latents.mean(dim=0))
        self.latent_std.copy_(latents.std(dim=0, correction=0).clamp_min(1e-6))
        self.centre_mean.copy_(centres.mean(dim=0))
        self.centre_std.copy_(centres.std(dim=0, correction=0).clamp_min(1e-6))
        inputs = ((latents - self.latent_mean) / self.latent_std).double()
        targets = ((centres - self.centre_mean) / self.centre_std).double()
        solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.T.float()
        n_heads = len(solution)
        select = torch.zeros(n_heads, HEAD, n_heads)
        select[:, 0], select[:, 1] = torch.eye(n_heads), -torch.eye(n_heads)
        thread_hidden([self.trunk_in, self.trunk_out], solution, torch.zeros(n_heads))
        read_threads(self.heads, select.view(-1, n_heads), torch.zeros(n_heads * HEAD))
        self.head_weight.zero_()
        self.head_weight[:, 0], self.head_weight[:, 1] = 1.0, -1.0
        self.head_bias.zero_()
