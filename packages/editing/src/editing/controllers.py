"""The linear map from controller movements to latent movements, one per region, and how well it keeps its promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing.catalogue import controller_names
from editing.parts import REGIONS

Array = NDArray[np.float64]
COLLINEAR = 0.9


@dataclass(frozen=True)
class RegionMap:
    """The controllers of one region.

    Attributes:
        names: the M controller names.
        matrix: ``(M, D)`` latent movement per mm of each measurement (NEO-3DF's M).
        sigma: ``(M,)`` standard deviation of each measurement over the data, mm.
        mean_measurement: ``(M,)`` mean measurement over the data, mm.
        mean_latent: ``(D,)`` mean latent over the data: the base point for figures and new faces.
        r2: share of the latent variance that the measurements explain. Low by nature when M < D.
        collinear: pairs of names whose measurements correlate beyond 0.9, with the correlation.
    """

    names: tuple[str, ...]
    matrix: Array
    sigma: Array
    mean_measurement: Array
    mean_latent: Array
    r2: float
    collinear: tuple[tuple[str, str, float], ...]

    @property
    def rows(self) -> Array:
        """``(M, D)`` latent movement per standard deviation of each measurement, diag(sigma) M."""
        return self.sigma[:, None] * self.matrix


@dataclass(frozen=True)
class ControllerMap:
    """Latent edits from controls in standard deviations, per region and independent of each other.

    NEO-3DF (Yan et al., ACCV 2022), section on controllers, after Allen et al. 2003: z~ = z + (c * sigma) M with
    M = pinv(X - mean X) (Z - mean Z). A control moves its own measurement along the data-conditional latent direction
    with the region's other measurements held.
    """

    regions: dict[str, RegionMap]

    @classmethod
    def fit(
        cls,
        measurements: Mapping[str, ArrayLike],
        latents: Mapping[str, ArrayLike],
        ridge: float = 0.0,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> ControllerMap:
        """Least-squares maps of N faces.

        Measure the DECODED faces (the reconstructions), not the originals: a latent cannot carry all of a measurement,
        and least squares would shrink every control by what is lost.

        Args:
            measurements: region -> ``(N, M)`` mm.
            latents: region -> ``(N, D)``.
            ridge: penalty relative to the N of standardised measurements; 0 is plain least squares.
            names: region -> the M controller names, where only some of a region's controllers are used.

        Returns:
            The map, for the regions in both arguments.

        Raises:
            ValueError: regions or shapes that do not match, values that are not finite, a measurement that does not
                vary, fewer faces than controllers.
        """
        if set(measurements) != set(latents):
            raise ValueError(
                f"measurements are of {sorted(measurements)} but latents of {sorted(latents)}: give the same regions"
            )
        if ridge < 0:
            raise ValueError(f"ridge is {ridge}: it must not be negative")
        regions = {}
        for region in (r for r in REGIONS if r in latents):
            chosen = tuple((names or {}).get(region, controller_names(region)))
            x = np.asarray(measurements[region], dtype=np.float64)
            z = np.asarray(latents[region], dtype=np.float64)
            regions[region] = _fit_region(region, chosen, x, z, ridge)
        unknown = sorted(set(latents) - set(regions))
        if unknown:
            raise ValueError(f"unknown regions {unknown}: use {', '.join(REGIONS)}")
        return cls(regions)

    def region(self, region: str) -> RegionMap:
        """The controllers of one region; ValueError if the map has none."""
        if region not in self.regions:
            raise ValueError(f"no controllers for region {region!r}: this map has {', '.join(self.regions)}")
        return self.regions[region]

    def rows(self, region: str) -> Array:
        """``(M, D)`` latent movement per standard deviation: as a tensor R, an edit elsewhere is ``z + c @ R``."""
        return self.region(region).rows

    def position(self, region: str, name: str) -> int:
        """Column of a controller in its region; ValueError if there is none of that name."""
        names = self.region(region).names
        if name not in names:
            raise ValueError(f"no controller {name!r} in {region}: it has {', '.join(names)}")
        return names.index(name)

    def apply(self, latents: Mapping[str, ArrayLike], controls: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
        """Edited latents z + (c * sigma) M (NEO-3DF).

        Args:
            latents: region -> ``(..., D)``; floating types are kept.
            controls: region -> ``(..., M)`` in standard deviations; regions left out stay as they are.

        Returns:
            region -> ``(..., D)``, new arrays, leading dimensions broadcast.

        Raises:
            ValueError: a region without latents or without controllers, or a last dimension that does not match.
        """
        edited = {region: _floating(z).copy() for region, z in latents.items()}
        for region, control in controls.items():
            if region not in edited:
                raise ValueError(f"controls for {region!r} but no latents: latents are of {', '.join(edited)}")
            rows = self.rows(region)
            z, c = edited[region], np.asarray(control, dtype=np.float64)
            for what, array, size in (("controls", c, rows.shape[0]), ("latents", z, rows.shape[1])):
                if array.ndim == 0 or array.shape[-1] != size:
                    raise ValueError(f"{what} of {region} have shape {array.shape}: expected (..., {size})")
            edited[region] = (z + c @ rows).astype(z.dtype)
        return edited

    def sigma_for_value(self, region: str, name: str, current_mm: float, wanted_mm: float) -> float:
        """Change of a control, in standard deviations, that moves its measurement from one value in mm to another."""
        return (wanted_mm - current_mm) / float(self.region(region).sigma[self.position(region, name)])

    def base_latents(self) -> dict[str, Array]:
        """Mean latent of every region, ``{region: (D,)}``."""
        return {region: fitted.mean_latent.copy() for region, fitted in self.regions.items()}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain arrays and lists, ``{region: {field: value}}``, for any storage."""
        return {region: dict(vars(fitted)) for region, fitted in self.regions.items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Mapping[str, Any]]) -> ControllerMap:
        """The map that ``to_dict`` gave; ValueError for missing fields or shapes that do not match."""
        return cls({region: _region_from_dict(region, stored[region]) for region in REGIONS if region in stored})


