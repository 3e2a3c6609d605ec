"""Rules that find the measuring points on a labelled template, one entry per point of the catalogue.

Every point is a set of ids of shape ``(S, K)``: S = 2 for paired points (the subject's right first) and 1 for midline
points; the point is the mean of K vertices. Rules are stated on the front view (x, y), where the parts are outlined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from editing.parts import LABEL_IDS

Ids = NDArray[np.int64]

RIGHT, LEFT = -1, 1  # the subject's; the sign of x
UP, DOWN = 1, -1  # the sign of y
SIDES: Final = (RIGHT, LEFT)
# 68 landmarks in Multi-PIE order, 0-based, as (subject's right, subject's left) where paired
JAW_ANGLE, MEDIAL_CANTHUS, LATERAL_CANTHUS, BOW_PEAK = (4, 12), (39, 42), (36, 45), (50, 52)
CHIN, NOSE_TIP, SUBNASALE, INNER_UPPER_LIP, INNER_LOWER_LIP = 8, 30, 33, 62, 66
MIDLINE: Final = (27, 28, 29, 30, 33, 8)

BROW_END = 0.1  # of the brow's width, in from a tip
LIP_END = {"upper_lip": 2 / 3, "lower_lip": 3 / 4}  # of a lip's half-width, out from the midline
TIP_SIDE = (0.36, 0.28)  # of the nose's half-width and of its height above the base
BRIDGE_SIDE = (0.385, 0.65)
COLUMN = 0.05  # of the part's width, to either side
SNAP_LIMIT = 0.1  # of the face's width between the first and the last jaw landmark


class Unresolved(Exception):
    """A point that the template does not have; the message says why."""


@dataclass(frozen=True)
class Template:
    """A labelled face with landmarks: float64 ``xyz (V, 3)``, ``labels (V,)``, ``landmarks (68,)`` vertex ids."""

    xyz: NDArray[np.float64]
    labels: NDArray[np.int64]
    landmarks: Ids

    @cached_property
    def midline(self) -> float:
        """x of the plane between the subject's right and left."""
        return float(np.median(self.xyz[self.landmarks[list(MIDLINE)], 0]))

    @cached_property
    def snap_limit(self) -> float:
        """How far in mm a landmark may lie from the part it belongs to."""
        return SNAP_LIMIT * float(self.xyz[self.landmarks[16], 0] - self.xyz[self.landmarks[0], 0])

    def part(self, name: str) -> Ids:
        """Vertex ids of a region."""
        ids = np.flatnonzero(self.labels == LABEL_IDS[name])
        if ids.size == 0:
            raise Unresolved(f"no vertex is labelled {name} ({LABEL_IDS[name]})")
        return ids

    def side(self, name: str, side: int) -> Ids:
        """Vertex ids of a region on one side of the midline."""
        ids = self.part(name)
        ids = ids[side * (self.xyz[ids, 0] - self.midline) > 0]
        if ids.size == 0:
            raise Unresolved(f"no {name} vertex on the subject's {'left' if side == LEFT else 'right'}")
        return ids

    def tip(self, ids: Ids, direction: int) -> int:
        """The vertex of ``ids`` farthest along ``direction`` (a sign) in x."""
        return int(ids[np.argmax(direction * self.xyz[ids, 0])])

    def outline(self, ids: Ids, x: float, direction: int) -> int:
        """The upper (+1) or lower (-1) vertex of ``ids`` in the column at x, nearer ones preferred.

        The column is ``COLUMN`` of the part wide, or as wide as the five nearest vertices on a coarse mesh: so a
        sloping outline cannot carry the point away. Inside it a millimetre of height is worth one sideways.
        """
        sideways = np.abs(self.xyz[ids, 0] - x)
        width = max(COLUMN * float(np.ptp(self.xyz[ids, 0])), float(np.sort(sideways)[:5][-1]))
        score = direction * self.xyz[ids, 1] - sideways
        return int(ids[np.argmax(np.where(sideways <= width, score, -np.inf))])

    def in_front(self, ids: Ids, x: float, y: float) -> int:
        """The vertex of ``ids`` nearest (x, y) in the front view; of two surface layers, the one in front."""
        distance = np.hypot(self.xyz[ids, 0] - x, self.xyz[ids, 1] - y)
        nearest = int(ids[np.argmin(distance - 0.1 * self.xyz[ids, 2])])
        self._refuse_far(float(np.hypot(*(self.xyz[nearest, :2] - (x, y)))), f"the point ({x:.1f}, {y:.1f})")
        return nearest

    def snap(self, ids: Ids, landmark: int) -> int:
        """The vertex of ``ids`` nearest a landmark."""
        return self._nearest(ids, landmark, np.zeros(ids.shape))

    def snap_to_midline(self, ids: Ids, landmark: int) -> int:
        """The vertex of ``ids`` near a midline landmark, a millimetre off the midline counted as one more away."""
        return self._nearest(ids, landmark, np.abs(self.xyz[ids, 0] - self.midline))

    def _nearest(self, ids: Ids, landmark: int, penalty: NDArray[np.float64]) -> int:
        distance = np.linalg.norm(self.xyz[ids] - self.xyz[self.landmarks[landmark]], axis=1)
        chosen = int(np.argmin(distance + penalty))
        self._refuse_far(float(distance[chosen]), f"landmark {landmark}")
        return int(ids[chosen])

    def _refuse_far(self, distance: float, what: str) -> None:
        if distance > self.snap_limit:
            raise Unresolved(f"the part is {distance:.1f} mm from {what} (limit {self.snap_limit:.1f} mm)")


