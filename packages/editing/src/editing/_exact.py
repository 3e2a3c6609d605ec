"""Finding the setting of a control that gives a measurement a wanted value."""

from __future__ import annotations

from collections.abc import Callable

STEPS = 12


def reach(
    measured: Callable[[float], float], wanted: float, start: float, slope: float, limit: float, tolerance: float
) -> tuple[float, float]:
    """Secant steps on ``measured`` from ``start``, the first with a given slope, no farther out than ``limit``.

    Returns:
        The last setting tried and what it measures: within ``tolerance`` of ``wanted`` unless out of reach.
    """
    at, value = start, measured(start)
    for _ in range(STEPS):
        if abs(value - wanted) <= tolerance:
            break
        step = at + (wanted - value) / slope
        if not abs(step) <= limit:
            break
        trial = measured(step)
        found = (trial - value) / (step - at)
        # a flat stretch says nothing of where to go
        slope = found if abs(found) > 1e-3 * abs(slope) else slope
        at, value = step, trial
    return at, value