def _fit_region(region: str, names: tuple[str, ...], x: Array, z: Array, ridge: float) -> RegionMap:
    if x.ndim != 2 or x.shape[1] != len(names):
        raise ValueError(f"measurements of {region} have shape {x.shape}: expected (N, {len(names)})")
    if z.ndim != 2 or len(z) != len(x):
        raise ValueError(
            f"latents of {region} have shape {z.shape}: expected ({len(x)}, D) as there are {len(x)} measurements"
        )
    if len(x) <= len(names):
        raise ValueError(f"{len(x)} faces cannot determine the {len(names)} controllers of {region}: give more faces")
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        raise ValueError(f"measurements or latents of {region} are not finite")
    mean_x, mean_z, sigma = x.mean(axis=0), z.mean(axis=0), x.std(axis=0)
    still = [name for name, s, m in zip(names, sigma, mean_x, strict=True) if s <= 1e-9 * (1 + abs(m))]
    if still:
        raise ValueError(f"{region}.{still[0]} does not vary over the {len(x)} faces: leave it out with names=")
    standard, dz = (x - mean_x) / sigma, z - mean_z
    if ridge > 0:
        normal = standard.T @ standard + ridge * len(x) * np.eye(len(names))
        per_sigma = np.linalg.solve(normal, standard.T @ dz)
    else:
        per_sigma = np.linalg.pinv(standard) @ dz
    total = float((dz**2).sum())
    r2 = 1.0 - float(((dz - standard @ per_sigma) ** 2).sum()) / total if total > 0 else 0.0
    correlation = standard.T @ standard / len(x)
    collinear = tuple(
        (names[i], names[j], float(correlation[i, j]))
        for i, j in zip(*np.triu_indices(len(names), 1), strict=True)
        if abs(correlation[i, j]) > COLLINEAR
    )
    return RegionMap(names, per_sigma / sigma[:, None], sigma, mean_x, mean_z, r2, collinear)


def _region_from_dict(region: str, stored: Mapping[str, Any]) -> RegionMap:
    missing = sorted(set(RegionMap.__dataclass_fields__) - set(stored))
    if missing:
        raise ValueError(f"stored controllers of {region} lack {', '.join(missing)}")
    names = tuple(str(name) for name in stored["names"])
    matrix, sigma, mean_x, mean_z = (
        np.asarray(stored[field], dtype=np.float64) for field in ("matrix", "sigma", "mean_measurement", "mean_latent")
    )
    m, d = len(names), mean_z.size
    for field, array, shape in (
        ("matrix", matrix, (m, d)),
        ("sigma", sigma, (m,)),
        ("mean_measurement", mean_x, (m,)),
        ("mean_latent", mean_z, (d,)),
    ):
        if array.shape != shape:
            raise ValueError(f"stored {field} of {region} has shape {array.shape}: expected {shape}")
    collinear = tuple((str(a), str(b), float(r)) for a, b, r in stored["collinear"])
    return RegionMap(names, matrix, sigma, mean_x, mean_z, float(stored["r2"]), collinear)


def _floating(values: ArrayLike) -> NDArray:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
