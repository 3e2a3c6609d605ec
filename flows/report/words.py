"""Numbers and names as a report writes them."""

from collections.abc import Callable

import numpy as np

from .confidence import Estimate

NOTHING = "–"


def number(value: float, digits: int) -> str:
    """A number, or a dash where it was not measured."""
    return NOTHING if np.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """A number with its sign; nothing is +0."""
    return NOTHING if np.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def interval(found: Estimate, digits: int, write: Callable[[float, int], str] = number) -> str:
    """The interval of an estimate in brackets, or a dash where it has none."""
    return NOTHING if np.isnan(found.low) else f"[{write(found.low, digits)}, {write(found.high, digits)}]"


def words(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ")