PointRule = Callable[[Template], Ids]


def unpaired(rule: Callable[[Template], Iterable[int]]) -> PointRule:
    """A midline point, ``(1, K)``, from a rule that gives its K vertices."""
    return lambda face: np.array([list(rule(face))], dtype=np.int64)


def paired(rule: Callable[[Template, int], Iterable[int]]) -> PointRule:
    """A paired point, ``(2, K)``, from a rule of the template and the side."""
    return lambda face: np.array([list(rule(face, side)) for side in SIDES], dtype=np.int64)


def of_side(landmarks: tuple[int, int], side: int) -> int:
    """The landmark of a (right, left) pair on one side."""
    return landmarks[SIDES.index(side)]


def brow_column(face: Template, side: int, inward: float, *directions: int) -> list[int]:
    """Outline vertices at a fraction of the brow's width, counted from its medial tip."""
    ids = face.side("eyebrows", side)
    x_medial, x_lateral = face.xyz[[face.tip(ids, -side), face.tip(ids, side)], 0]
    return [face.outline(ids, x_medial + inward * (x_lateral - x_medial), up) for up in directions]


def canthus(face: Template, side: int, landmarks: tuple[int, int]) -> int:
    """The eye vertex nearest a canthus landmark."""
    return face.snap(face.side("eyes", side), of_side(landmarks, side))


def eye_outline(face: Template, side: int) -> tuple[int, int, int, int]:
    """Medial canthus, lateral canthus, and the lid edges above and below the middle between them."""
    medial, lateral = canthus(face, side, MEDIAL_CANTHUS), canthus(face, side, LATERAL_CANTHUS)
    ids, x = face.side("eyes", side), float(face.xyz[[medial, lateral], 0].mean())
    return medial, lateral, face.outline(ids, x, UP), face.outline(ids, x, DOWN)


def nose_side(face: Template, side: int, outward: float, upward: float) -> int:
    """The nose vertex at a fraction of the nose's half-width and of its height above the base, in the front view."""
    box = face.xyz[face.part("nose")]
    low, high = box.min(axis=0), box.max(axis=0)
    x = (low[0] + high[0]) / 2 + side * outward * (high[0] - low[0]) / 2
    return face.in_front(face.side("nose", side), x, low[1] + upward * (high[1] - low[1]))


