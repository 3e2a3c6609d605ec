"""What every training loop of this package shares: schedule, split, frozen modules, a guard against NaN."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def cosine_with_warmup(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rate factor per step: linear over the first 2 % of ``steps``, then half a cosine down to 0."""
    warmup = max(1, round(0.02 * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def split_rows(
    n_rows: int, validation_fraction: float, seed: int, validation_rows: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation row numbers, both ascending: the given validation rows, or a random share of all.

    Raises:
        ValueError: a given row is out of range, or one of the two sets would be empty.
    """
    if validation_rows is None:
        count = round(validation_fraction * n_rows)
        held_out = np.sort(np.random.default_rng(seed).permutation(n_rows)[:count]).astype(np.int64)
    else:
        held_out = np.unique(np.asarray(validation_rows, np.int64))
        if len(held_out) and (held_out[0] < 0 or held_out[-1] >= n_rows):
            raise ValueError(f"validation rows {held_out[0]} to {held_out[-1]} do not index the {n_rows} faces from 0")
    train = np.setdiff1d(np.arange(n_rows), held_out)
    if len(train) == 0 or len(held_out) == 0:
        raise ValueError(
            f"{n_rows} faces were split into {len(train)} for training and {len(held_out)} for validation: "
            "give more faces or another validation share"
        )
    return train, held_out


def require_finite(value: float, what: str) -> float:
    """Return ``value``; raise FloatingPointError with a hint when it is NaN or infinite."""
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} became {value}: lower the learning rate or check the input shapes")
    return value


@contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """Parameters of ``module`` take no gradient inside the block."""
    before = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
