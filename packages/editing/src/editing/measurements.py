"""Measuring: vertices in, the 30 controller values in millimetres out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing.catalogue import CONTROLLERS, CONTROLLERS_BY_REGION, Controller, Rule
from editing.landmarks import MeasurementLandmarks
from editing.parts import REGIONS

Array = NDArray[np.float64]
X, Y, Z = 0, 1, 2


def measure(vertices: ArrayLike, landmarks: MeasurementLandmarks) -> dict[str, Array]:
    """The 30 measurements of NEO-3DF (Yan et al., ACCV 2022) on any number of faces of one topology.

    Measurements of parts do not change when the face is translated. Facial depths (rest) are the z of a point of the
    whole face and do. Paired measures are the mean of both sides.

    Args:
        vertices: ``(..., V, 3)`` faces in mm, neutral expression, any float type; computed in float64.
        landmarks: measuring points of this topology.

    Returns:
        ``{region: (..., M)}`` float64 mm, columns in the order of ``controller_names(region)``.

    Raises:
        ValueError: wrong number of vertices, or coordinates that are not finite.
    """
    xyz = np.asarray(vertices)
    if xyz.ndim < 2 or xyz.shape[-2:] != (landmarks.n_vertices, 3):
        raise ValueError(
            f"vertices have shape {xyz.shape}: expected (..., {landmarks.n_vertices}, 3) for these landmarks"
        )
    with np.errstate(invalid="ignore"):  # reported below
        face = _Faces(xyz, landmarks)
        values = {region: [_value(face, c) for c in CONTROLLERS_BY_REGION[region]] for region in REGIONS}
    measured = {region: np.stack(columns, axis=-1) for region, columns in values.items()}
    for region, columns in measured.items():
        if not np.isfinite(columns).all():
            raise ValueError(f"vertices of {region} have coordinates that are not finite")
    return measured


def measurement_values(measured: dict[str, Array]) -> dict[str, float]:
    """One face's measurements by full name, ``{"nose.width": 35.8, ...}`` in mm; ValueError for a batch."""
    if any(values.ndim != 1 for values in measured.values()):
        raise ValueError("measurements of a batch have no single value by name: index one face first")
    position = {c.key: CONTROLLERS_BY_REGION[c.region].index(c) for c in CONTROLLERS}
    return {c.key: float(measured[c.region][position[c.key]]) for c in CONTROLLERS}


class _Faces:
    """Points and boxes of a batch of faces; only what is gathered is widened to float64."""

    def __init__(self, xyz: NDArray, landmarks: MeasurementLandmarks) -> None:
        self._xyz, self._landmarks = xyz, landmarks

    def point(self, name: str) -> Array:
        """Positions ``(..., S, 3)`` of a named point."""
        return self._xyz[..., self._landmarks.points[name], :].astype(np.float64).mean(axis=-2)

    def box(self, region: str, axis: int) -> tuple[Array, Array]:
        """Lowest and highest coordinate ``(...)`` of a region; for rest, of the whole face."""
        column = self._xyz[..., axis]
        part = column if region == "rest" else column[..., self._landmarks.boxes[region]]
        return part.min(axis=-1).astype(np.float64), part.max(axis=-1).astype(np.float64)


def _value(face: _Faces, controller: Controller) -> Array:
    return _RULES[controller.rule](face, controller)


def _distance(face: _Faces, controller: Controller) -> Array:
    a, b = (face.point(name) for name in controller.points)
    return np.linalg.norm(a - b, axis=-1).mean(axis=-1)


def _delta_y(face: _Faces, controller: Controller) -> Array:
    a, b = (face.point(name)[..., Y] for name in controller.points)
    return np.abs(a - b).mean(axis=-1)


def _across_x(face: _Faces, controller: Controller) -> Array:
    sides = face.point(controller.points[0])
    return np.abs(sides[..., 0, X] - sides[..., 1, X])


def _across(face: _Faces, controller: Controller) -> Array:
    sides = face.point(controller.points[0])
    return np.linalg.norm(sides[..., 0, :] - sides[..., 1, :], axis=-1)


def _sag(face: _Faces, controller: Controller) -> Array:
    a, b, middle = (face.point(name) for name in controller.points)
    return np.linalg.norm(middle - (a + b) / 2, axis=-1).mean(axis=-1)


def _coordinate(axis: int) -> Callable[[_Faces, Controller], Array]:
    def value(face: _Faces, controller: Controller) -> Array:
        position = face.point(controller.points[0])[..., axis].mean(axis=-1)
        if controller.region == "rest":
            return position
        low, high = face.box(controller.region, axis)
        return position - (low + high) / 2

    return value


def _box(axis: int) -> Callable[[_Faces, Controller], Array]:
    def size(face: _Faces, controller: Controller) -> Array:
        low, high = face.box(controller.region, axis)
        return high - low

    return size


_RULES: Final[dict[Rule, Callable[[_Faces, Controller], Array]]] = {
    "distance": _distance,
    "delta_y": _delta_y,
    "across_x": _across_x,
    "across": _across,
    "sag": _sag,
    "y": _coordinate(Y),
    "z": _coordinate(Z),
    "box_width": _box(X),
    "box_height": _box(Y),
}
