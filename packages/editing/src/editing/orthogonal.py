"""Controllers that do what they say on decoded faces and leave their neighbours alone as far as faces allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from editing.controllers import ControllerMap, RegionMap
from editing.response import DecodeAndMeasure

Array = NDArray[np.float64]
Measured = Callable[[Array], Array]
"""Whitened latent displacements ``(B, k)`` -> movement ``(B, M)`` of a region's measurements, standard deviations."""

HELD = 0.01  # a neighbour's movement against the control's own error, squared
SHORT = 1e-5  # the length of the movement against the same: of equal answers the shortest
DIFFERENCE = 0.25  # of a latent standard deviation: finite differences that look past the creases of a bounding box
SPANNED = 0.05  # of a latent direction's variance: what symmetric faces keep less of makes faces lopsided


def orthogonalised(
    controllers: ControllerMap,
    decode_and_measure: DecodeAndMeasure,
    latents: Mapping[str, ArrayLike],
    base: Mapping[str, ArrayLike] | None = None,
    *,
    symmetric: Mapping[str, ArrayLike] | None = None,
    longest: float = 2.0,
    step: float = 3.0,
    evaluations: int = 8,
) -> ControllerMap:
    """The map whose controls move their own measurement by what is asked, and the others of the region not at all.

    Least squares promises this for measurements that are linear in the latents, and goes as far from the mean as it
    takes: for collinear measurements (facial height with upper and lower height held) beyond any human face. Here every
    row is found on decoded faces, at ``+step`` and ``-step`` together: its own response is 1; then the region's other
    measurements stay, as far as a movement of at most ``longest`` standard deviations of the latents (Mahalanobis) per
    standard deviation of the measurement can hold them; of equal answers it is the shortest. A linear measurement takes
    a length of 1 at least: with ``longest=1`` the others follow as they do in the data, with a large one they are held.

    Args:
        controllers: a fitted map, where the search starts; names, sigma, means, r2 stay.
        decode_and_measure: latents ``{region: (B, D)}`` -> measurements ``{region: (B, M)}`` in mm, columns as fitted.
        latents: region -> ``(N, D)`` of many faces; their covariance says which movements are plausible.
        base: latents ``{region: (D,)}`` of the face where the rows are found; the mean latents unless given.
        symmetric: region -> ``(N, D)`` of faces made symmetric. Movements stay in the directions these have, so that no
            control makes a face lopsided: the mean of both sides would not notice.
        longest: longest movement per standard deviation, in standard deviations of the latents.
        step: standard deviations at which a row keeps its promise.
        evaluations: most steps of the search per control; each decodes at most ``2 D + 4`` faces.

    Returns:
        A map of the same regions with other rows.

    Raises:
        ValueError: ``longest`` below 1, a step that is not positive, latents that are missing, too few, not finite or
            of another size, or measurements that are not finite.
    """
    if not longest >= 1:
        raise ValueError(f"longest is {longest}: a standard deviation of a measurement takes a length of 1 or more")
    if not step > 0:
        raise ValueError(f"step is {step}: ask for a positive number of standard deviations, for example 3")
    start = {r: np.asarray(z, np.float64) for r, z in (base or controllers.base_latents()).items()}
    if missing := [region for region in controllers.regions if region not in start]:
        raise ValueError(f"base has no latents of {', '.join(missing)}")
    regions = {}
    for region, fitted in controllers.regions.items():
        spread = _spread(region, fitted, latents)
        if symmetric is not None:
            whitened: Array = np.linalg.solve(spread, _spread(region, fitted, symmetric)).astype(np.float64)
            spread = (spread @ _principal(whitened)).astype(np.float64)
        measured = _measured(region, fitted, decode_and_measure, start, spread)
        begin = np.linalg.lstsq(spread, fitted.rows.T, rcond=None)[0].T
        rows = [_row(j, u, measured, longest, step, evaluations) for j, u in enumerate(begin)]
        regions[region] = replace(fitted, matrix=np.stack(rows) @ spread.T / fitted.sigma[:, None])
    return ControllerMap(regions)


