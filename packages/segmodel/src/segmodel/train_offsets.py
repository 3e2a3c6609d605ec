"""Training of the offset regressor on the part box centres of many faces (NEO-3DF section 3.2)."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmodel._optimise import cosine_with_warmup, split_rows
from segmodel.linear import LinearShapes
from segmodel.model import SegmentModel
from segmodel.offsets import OffsetRegressor


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
