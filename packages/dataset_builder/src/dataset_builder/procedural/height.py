"""Height z of the average face over the canonical plane, in mm.

A smooth base (thin-plate spline through spot heights, hand-written and calibrated on the proportions of the ICT-FaceKit
average, Li et al. 2020) carries the nose, the eyes, the lips and the small folds, each a formula in (x, y).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator, RBFInterpolator
from scipy.special import expit

from .chart import Chart
from .outlines import EYE_CENTRE, MOUTH_CORNER, NASOLABIAL_FOLD, Outlines

Array = NDArray[np.floating]

SPOTS = (
    # |x|, then pairs (y, z); the rim is listed point by point
    (0, ((86, 20), (74, 27), (60, 30), (49, 31), (40, 30), (30, 25.5), (18, 24.5), (2, 25), (-11, 34), (-18, 39.5),
         (-26, 34), (-33, 33), (-46, 30), (-55, 29.5), (-63, 30), (-71, 26), (-77, 21.5), (-80, 13))),
    (15, ((80, 20), (60, 28.5), (49, 29.5), (40, 27), (30, 20.5), (18, 20), (2, 23), (-11, 28.5), (-18, 31.5),
          (-26, 31.5), (-33, 30.5), (-46, 27), (-55, 26.5), (-63, 25), (-71, 18.5))),
    (30, ((81, 13), (72, 18), (60, 23.5), (49, 27), (40, 23), (27, 14.5), (17, 17), (3, 20), (-10, 21), (-20, 21),
          (-33, 20.5), (-46, 17.5), (-60, 13), (-68, 4))),
    (45, ((66, 6), (58, 10.5), (49, 15), (40, 15), (27, 10.5), (17, 12), (3, 14.5), (-10, 13.5), (-20, 11.5),
          (-33, 9.5), (-46, 5), (-56, -5))),
    (57, ((55, -8), (46, -1), (34, 2), (12, 2), (0, 0), (-13, -5), (-30, -12))),
    (66, ((36, -17), (20, -16), (0, -19), (-16, -28))),
    (50, ((-50, -7),)),
    (58, ((-38, -19),)),
)  # fmt: skip
RIM_SPOTS = (
    (22, 84.5, 15), (42, 75, 0), (57, 61, -14), (67, 43, -27), (71.8, 26, -38), (73, 10, -46), (72, -8, -51),
    (69, -25, -50), (63, -42, -42), (53, -57, -29), (43, -66, -16), (21, -77.5, 3),
)  # fmt: skip
_BASE_SMOOTHING = 40.0

_DORSUM_HEIGHT = (
    (-16, 0), (-13.5, 6.5), (-11, 13.5), (-8, 20), (-3.7, 25.4), (2, 24.3), (8, 20.6), (14, 16.3), (20, 12), (26, 7.4),
    (31, 3.2), (35, 0.9), (38, 0),
)  # fmt: skip
_DORSUM_WIDTH = ((-16, 7.5), (-10, 8.6), (-4, 10.8), (2, 12), (8, 11.2), (14, 9.8), (22, 8.3), (34, 7.5))


def spot_heights() -> tuple[Array, Array]:
    """Canonical points (S, 2) and heights (S,) mm of the base, on both sides of the face."""
    half = [(x, y, z) for x, column in SPOTS for y, z in column] + list(RIM_SPOTS)
    table = np.array(half, float)
    both = np.concatenate([table, (table * [-1, 1, 1])[table[:, 0] > 0]])
    return both[:, :2], both[:, 2]


def bump(points: Array, x: float, y: float, radius_x: float, radius_y: float) -> Array:
    """Gaussian of height 1 at (|x|, y) on both sides of the face; radii in mm at 1/e."""
    return np.exp(-(((np.abs(points[:, 0]) - x) / radius_x) ** 2) - ((points[:, 1] - y) / radius_y) ** 2)


def middle_bump(points: Array, y: float, radius_x: float, radius_y: float) -> Array:
    """Gaussian of height 1 at (0, y); radii in mm at 1/e."""
    return np.exp(-((points[:, 0] / radius_x) ** 2) - ((points[:, 1] - y) / radius_y) ** 2)


def smooth_step(values: Array, low: float | Array, high: float | Array) -> Array:
    """Cubic step from 0 at ``low`` to 1 at ``high``."""
    t = ((values - low) / (high - low)).clip(0.0, 1.0)
    return t * t * (3 - 2 * t)


class HeightFields:
    """Heights of the average face and the shapes of its features at fixed canonical points.

    Args:
        points: (N, 2) canonical points, mm.
        outlines: part outlines.
        chart: coordinates of the base spline.
    """

    def __init__(self, points: Array, outlines: Outlines, chart: Chart) -> None:
        self.points = points
        self.outlines = outlines
        self.sd_eye = outlines.distance("eye", points)
        self.sd_nose = outlines.distance("nose", points)
        self.sd_brow = outlines.distance("brow", points)
        self._chart_points = chart(points)
        spots, heights = spot_heights()
        spline = RBFInterpolator(chart(spots), heights, smoothing=_BASE_SMOOTHING, kernel="thin_plate_spline")
        self.base = np.asarray(spline(self._chart_points))

    @property
    def x(self) -> Array:
        """|x| (N,) mm."""
        return np.abs(self.points[:, 0])

    @property
    def y(self) -> Array:
        """y (N,) mm."""
        return self.points[:, 1]

    def dorsum(self) -> Array:
        """Ridge of the nose."""
        height = PchipInterpolator(*np.array(_DORSUM_HEIGHT, float).T)(self.y.clip(-16, 38))
        width = PchipInterpolator(*np.array(_DORSUM_WIDTH, float).T)(self.y.clip(-16, 34))
        power = 2.1 + 0.5 * smooth_step(self.y, 10, -4)
        return np.asarray(height * np.exp(-0.7 * (self.x / width) ** power))

    def alae(self) -> Array:
        """The two wings of the nose."""
        dx = (self.x - 12.4) / 6.1
        dy = (self.y + 5.2 - 0.25 * (self.x - 12.4)) / 8.2
        return 12.2 * np.exp(-((dx**2 + dy**2) ** 1.5)) * expit((self.y + 12.2) / 1.0)

    def nose(self) -> Array:
        """Dorsum and alae joined by a soft maximum, with nostril dents and alar creases."""
        soft = 2.2
        joined = soft * (np.logaddexp(self.dorsum() / soft, self.alae() / soft) - np.log(2.0))
        nostril = 5.5 * bump(self.points, 7.6, -11.6, 3.6, 1.9)
        crease = 1.2 * np.exp(-((self.sd_nose / 1.8) ** 2)) * smooth_step(self.x, 10, 14) * smooth_step(self.y, 8, 2)
        return joined - nostril - crease

    def eyeball(self) -> Array:
        """Front of the eyeballs, a paraboloid."""
        dx, dy = self.x - EYE_CENTRE[0], self.y - EYE_CENTRE[1]
        return 19.4 - 0.2 * dx - 0.045 * (dx**2 + dy**2)

    def lids(self) -> Array:
        """Height of the lids over the eyeball, 0 inside the opening."""
        upper = expit((self.y - 25.9 - 0.03 * (self.x - 18.3)) / 0.8)
        step = (1.1 + 0.4 * upper) * (2 * expit(np.maximum(self.sd_eye, 0) / 0.28) - 1)
        crease = 1.0 * np.exp(-(((self.sd_eye - 5.6) / 1.3) ** 2)) * upper * smooth_step(self.x, 17, 23)
        return step - crease

    def eye_blend(self) -> Array:
        """1 inside the eyes, falling to 0 about 9 mm away."""
        return np.exp(-((np.maximum(self.sd_eye, 0) / 7.0) ** 4))

    def _lip_profile(self) -> Array:
        return (1 - (self.x / 25.5).clip(0, 1) ** 2) ** 0.9

    def upper_lip(self) -> Array:
        """Fullness of the upper lip, fading above its border."""
        d = self.y - self.outlines.mouth_height(self.x)
        over = d - (self.outlines.upper_lip_height(self.x) - self.outlines.mouth_height(self.x))
        roll = 1 - np.exp(-((np.maximum(d, 0) / 1.9) ** 1.25))
        tubercle = 0.7 * middle_bump(self.points, -31.5, 4.0, 2.2)
        return 4.9 * self._lip_profile() * roll * smooth_step(over, 4.5, 0) + tubercle * (d > 0)

    def lower_lip(self) -> Array:
        """Fullness of the lower lip, fading below its border."""
        line = self.outlines.mouth_height(self.x)
        d = line - self.y
        height = np.maximum(line - self.outlines.lower_lip_height(self.x), 0.5)
        roll = 1 - np.exp(-((np.maximum(d, 0) / 2.2) ** 1.35))
        return 5.0 * self._lip_profile() * roll * smooth_step(d, 0.85 * height + 5.0, 0.85 * height)

    def mouth(self) -> Array:
        """Line between the lips, corner dents and the bumps beside them."""
        d = self.y - self.outlines.mouth_height(self.x)
        line = -1.5 * np.exp(-(d**2)) * smooth_step(self.x, 26, 22)
        dent = -2.0 * bump(self.points, MOUTH_CORNER[0] + 0.5, MOUTH_CORNER[1], 4, 4)
        return line + dent + 0.8 * bump(self.points, 29.5, -33.5, 4, 6)

    def fold(self) -> Array:
        """Nasolabial fold: a shallow line with a fuller cheek beside it."""
        curve = PchipInterpolator(-np.array(NASOLABIAL_FOLD)[:, 1], np.array(NASOLABIAL_FOLD)[:, 0])
        across = self.x - curve((-self.y).clip(2, 41))
        along = smooth_step(self.y, 4, -6) * smooth_step(self.y, -44, -32)
        line = -0.9 * np.exp(-((across / 2.2) ** 2))
        cheek = 0.9 * np.exp(-(((across - 5) / 4.5) ** 2))
        return (line + cheek) * along

    def details(self) -> Array:
        """Philtrum, brow ridge and hair, cheekbone, hollow, jaw and temple."""
        p = self.points
        philtrum = -1.3 * middle_bump(p, -20.5, 3.0, 6.0) + 0.6 * bump(p, 5.6, -21.5, 2.0, 5.5)
        brow_hair = 0.9 * smooth_step(self.sd_brow, 0.8, -1.2)
        mentolabial = -1.0 * middle_bump(p, -47.5, 14.0, 4.0)
        return (
            philtrum
            + brow_hair
            + mentolabial
            + 1.0 * bump(p, 24, 44, 15, 4.5)
            + 1.4 * bump(p, 45, 6, 14, 9)
            - 1.2 * bump(p, 42, -23, 11, 13)
            + 0.9 * bump(p, 47, -46, 9, 9)
            - 0.9 * bump(p, 58, 40, 9, 14)
        )

    def mean(self) -> Array:
        """Height (N,) of the average face."""
        soft = self.base + self.nose() + self.upper_lip() + self.lower_lip() + self.mouth() + self.fold()
        soft = soft + self.details()
        blend = self.eye_blend()
        return soft * (1 - blend) + (self.eyeball() + self.lids()) * blend
