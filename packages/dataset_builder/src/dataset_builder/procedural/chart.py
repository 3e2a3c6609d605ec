"""The chart: canonical points unrolled so that triangles near the ears keep their size in 3D.

The face bends backwards towards its rim. Meshing, uv coordinates and noise use the chart ``p``; outlines use ``q``.
"""

import numpy as np
from numpy.typing import NDArray

from .outlines import Curve

Array = NDArray[np.floating]

_CENTRE = np.array([0.0, 4.0])
_BEND_SIDE, _BEND_TOP, _BEND_BOTTOM = 0.965, 0.82, 0.86


class Chart:
    """Map of the canonical plane to the chart, ``p = q asin(k r) / (k r)`` with r the distance relative to the rim.

    Args:
        rim: outer curve of the half face.
    """

    def __init__(self, rim: Curve) -> None:
        offset = rim.points - _CENTRE
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        order = np.argsort(angle)
        self._angle, self._radius = angle[order], np.linalg.norm(offset, axis=1)[order]
        corners = self(rim.points)
        self._half_width = corners[:, 0].max()
        self._bottom, self._top = corners[:, 1].min(), corners[:, 1].max()

    def _polar(self, points: Array) -> tuple[Array, Array, Array]:
        offset = points - _CENTRE
        angle = np.arctan2(offset[:, 1], np.abs(offset[:, 0]))
        r = np.linalg.norm(offset, axis=1) / np.interp(angle, self._angle, self._radius)
        up = np.sin(angle) ** 2
        bend = _BEND_SIDE * (1 - up) + np.where(angle > 0, _BEND_TOP, _BEND_BOTTOM) * up
        return offset, np.maximum(r, 1e-9), bend

    def __call__(self, points: Array) -> Array:
        """Chart coordinates (N, 2) in mm of canonical points (N, 2); points past the rim continue linearly."""
        offset, r, bend = self._polar(points)
        kr = bend * np.minimum(r, 1.0)
        return offset * (np.arcsin(kr) / kr)[:, None] + _CENTRE

    def inverse(self, chart_points: Array) -> Array:
        """Canonical points (N, 2) of chart points (N, 2) inside the rim (the map keeps directions from the centre)."""
        offset, s, bend = self._polar(chart_points)
        ks = np.minimum(bend * s, np.pi / 2)
        return offset * (np.sin(ks) / ks)[:, None] + _CENTRE

    def uv(self, points: Array) -> NDArray[np.float32]:
        """Texture coordinates (N, 2) float32 in [0, 1] of canonical points (N, 2), v up."""
        p = self(points)
        span = max(2 * self._half_width, self._top - self._bottom)
        middle = np.array([0.0, (self._top + self._bottom) / 2])
        return ((p - middle) / span + 0.5).clip(0, 1).astype(np.float32)
