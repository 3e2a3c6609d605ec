"""Where the parts sit: the regression from the rest latent to the parts' box centres (NEO-3DF section 3.2)."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmodel._optimise import cosine_with_warmup, split_rows
from segmodel._threading import read_threads, thread_hidden
from segmodel.linear import LinearShapes
from segmodel.parts import PARTS

if TYPE_CHECKING:
    from segmodel.model import SegmentModel

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


@dataclass(frozen=True)
class OffsetSettings:
    """Training of the offset regressor: ``epochs``, ``batch``, Adam ``lr`` (cosine), ``seed``, validation share."""

    epochs: int = 10
    batch: int = 256
    lr: float = 1e-3
    seed: int = 0
    validation_fraction: float = 0.1


@dataclass(frozen=True)
class OffsetReport:
    """Held-out quality per part (PARTS order) and axis (y, z), arrays ``(5, 2)``.

    ``r2`` and ``rmse_mm`` of the trained network, ``linear_rmse_mm`` of its start, the least squares fit, ``std_mm`` of
    the targets, and ``seconds``.
    """

    r2: NDArray[np.float64]
    rmse_mm: NDArray[np.float64]
    linear_rmse_mm: NDArray[np.float64]
    std_mm: NDArray[np.float64]
    seconds: float


def train_offset_regressor(
    model: SegmentModel,
    shapes: LinearShapes,
    settings: OffsetSettings | None = None,
    validation_rows: NDArray[np.int64] | None = None,
) -> OffsetReport:
    """Fit ``model.offset_regressor`` to the part box centres of ``shapes``, given mu of the rest encoder (NEO-3DF 3.2).

    It starts at the least squares solution and keeps the epoch with the lowest held-out error. The loss is the squared
    error of standardised targets, because their spreads differ by a factor of four.
    """
    settings = settings or OffsetSettings()
    started = time.perf_counter()
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    latents = model.latents_of(shapes, ("rest",))["rest"]
    centres = model.box_centres_of(shapes)
    regressor = _fresh(model, settings.seed)
    regressor.start_at_least_squares(latents[train], centres[train].flatten(1))
    linear_error = regressor(latents[held_out]).detach() - centres[held_out]
    _optimise(regressor, latents, centres.flatten(1), train, held_out, settings)
    model.offset_regressor.load_state_dict(regressor.state_dict())

    error = regressor(latents[held_out]).detach() - centres[held_out]
    std = centres[held_out].std(dim=0, correction=0)
    rmse = error.square().mean(dim=0).sqrt()
    return OffsetReport(
        r2=(1.0 - (rmse / std.clamp_min(1e-9)).square()).double().numpy(),
        rmse_mm=rmse.double().numpy(),
        linear_rmse_mm=linear_error.square().mean(dim=0).sqrt().double().numpy(),
        std_mm=std.double().numpy(),
        seconds=time.perf_counter() - started,
    )


def _fresh(model: SegmentModel, seed: int) -> OffsetRegressor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OffsetRegressor(model.vae("rest").latent_dim)


def _optimise(
    regressor: OffsetRegressor,
    latents: Tensor,
    centres: Tensor,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    settings: OffsetSettings,
) -> None:
    """Adam on the standardised squared error; leaves the weights of the best epoch, epoch 0 included."""
    targets = (centres - regressor.centre_mean) / regressor.centre_std
    optimiser = torch.optim.Adam(regressor.parameters(), lr=settings.lr, fused=True)
    steps = settings.epochs * -(-len(train) // settings.batch)
    schedule = cosine_with_warmup(optimiser, steps)
    generator = torch.Generator().manual_seed(settings.seed)
    rows = torch.from_numpy(train)

    def held_out_loss() -> float:
        with torch.no_grad():
            return float((regressor.standardised(latents[held_out]) - targets[held_out]).square().mean())

    best, best_state = held_out_loss(), copy.deepcopy(regressor.state_dict())
    for _ in range(settings.epochs):
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(settings.batch):
            loss = (regressor.standardised(latents[batch]) - targets[batch]).square().sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        score = held_out_loss()
        if score < best:
            best, best_state = score, copy.deepcopy(regressor.state_dict())
    regressor.load_state_dict(best_state)
