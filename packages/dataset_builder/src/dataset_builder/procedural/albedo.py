"""Colour of the procedural face at canonical points: skin, eyebrows, lips, nostrils, eyes.

Everything but the iris and the lashes is a function of the canonical point, so any resolution gets sharp edges.
Iris and lashes are drawn in the face frame, where the iris is round and the lashes follow the lid.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from .appearance import Appearance
from .height import bump, middle_bump, smooth_step
from .noise import Textures, look_up
from .outlines import Outlines, build_outlines

Array = NDArray[np.floating]

_IRIS_RADIUS, _PUPIL_RADIUS = 5.5, 2.0
_STEP = 0.5
_X0, _Y0 = 0.0, -90.0


class DistanceMaps:
    """Signed distances to the part outlines on a 0.5 mm grid of the half plane.

    Args:
        outlines: part outlines.
    """

    parts = ("brow", "eye", "nose", "upper_lip", "lower_lip")

    def __init__(self, outlines: Outlines) -> None:
        x, y = np.arange(_X0, 84, _STEP), np.arange(_Y0, 96, _STEP)
        nodes = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
        maps = [outlines.distance(part, nodes).reshape(len(x), len(y)) for part in self.parts]
        self._maps = np.stack(maps, -1).astype(np.float32)

    def __call__(self, points: Array) -> dict[str, NDArray[np.float32]]:
        """Signed distance (N,) in mm to each part, negative inside, of canonical points (N, 2)."""
        rows, columns = self._maps.shape[:2]
        u = ((np.abs(points[:, 0]) - _X0) / _STEP).clip(0, rows - 1.001)
        v = ((points[:, 1] - _Y0) / _STEP).clip(0, columns - 1.001)
        i, j = u.astype(np.int64), v.astype(np.int64)
        a, b = ((t - k).astype(np.float32)[:, None] for t, k in ((u, i), (v, j)))
        low = self._maps[i, j] * (1 - a) + self._maps[i + 1, j] * a
        high = self._maps[i, j + 1] * (1 - a) + self._maps[i + 1, j + 1] * a
        return dict(zip(self.parts, (low * (1 - b) + high * b).T, strict=True))


@cache
def distance_maps() -> DistanceMaps:
    """The maps of the one set of outlines there is; they take longer to sample than a photograph to paint."""
    return DistanceMaps(build_outlines())


@dataclass(frozen=True)
class EyeState:
    """Where one eye is in the face frame.

    Attributes:
        centre: (2,) x, y of the iris, mm.
        upper, lower: (n, 2) x, y of the edges of the lids from the inner to the outer corner, mm.
    """

    centre: Array
    upper: Array
    lower: Array


def _blend(colour: Array, other: Array, alpha: NDArray[np.floating]) -> Array:
    return np.asarray(colour + (other - colour) * alpha[:, None])


def _polyline_distance(points: Array, line: Array) -> Array:
    a, edge = line[:-1], np.diff(line, axis=0)
    d = points[:, None] - a
    t = ((d * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-12)).clip(0, 1)
    return np.asarray(np.linalg.norm(d - t[..., None] * edge, axis=-1).min(1))


class FacePaint:
    """Paints one person.

    Args:
        look: colours.
        textures: of the photograph.
    """

    def __init__(self, look: Appearance, textures: Textures) -> None:
        self._look = look
        self._coarse, self._fine = textures.coarse, textures.fine

    def skin(self, q: Array, chart: Array) -> Array:
        """Skin colour (N, 3) at canonical points (N, 2); ``chart`` (N, 2) carries the noise."""
        look = self._look
        coarse = look_up(self._coarse, chart[:, 0] * 1.1, chart[:, 1] * 1.1)
        red_noise = look_up(self._coarse, chart[:, 1] * 1.7 + 90, chart[:, 0] * 1.7)
        fine = look_up(self._fine, chart[:, 0] * 3.1, chart[:, 1] * 3.1)
        light = 1 + look.freckles * (0.035 * coarse + 0.03 * fine)
        spots = smooth_step(fine + 0.5 * red_noise, 1.9, 2.8) * look.freckles * 0.22
        colour = look.skin * (light * (1 - spots))[:, None]
        red = 0.8 * bump(q, 42, -5, 15, 13) + 0.9 * middle_bump(q, -5, 9, 8) + 0.5 * bump(q, 15, -6, 5, 7)
        red = red + 0.3 * middle_bump(q, -62, 12, 9) + 0.35 * bump(q, 29, 33, 12, 4) + 0.1 * red_noise
        amount = (look.redness * red).clip(0, 1.5)[:, None]
        colour = colour * (1 - amount * np.array([0.02, 0.24, 0.22]))
        tired = 0.10 * bump(q, 26, 18.5, 9, 4) + 0.08 * bump(q, 20, 27, 4, 6)
        return np.asarray(colour * (1 - tired[:, None] * [0.8, 1.0, 0.8]))

    def _stubble(self, colour: Array, q: Array, chart: Array, lips: Array) -> Array:
        look = self._look
        if look.beard == 0:
            return colour
        x, y = np.abs(q[:, 0]), q[:, 1]
        edge = PchipInterpolator([0, 14, 24, 36, 50, 62, 75], [-16.5, -17, -26, -40, -33, -15, 14])(x.clip(0, 75))
        area = smooth_step(edge - y, -1.5, 5) * smooth_step(lips, 0.3, 2.2)
        area = area * (1 - 0.8 * middle_bump(q, -44, 5, 2.5)) * (1 - 0.7 * middle_bump(q, -21, 3, 7))
        hairs = look_up(self._fine, chart[:, 0] * 5.3, chart[:, 1] * 2.9)
        alpha = (area * look.beard * (0.62 + 0.25 * hairs)).clip(0, 0.92)
        return _blend(colour, look.hair_colour * 0.8 + 0.12 * look.skin, alpha)

    def _brows(self, colour: Array, q: Array, sd: Array) -> Array:
        look, x = self._look, np.abs(q[:, 0])
        slant = np.radians(28) * smooth_step(x, 40, 16) - np.radians(8)
        along, across = x * np.cos(slant) + q[:, 1] * np.sin(slant), q[:, 1] * np.cos(slant) - x * np.sin(slant)
        hairs = look_up(self._fine, along * 1.1 + 60 * (q[:, 0] > 0), across * 6.5)
        soft = smooth_step(sd + 0.28 * hairs, 0.45, -0.9)
        front = 0.45 + 0.55 * smooth_step(x, 14.5, 24)
        alpha = look.brow_density * soft * front * (0.86 + 0.16 * hairs)
        return _blend(colour, look.hair_colour * 0.5, alpha.clip(0, 1))

    def _lips(self, colour: Array, q: Array, upper: Array, lower: Array) -> Array:
        look = self._look
        inside = np.minimum(upper, lower)
        lines = look_up(self._fine, q[:, 0] * 5.5, q[:, 1] * 0.9)
        tone = look.lips * (1 + 0.05 * lines - 0.12 * (upper < lower))[:, None]
        alpha = look.lip_strength * smooth_step(inside, 0.5, -0.7)
        return _blend(colour, tone, alpha)

    def __call__(
        self,
        q: Array,
        chart: Array,
        place: Array,
        distance: dict[str, NDArray[np.float32]],
        eyes: tuple[EyeState, EyeState],
        mouth_open: float,
    ) -> Array:
        """Linear colour (N, 3).

        Args:
            q: (N, 2) canonical points.
            chart: (N, 2) their chart coordinates.
            place: (N, 3) the same points in the face frame, mm.
            distance: signed distances (N,) to the part outlines.
            eyes: state of the subject's right and left eye.
            mouth_open: 0 closed, 1 open by 3 mm or more; an open mouth has no dark line between the lips.
        """
        upper, lower, sd_nose = distance["upper_lip"], distance["lower_lip"], distance["nose"]
        colour = self.skin(q, chart)
        colour = self._stubble(colour, q, chart, np.minimum(upper, lower))
        colour = self._lips(colour, q, upper, lower)
        x, y = np.abs(q[:, 0]), q[:, 1]
        line = np.exp(-((np.maximum(np.abs(upper), np.abs(lower)) / 0.9) ** 2)) * smooth_step(x, 24.6, 22.5)
        dark = (0.62 - 0.5 * mouth_open) * line
        dark = np.maximum(dark, 0.8 * bump(q, 7.4, -12.3, 3.3, 1.35))
        dark = np.maximum(dark, 0.24 * np.exp(-((sd_nose / 1.3) ** 2)) * smooth_step(x, 11, 15) * smooth_step(y, 6, 0))
        colour = colour * (1 - dark[:, None] * [0.92, 1.0, 1.0])
        near = np.flatnonzero(distance["brow"] < 1.2)
        colour[near] = self._brows(colour[near], q[near], distance["brow"][near])
        for side, eye in zip((-1, 1), eyes, strict=True):
            near = np.flatnonzero((distance["eye"] < 6.0) & (q[:, 0] * side > 0))
            if len(near):
                colour[near] = self._eye(colour[near], q[near], place[near, :2], distance["eye"][near], eye)
        return colour

    def _eye(self, skin: Array, q: Array, place: Array, sd: Array, eye: EyeState) -> Array:
        look = self._look
        to_upper, to_lower = _polyline_distance(place, eye.upper), _polyline_distance(place, eye.lower)
        offset = place - eye.centre - look.gaze
        radius = np.linalg.norm(offset, axis=1)
        fibres = look_up(self._fine, np.arctan2(offset[:, 1], offset[:, 0]) * 22, radius * 2.0)
        sclera: Array = np.tile([0.66, 0.62, 0.60], (len(q), 1))
        corner = np.exp(-(((np.abs(q[:, 0]) - 18.6) / 1.9) ** 2)) + 0.4 * np.exp(
            -(((np.abs(q[:, 0]) - 40.6) / 2.5) ** 2)
        )
        sclera = _blend(sclera, np.array([0.5, 0.24, 0.21]), corner.clip(0, 0.85))
        ring = 1 - 0.55 * smooth_step(radius, 4.3, 5.5) + 0.35 * smooth_step(radius, 4.2, 2.4)
        iris = look.iris * (ring * (1 + 0.16 * fibres))[:, None] * 1.5
        ball = _blend(sclera, iris, smooth_step(radius, _IRIS_RADIUS + 0.3, _IRIS_RADIUS - 0.35))
        ball = _blend(ball, np.full(3, 0.006), smooth_step(radius, _PUPIL_RADIUS + 0.25, _PUPIL_RADIUS - 0.25))
        shade = 0.62 * np.exp(-to_upper / 1.5) + 0.18 * np.exp(-to_lower / 0.9)
        ball = ball * (1 - shade[:, None])
        glint = offset - 2.1 * look.key_direction[:2] - [0, 0.6]
        ball = ball + 0.9 * np.exp(-((np.linalg.norm(glint, axis=1) / 0.75) ** 4))[:, None] * (
            look.key_colour.mean() > 0
        )
        colour = _blend(skin, ball, smooth_step(sd, 0.06, -0.06))
        rim = np.exp(-((to_lower / 0.45) ** 2)) * 0.45
        colour = _blend(colour, skin * [0.8, 0.5, 0.48], rim)
        lashes = 0.85 * np.exp(-((to_upper / 0.62) ** 2)) + 0.28 * np.exp(-((to_lower / 0.4) ** 2))
        return _blend(colour, np.array([0.012, 0.01, 0.009]) + 0.12 * look.hair_colour, lashes.clip(0, 0.9))