def lip_corner(face: Template, side: int, lip: str) -> int:
    """The outermost vertex of a lip."""
    return face.tip(face.side(lip, side), side)


def lip_end(face: Template, side: int, lip: str, direction: int) -> int:
    """The outline vertex of a lip near its end, at ``LIP_END`` of its half-width."""
    x_corner = float(face.xyz[lip_corner(face, side, lip), 0])
    return face.outline(face.side(lip, side), face.midline + LIP_END[lip] * (x_corner - face.midline), direction)


def glabella(face: Template) -> int:
    """The midline vertex of rest at the height of the brows' lower edge at their medial ends."""
    edges = [brow_column(face, side, BROW_END, DOWN)[0] for side in SIDES]
    return face.in_front(face.part("rest"), face.midline, float(face.xyz[edges, 1].mean()))


def lip_rules(lip: str) -> dict[str, PointRule]:
    """The points both lips have."""
    return {
        f"{lip}_corner": paired(lambda f, s: [lip_corner(f, s, lip)]),
        f"{lip}_top": unpaired(lambda f: [f.outline(f.part(lip), f.midline, UP)]),
        f"{lip}_bottom": unpaired(lambda f: [f.outline(f.part(lip), f.midline, DOWN)]),
        f"{lip}_end_top": paired(lambda f, s: [lip_end(f, s, lip, UP)]),
        f"{lip}_end_bottom": paired(lambda f, s: [lip_end(f, s, lip, DOWN)]),
    }


POINT_RULES: Final[dict[str, PointRule]] = {
    "brow_lateral_tip": paired(lambda f, s: [f.tip(f.side("eyebrows", s), s)]),
    "brow_medial_tip": paired(lambda f, s: [f.tip(f.side("eyebrows", s), -s)]),
    "brow_front_top": paired(lambda f, s: brow_column(f, s, BROW_END, UP)),
    "brow_front_bottom": paired(lambda f, s: brow_column(f, s, BROW_END, DOWN)),
    "brow_tail_top": paired(lambda f, s: brow_column(f, s, 1 - BROW_END, UP)),
    "brow_tail_bottom": paired(lambda f, s: brow_column(f, s, 1 - BROW_END, DOWN)),
    "brow_middle": paired(lambda f, s: brow_column(f, s, 0.5, UP, DOWN)),
    "medial_canthus": paired(lambda f, s: [canthus(f, s, MEDIAL_CANTHUS)]),
    "lateral_canthus": paired(lambda f, s: [canthus(f, s, LATERAL_CANTHUS)]),
    "eye_top": paired(lambda f, s: [eye_outline(f, s)[2]]),
    "eye_bottom": paired(lambda f, s: [eye_outline(f, s)[3]]),
    "eye_centre": paired(eye_outline),
    "nose_tip": unpaired(lambda f: [f.snap_to_midline(f.part("nose"), NOSE_TIP)]),
    "nose_tip_side": paired(lambda f, s: [nose_side(f, s, *TIP_SIDE)]),
    "nose_bridge_side": paired(lambda f, s: [nose_side(f, s, *BRIDGE_SIDE)]),
    "bow_peak": paired(lambda f, s: [f.snap(f.side("upper_lip", s), of_side(BOW_PEAK, s))]),
    **lip_rules("upper_lip"),
    **lip_rules("lower_lip"),
    "jaw_angle": paired(lambda f, s: [f.snap(f.side("rest", s), of_side(JAW_ANGLE, s))]),
    "chin": unpaired(lambda f: [f.snap_to_midline(f.part("rest"), CHIN)]),
    "subnasale": unpaired(lambda f: [f.snap_to_midline(f.part("rest"), SUBNASALE)]),
    "glabella": unpaired(lambda f: [glabella(f)]),
    "stomion": unpaired(lambda f: f.landmarks[[INNER_UPPER_LIP, INNER_LOWER_LIP]].tolist()),
}
"""Point name of the catalogue -> the rule that finds it; a rule raises ``Unresolved`` where the template lacks it."""
