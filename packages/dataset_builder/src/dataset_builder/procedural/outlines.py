"""Outlines of the parts on the average face, and signed distances to them.

All curves live in the canonical plane (x, y) in mm, +x to the subject's left, +y up, origin between nose and eyes. They
are fixed: a procedural face moves the points of this plane, never the curves on it, so part labels belong to vertices.
The control points follow average measurements of the face (Yan et al. 2022, table of editing controllers).
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.spatial import cKDTree

Array = NDArray[np.floating]

_RIM = (
    (0, 87), (22, 84.5), (42, 75), (57, 61), (67, 43), (71.8, 26), (73, 10), (72, -8), (69, -25), (63, -42),
    (53, -57), (39, -69.5), (21, -77.5), (0, -80.5),
)  # fmt: skip
_BROW_TOP = ((15.6, 44.6), (18.9, 47.2), (27, 48.5), (36, 49), (44, 47.6), (49.7, 44.7), (52.7, 41.4))
_BROW_BOTTOM = ((15.6, 44.6), (19.4, 42.2), (27, 42.7), (36, 43.3), (44, 42.5), (49.2, 40.6), (52.7, 41.4))
_EYE_TOP = ((18.3, 25.6), (20.5, 27.6), (24.5, 30.2), (29.5, 30.95), (34.5, 30.2), (38.4, 28.3), (40.8, 26.4))
_EYE_BOTTOM = ((18.3, 25.6), (20.6, 25.1), (24.5, 24.3), (29.5, 23.85), (34.5, 24), (38.4, 25), (40.8, 26.4))
_NOSE = (
    (0, 34), (4.9, 32.5), (7.3, 27), (8.9, 20), (10.4, 12), (12.6, 4.5), (16.4, 0), (18, -4.5), (17.3, -9.5),
    (14, -12.4), (9, -12.6), (4.5, -13.1), (0, -13.6),
)  # fmt: skip
_LIP_UPPER = ((0, -27.5), (3.2, -26.9), (6, -26.4), (10, -27), (15, -28.7), (19.5, -30.8), (23.5, -33.2))
_MOUTH_LINE = ((0, -33.6), (4, -33.5), (8, -33.2), (13, -33.4), (18, -33.2), (23.5, -33.2))
_LIP_LOWER = ((0, -40.5), (5, -40.4), (10, -39.7), (15, -38.1), (19.5, -35.7), (23.5, -33.2))
NASOLABIAL_FOLD = ((19.5, -2), (24, -9), (28, -19), (31.5, -31), (32, -41))
MOUTH_CORNER = (23.5, -33.2)
EYE_CENTRE = (29.6, 27.2)


@dataclass(frozen=True)
class Curve:
    """Smooth open curve of the half face (x >= 0).

    Attributes:
        control: (C, 2) control points it passes through, in order; its ends are exact.
        points: (P, 2) dense polyline, which holds every control point.
    """

    control: Array
    points: Array


def _dense(parameters: Array, per_span: int) -> Array:
    spans = [np.linspace(a, b, per_span, endpoint=False) for a, b in pairwise(parameters)]
    return np.append(np.concatenate(spans), parameters[-1])


def _chords(points: Array) -> Array:
    return np.insert(np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum(), 0, 0.0)


def _spline(control: tuple[tuple[float, float], ...], per_span: int = 16) -> Curve:
    points = np.asarray(control, float)
    s = _chords(points)
    return Curve(points, CubicSpline(s, points)(_dense(s, per_span)))


def _symmetric_spline(control: tuple[tuple[float, float], ...], per_span: int = 16) -> Curve:
    """Spline through the points and their mirror images (no kink on the midline); both ends must lie on x = 0."""
    points = np.asarray(control, float)
    loop = np.concatenate([points, (points * [-1, 1])[-2::-1]])
    s = _chords(loop)
    dense = CubicSpline(s, loop, bc_type="periodic")(_dense(s[: len(points)], per_span))
    dense[[0, -1], 0] = 0.0
    return Curve(points, dense)


def _height_curve(control: tuple[tuple[float, float], ...], per_span: int = 16) -> Curve:
    """Monotone cubic y(x) through the points mirrored about x = 0: keeps the cupid's bow without overshoot."""
    points = np.asarray(control, float)
    x = _dense(points[:, 0], per_span)
    return Curve(points, np.column_stack([x, height_of(points, x)]))


def height_of(control: Array, x: Array) -> Array:
    """y (...) of the monotone cubic through ``control`` (C, 2) and its mirror image at |x|, constant past its end."""
    mirrored = np.concatenate([(control * [-1, 1])[:0:-1], control])
    return np.asarray(PchipInterpolator(*mirrored.T)(np.minimum(np.abs(x), control[-1, 0])))