def latent_lengths(controllers: ControllerMap, latents: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """How far one standard deviation of every control moves the latents: Mahalanobis lengths ``{region: (M,)}``.

    1 is the length of a typical face's coordinate, and the least that moves a linear measurement by its own standard
    deviation; the longer, the less plausible. ``latents``: region -> ``(N, D)`` of many faces. ValueError where they
    are missing, too few or of another size.
    """
    return {
        region: np.linalg.norm(np.linalg.solve(_spread(region, fitted, latents), fitted.rows.T), axis=0)
        for region, fitted in controllers.regions.items()
    }


def _spread(region: str, fitted: RegionMap, latents: Mapping[str, ArrayLike]) -> Array:
    """Cholesky factor ``(D, D)`` of the latents' covariance."""
    if region not in latents:
        raise ValueError(f"no latents of {region}: they are of {', '.join(latents)}")
    z, d = np.asarray(latents[region], np.float64), fitted.mean_latent.size
    if z.ndim != 2 or z.shape[1] != d or len(z) <= d:
        raise ValueError(f"latents of {region} have shape {z.shape}: expected (N, {d}) with N above {d}")
    if not np.isfinite(z).all():
        raise ValueError(f"latents of {region} are not finite")
    covariance = np.atleast_2d(np.cov(z.T))
    return np.linalg.cholesky(covariance + 1e-9 * np.trace(covariance) * np.eye(d))


def _principal(whitened: Array) -> Array:
    """Orthonormal directions ``(D, k)`` that a factor ``(D, D)`` of a covariance in whitened latents does have."""
    directions, scale, _ = np.linalg.svd(whitened)
    return directions[:, scale**2 > SPANNED]


def _measured(
    region: str, fitted: RegionMap, decode_and_measure: DecodeAndMeasure, base: dict[str, Array], spread: Array
) -> Measured:
    def of(displacements: Array) -> Array:
        batch = {r: np.tile(z, (len(displacements), 1)) for r, z in base.items()}
        batch[region] = batch[region] + displacements @ spread.T
        values = np.asarray(decode_and_measure(batch)[region], np.float64)
        if values.shape != (len(displacements), len(fitted.names)) or not np.isfinite(values).all():
            expected = (len(displacements), len(fitted.names))
            raise ValueError(f"measurements of {region} must be finite and {expected}: got shape {values.shape}")
        return values

    rest = of(np.zeros((1, spread.shape[1])))
    return lambda displacements: (of(displacements) - rest) / fitted.sigma


def _row(own: int, begin: Array, measured: Measured, longest: float, step: float, evaluations: int) -> Array:
    """Whitened latent movement ``(k,)`` per standard deviation of one control: two-sided non-linear least squares."""
    d, asked = len(begin), step * np.array([[1.0], [-1.0]])
    nudges = DIFFERENCE * np.concatenate([np.zeros((1, d)), np.eye(d)])

    def weighted(movement: Array) -> Array:
        return movement * np.where(np.arange(movement.shape[-1]) == own, 1.0, np.sqrt(HELD))

    def residual(u: Array) -> Array:
        response = weighted(measured(asked * u) / asked)
        response[:, own] -= 1.0
        beyond = max(0.0, float(np.linalg.norm(u)) - longest)
        return np.concatenate([response.ravel(), np.sqrt(SHORT) * u, [beyond]])

    def jacobian(u: Array) -> Array:
        moved = weighted(measured((asked[:, None] * u + nudges).reshape(-1, d))).reshape(2, d + 1, -1)
        slopes = (moved[:, 1:] - moved[:, :1]).transpose(0, 2, 1).reshape(-1, d) / DIFFERENCE
        length = float(np.linalg.norm(u))
        return np.concatenate([slopes, np.sqrt(SHORT) * np.eye(d), [u / length if length > longest else 0 * u]])

    begin = begin * min(1.0, longest / float(np.linalg.norm(begin)))
    return least_squares(residual, begin, jacobian, max_nfev=evaluations, ftol=1e-3, xtol=1e-3, gtol=1e-6).x
