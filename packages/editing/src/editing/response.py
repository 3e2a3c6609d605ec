"""The test of a controller map: ask for one control at a time, decode, measure everything again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing.controllers import ControllerMap

Array = NDArray[np.float64]
DecodeAndMeasure = Callable[[dict[str, NDArray]], Mapping[str, ArrayLike]]


@dataclass(frozen=True)
class ResponseMatrix:
    """How far every measurement moved per standard deviation asked of every control.

    Attributes:
        names: the K full names ``region.controller``, rows and columns alike.
        values: ``(K, K)``; row j, column k: movement of measurement k, in its own standard deviations, per standard
            deviation asked of control j. The identity is a map that does exactly what it says.
        step: the standard deviations that were asked.
    """

    names: tuple[str, ...]
    values: Array
    step: float

    def diagonal(self) -> dict[str, float]:
        """Response of every control's own measurement; 1 is what was asked."""
        return dict(zip(self.names, np.diag(self.values).tolist(), strict=True))

    def block(self, asked: str, measured: str | None = None) -> Array:
        """Rows of the controls of one region, columns of the measurements of one (the same unless given)."""
        rows, columns = ([n.startswith(f"{r}.") for n in self.names] for r in (asked, measured or asked))
        return self.values[np.ix_(rows, columns)]

    def cross_response(self, region: str) -> float:
        """Mean absolute response of a region's measurements to its other controls; 0 for a single control."""
        off = _off_diagonal(self.block(region))
        return float(off.sum() / max(1, off.size - len(off)))

    def worst_leak(self, region: str | None = None) -> tuple[str, str, float]:
        """The largest entry off the diagonal, of all or inside one region, as (asked, measured, response)."""
        inside = [n.startswith(f"{region}.") or region is None for n in self.names]
        off = np.where(np.outer(inside, inside), _off_diagonal(self.values), -1.0)
        j, k = np.unravel_index(int(np.argmax(off)), off.shape)
        return self.names[j], self.names[k], float(self.values[j, k])


def response(
    controllers: ControllerMap, decode_and_measure: DecodeAndMeasure, base: Mapping[str, ArrayLike], step: float = 3.0
) -> ResponseMatrix:
    """Response matrix of a controller map at one face.

    Args:
        controllers: the fitted map.
        decode_and_measure: latents ``{region: (B, D)}`` -> measurements ``{region: (B, M)}`` in mm, columns as fitted.
        base: latents of the face, ``{region: (D,)}``.
        step: standard deviations to ask of each control; 0 is refused.

    Returns:
        The matrix over all controls of the map. One call of ``decode_and_measure`` with B = 1 + number of controls.

    Raises:
        ValueError: a zero step, or measurements whose shape does not match the map.
    """
    if step == 0:
        raise ValueError("step is 0: ask for a movement, for example 3 standard deviations")
    owners = [(region, j) for region, fitted in controllers.regions.items() for j in range(len(fitted.names))]
    controls = {r: np.zeros((1 + len(owners), len(fitted.names))) for r, fitted in controllers.regions.items()}
    for row, (region, j) in enumerate(owners, start=1):
        controls[region][row, j] = step
    latents = {region: np.tile(np.asarray(z), (1 + len(owners), 1)) for region, z in base.items()}
    measured = decode_and_measure(controllers.apply(latents, controls))
    moved = []
    for region, fitted in controllers.regions.items():
        values = np.asarray(measured[region], dtype=np.float64)
        if values.shape != controls[region].shape:
            raise ValueError(f"measurements of {region} have shape {values.shape}: expected {controls[region].shape}")
        moved.append((values[1:] - values[0]) / (step * fitted.sigma))
    names = tuple(f"{region}.{controllers.regions[region].names[j]}" for region, j in owners)
    return ResponseMatrix(names, np.concatenate(moved, axis=1), step)


def _off_diagonal(values: Array) -> Array:
    return np.abs(values - np.diag(np.diag(values)))