def inside_polygon(points: Array, polygon: Array) -> NDArray[np.bool_]:
    """Whether points (N, 2) lie inside the closed polygon (P, 2), by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    boxed = np.flatnonzero(((points >= polygon.min(0)) & (points <= polygon.max(0))).all(1))
    a, edge = polygon, np.roll(polygon, -1, axis=0) - polygon
    for block in np.array_split(boxed, len(boxed) // 20_000 + 1):
        dx, dy = (points[block, None] - a).transpose(2, 0, 1)
        crosses = (dy >= 0) != (dy - edge[:, 1] >= 0)
        left = dx < dy * edge[:, 0] / np.where(edge[:, 1] == 0, np.inf, edge[:, 1])
        inside[block] = (crosses & left).sum(1) % 2 == 1
    return inside


def _densify(polygon: Array, step: float) -> Array:
    following = np.roll(polygon, -1, axis=0)
    count = np.maximum(np.ceil(np.linalg.norm(following - polygon, axis=1) / step), 1).astype(int)
    start = np.repeat(np.arange(len(polygon)), count)
    fraction = np.concatenate([np.arange(n) / n for n in count])[:, None]
    return polygon[start] * (1 - fraction) + following[start] * fraction


def signed_distance(points: Array, polygon: Array) -> Array:
    """Distance (N,) in mm of points (N, 2) to the closed polygon (P, 2), negative inside.

    Measured to the two segments beside the nearest of many points on the polygon: exact but for sharp corners, where
    it is off by at most the spacing of those points (0.2 mm).
    """
    dense = _densify(polygon, 0.2)
    nearest = cKDTree(dense).query(points)[1]
    distance = np.full(len(points), np.inf)
    for neighbour in (-1, 1):
        a = dense[nearest]
        edge = dense[(nearest + neighbour) % len(dense)] - a
        d = points - a
        t = np.clip((d * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-18), 0.0, 1.0)
        distance = np.minimum(distance, np.linalg.norm(d - t[:, None] * edge, axis=1))
    return np.where(inside_polygon(points, polygon), -distance, distance)


def _fold(points: Array) -> Array:
    return np.column_stack([np.abs(points[:, 0]), points[:, 1]])


@dataclass(frozen=True)
class Outlines:
    """Curves of the half face x >= 0. ``brow`` and ``eye`` are closed by two curves that share both ends."""

    rim: Curve
    brow_top: Curve
    brow_bottom: Curve
    eye_top: Curve
    eye_bottom: Curve
    nose: Curve
    lip_upper: Curve
    mouth_line: Curve
    lip_lower: Curve

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Every curve that must consist of mesh edges, the rim first."""
        return (
            self.rim, self.brow_top, self.brow_bottom, self.eye_top, self.eye_bottom, self.nose, self.lip_upper,
            self.mouth_line, self.lip_lower,
        )  # fmt: skip

    @cached_property
    def polygons(self) -> dict[str, Array]:
        """Closed polygons: ``brow`` and ``eye`` on x > 0, the others across the midline."""

        def across(*halves: Array) -> Array:
            half = np.concatenate(halves)
            return np.concatenate([half, (half * [-1, 1])[::-1]])

        mouth = self.mouth_line.points
        return {
            "rim": across(self.rim.points),
            "brow": np.concatenate([self.brow_top.points, self.brow_bottom.points[-2:0:-1]]),
            "eye": np.concatenate([self.eye_top.points, self.eye_bottom.points[-2:0:-1]]),
            "nose": across(self.nose.points),
            "upper_lip": across(self.lip_upper.points, mouth[-2::-1]),
            "lower_lip": across(mouth, self.lip_lower.points[-2::-1]),
        }

    def distance(self, part: str, points: Array) -> Array:
        """Signed distance (N,) mm of points (N, 2) to one of :attr:`polygons`, negative inside; symmetric in x."""
        return signed_distance(_fold(points), self.polygons[part])

    def inside(self, part: str, points: Array) -> NDArray[np.bool_]:
        """Whether points (N, 2) lie inside a polygon of :attr:`polygons`; symmetric in x."""
        return inside_polygon(_fold(points), self.polygons[part])

    def mouth_height(self, x: Array) -> Array:
        """y of the line between the lips at x, constant past the corners."""
        return height_of(self.mouth_line.control, x)

    def upper_lip_height(self, x: Array) -> Array:
        """y of the upper border of the upper lip at x."""
        return height_of(self.lip_upper.control, x)

    def lower_lip_height(self, x: Array) -> Array:
        """y of the lower border of the lower lip at x."""
        return height_of(self.lip_lower.control, x)


def build_outlines() -> Outlines:
    """The outlines of the average face, in mm."""
    return Outlines(
        rim=_symmetric_spline(_RIM),
        brow_top=_spline(_BROW_TOP),
        brow_bottom=_spline(_BROW_BOTTOM),
        eye_top=_spline(_EYE_TOP),
        eye_bottom=_spline(_EYE_BOTTOM),
        nose=_symmetric_spline(_NOSE),
        lip_upper=_height_curve(_LIP_UPPER),
        mouth_line=_height_curve(_MOUTH_LINE),
        lip_lower=_height_curve(_LIP_LOWER),
    )
