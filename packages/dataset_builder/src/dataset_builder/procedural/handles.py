"""Handles of the canonical plane: named points that identity and expression move, and the warp between them.

The warp is the thin-plate spline through the handle displacements (Bookstein 1989): linear in them, zero where every
handle rests, so a parameter moves its own handles and the others stay pinned.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Array = NDArray[np.floating]
Moves = Mapping[str, tuple[float, float]]

HANDLES: dict[str, tuple[float, float]] = {
    # eyebrow: front, top and bottom rows from the middle outwards, tail
    "brow_front": (15.6, 44.6), "brow_t1": (18.9, 47.2), "brow_b1": (19.4, 42.2), "brow_t2": (36, 49),
    "brow_b2": (36, 43.3), "brow_t3": (49.7, 44.7), "brow_b3": (49.2, 40.6), "brow_tail": (52.7, 41.4),
    # eye: inner corner, upper lid, outer corner, lower lid; crease and socket around it
    "eye_in": (18.3, 25.6), "eye_t1": (24.5, 30.2), "eye_t2": (29.5, 30.95), "eye_t3": (34.5, 30.2),
    "eye_out": (40.8, 26.4), "eye_b1": (24.5, 24.3), "eye_b2": (29.5, 23.85), "eye_b3": (34.5, 24),
    "crease": (29.5, 36.0), "socket": (30, 14),
    # nose
    "sellion": (0, 34), "nose_12": (7.3, 27), "bridge": (0, 18), "bridge_side": (8.9, 20), "nose_mid": (10.4, 12),
        "tip": (0, -3.7),
    "tip_side": (6.4, 0), "ala_top": (16.4, 0), "ala": (18, -4.5), "ala_low": (14, -12.4), "nose_base": (0, -13.6),
    # lips
    "philtrum": (0, -20.5), "lip_top": (0, -27.5), "bow": (6, -26.4), "lip_top_end": (15, -28.7), "corner": (23.5,
        -33.2),
    "mouth": (0, -33.6), "mouth_8": (8, -33.2), "mouth_15": (15, -33.3), "lip_low": (0, -40.5), "lip_low_10": (10,
        -39.7),
    "lip_low_end": (15, -38.1),
    # face
    "glabella": (0, 42), "forehead": (0, 62), "forehead_side": (38, 62), "temple": (60, 28), "cheek": (50, 2),
    "cheek_low": (42, -22), "jaw": (52, -42), "chin": (0, -58), "chin_side": (24, -58),
    # rim
    "rim_top": (0, 87), "rim_42": (42, 75), "rim_67": (67, 43), "rim_73": (73, 10), "rim_69": (69, -25),
    "rim_63": (63, -42), "rim_53": (53, -57), "rim_39": (39, -69.5), "rim_21": (21, -77.5), "rim_chin": (0, -80.5),
}  # fmt: skip

BROW = tuple(name for name in HANDLES if name.startswith("brow_"))
EYE = tuple(name for name in HANDLES if name.startswith("eye_"))
LIP_UPPER = ("lip_top", "bow", "lip_top_end")
LIP_LINE = ("corner", "mouth", "mouth_8", "mouth_15")
LIP_LOWER = ("lip_low", "lip_low_10", "lip_low_end")
LIPS = LIP_UPPER + LIP_LINE + LIP_LOWER
FACE = tuple(HANDLES)[tuple(HANDLES).index("glabella") :]


def all_of(names: tuple[str, ...], dx: float, dy: float) -> dict[str, tuple[float, float]]:
    """The same move for several handles."""
    return dict.fromkeys(names, (dx, dy))


class Warp:
    """Displacement of canonical points by moved handles.

    Args:
        points: (N, 2) canonical points, mm.
    """

    def __init__(self, points: Array) -> None:
        half = np.array(list(HANDLES.values()), float)
        paired = half[:, 0] > 0
        sites = np.concatenate([half, half[paired] * [-1, 1]])
        cardinal = RBFInterpolator(sites, np.eye(len(sites)), kernel="thin_plate_spline")(points)
        n = len(half)
        self._right = np.asarray(cardinal[:, :n])
        self._left = np.zeros_like(self._right)
        self._left[:, paired] = cardinal[:, n:]

    def __call__(self, moves: Moves, sides: str = "both") -> Array:
        """Displacements (N, 2) mm for mm moves of handles of the half x >= 0, mirrored to the other side.

        Args:
            moves: handle name -> (dx, dy); dx is outwards on both sides.
            sides: ``"both"``, ``"left"`` (the subject's, x > 0), ``"right"`` or ``"opposite"`` (the two sides move
                against each other in y, and together in x).
        """
        delta = np.zeros((len(HANDLES), 2))
        names = list(HANDLES)
        for name, move in moves.items():
            delta[names.index(name)] = move
        left, right = {"both": (1, 1), "left": (1, 0), "right": (0, 1), "opposite": (1, -1)}[sides]
        return self._right @ (delta * left) + self._left @ (delta * right * [-1, 1])
