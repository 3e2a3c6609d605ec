"""How sure a mean over photographs is: bootstrap intervals over people, who have more photographs than one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over photographs with its 95 % interval; NaN where there is nothing, or nobody else, to draw.

    ``n`` photographs have a value.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return bool(self.low > 0 or self.high < 0)


def interval(values: NDArray[np.float64], people: NDArray[np.str_], draws: int = DRAWS) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of ``values`` (N,), drawing people, not photos; without NaN values.

    NaN where fewer than two people have a value.
    """
    names, group = np.unique(people[~np.isnan(values)], return_inverse=True)
    if len(names) < 2:
        return np.nan, np.nan
    sums = np.bincount(group, values[~np.isnan(values)])
    counts = np.bincount(group)
    chosen = np.random.default_rng(0).integers(0, len(names), (draws, len(names)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    return float(np.quantile(means, (1 - LEVEL) / 2)), float(np.quantile(means, (1 + LEVEL) / 2))


def estimate(values: NDArray[np.float64], people: NDArray[np.str_]) -> Estimate:
    """Mean of ``values`` (N,) over photographs, NaN left out, with its interval over ``people`` (N,)."""
    n = int((~np.isnan(values)).sum())
    return Estimate(float(np.nanmean(values)) if n else np.nan, *interval(values, people), n)


def paired_difference(values: NDArray[np.float64], others: NDArray[np.float64], people: NDArray[np.str_]) -> Estimate:
    """Mean of ``values - others`` (N,) of the same photographs, with its interval over ``people`` (N,).

    What makes a photograph hard for both cancels, so small differences show that two intervals side by side hide.
    """
    return estimate(np.asarray(values, float) - np.asarray(others, float), people)
