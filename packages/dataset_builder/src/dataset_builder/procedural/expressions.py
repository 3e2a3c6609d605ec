"""Linear expressions of the procedural face: displacements of the average face, one per named expression, in [0, 1]."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .handles import BROW, Moves, Warp, all_of
from .height import HeightFields, bump, middle_bump, smooth_step
from .outlines import MOUTH_CORNER, Curve

Array = NDArray[np.floating]

EXPRESSIONS = (
    "smile", "blink_left", "blink_right", "jaw_open", "brow_raise", "brow_lower", "pucker", "mouth_frown",
)  # fmt: skip

_SMILE: Moves = {
    "corner": (4.2, 4.0), "mouth_15": (2.4, 1.3), "lip_top_end": (2.2, 1.4), "lip_low_end": (2.4, 1.0),
    "mouth_8": (0.9, 0.1), "bow": (0.7, 0.2), "lip_low_10": (1.1, 0.2), "lip_top": (0, 0.2), "cheek_low": (1.2, 2.4),
    "cheek": (0.2, 1.4), "ala": (0.8, 0.4), "ala_low": (0.5, 0.3), "eye_b1": (0, 0.5), "eye_b2": (0, 0.8),
        "eye_b3": (0, 0.8),
}  # fmt: skip
_RAISE: Moves = all_of(BROW, 0.2, 4.5) | {
    "crease": (0, 1.4), "glabella": (0, 2.2), "forehead": (0, 2.0), "forehead_side": (0, 2.0), "eye_t2": (0, 0.5),
}  # fmt: skip
_LOWER: Moves = {
    "brow_front": (-1.8, -3.2), "brow_t1": (-1.7, -3.2), "brow_b1": (-1.7, -3.0), "brow_t2": (-0.6, -2.4),
    "brow_b2": (-0.6, -2.2), "brow_t3": (0, -0.8), "brow_b3": (0, -0.7), "brow_tail": (0, -0.4), "glabella": (0,
        -1.6),
    "crease": (0, -0.9), "forehead": (0, -0.6),
}  # fmt: skip
_PUCKER: Moves = {
    "corner": (-5.0, 0), "mouth_15": (-3.4, 0), "lip_top_end": (-2.8, 0.6), "lip_low_end": (-2.8, -0.6),
    "mouth_8": (-1.6, 0), "bow": (-1.0, 0.4), "lip_low_10": (-1.6, -0.5), "lip_low": (0, -0.4), "cheek_low": (-1.0,
        0),
}  # fmt: skip
_FROWN: Moves = {
    "corner": (0.4, -3.6), "mouth_15": (0.2, -1.3), "lip_top_end": (0, -1.3), "lip_low_end": (0, -1.3), "chin": (0,
        1.2),
    "lip_low": (0, 0.6), "lip_low_10": (0, 0.2), "mouth": (0, 0.3), "mouth_8": (0, 0.1),
}  # fmt: skip

_LID_TRAVEL = 0.94
_JAW_ANGLE, _JAW_HINGE = 0.168, (5.0, -65.0)


def _height_at(curve: Curve, x: Array) -> Array:
    return np.interp(x, curve.points[:, 0], curve.points[:, 1])


def _blink(fields: HeightFields) -> Array:
    """Upper lid of both eyes down to the lower one, over the eyeball."""
    top = _height_at(fields.outlines.eye_top, fields.x)
    bottom = _height_at(fields.outlines.eye_bottom, fields.x)
    gap = np.maximum(top - bottom, 0.0) * ((fields.x > 18.3) & (fields.x < 40.8))
    share = ((fields.y - bottom) / np.maximum(gap, 1e-9)).clip(0.0, 1.0)
    down = -_LID_TRAVEL * gap * share * smooth_step(fields.y - top, 10.0, 0.0)
    move = np.zeros((len(fields.points), 3))
    move[:, 1] = down
    dy = fields.y - 27.2
    move[:, 2] = -0.045 * ((dy + down) ** 2 - dy**2) * fields.eye_blend()
    return move


def _jaw_open(fields: HeightFields, z: Array, below_mouth: NDArray[np.bool_]) -> Array:
    """Jaw turned about its hinge; the lips part along the slit and stay together at the corners."""
    d = np.maximum(fields.outlines.mouth_height(fields.x) - fields.y, 0.0)
    along = (1 - (fields.x / MOUTH_CORNER[0]).clip(0, 1) ** 2) ** 0.6
    weight = (along + (1 - along) * smooth_step(d, 0.0, 26.0)) * below_mouth
    move = np.zeros((len(fields.points), 3))
    move[:, 1] = -_JAW_ANGLE * np.maximum(z - _JAW_HINGE[1], 0.0) * weight
    move[:, 2] = _JAW_ANGLE * np.minimum(fields.y - _JAW_HINGE[0], 0.0) * weight
    return move


@dataclass(frozen=True)
class ExpressionBasis:
    """Displacements (N, 3, E) in mm per unit, in the order of :data:`EXPRESSIONS`."""

    basis: Array
    names: tuple[str, ...] = EXPRESSIONS


def expression_basis(fields: HeightFields, warp: Warp, below_mouth: NDArray[np.bool_]) -> ExpressionBasis:
    """Displacements of the average face for every expression.

    Args:
        fields: heights at the canonical points.
        warp: handle warp at the same points.
        below_mouth: (N,) bool, points that move with the jaw, the lower side of the mouth slit among them.
    """
    p, z = fields.points, fields.mean()
    blink = _blink(fields)
    left = (p[:, 0] > 0)[:, None]
    lips = bump(p, 0, -33, 18, 9)
    lift = {
        "smile": 2.4 * bump(p, 38, -6, 13, 11) - 2.6 * bump(p, 25, -33, 9, 8) + 1.2 * fields.fold(),
        "brow_raise": 0.5 * middle_bump(p, 58, 40, 6),
        "brow_lower": 1.2 * middle_bump(p, 42, 16, 7) + 0.8 * bump(p, 15, 44, 7, 6),
        "pucker": 3.4 * lips,
        "mouth_frown": 1.0 * middle_bump(p, -56, 12, 8) - 0.8 * bump(p, 25, -36, 8, 7),
    }
    plane = {"smile": _SMILE, "brow_raise": _RAISE, "brow_lower": _LOWER, "pucker": _PUCKER, "mouth_frown": _FROWN}
    moves = {
        "blink_left": blink * left,
        "blink_right": blink * ~left,
        "jaw_open": _jaw_open(fields, z, below_mouth),
        **{name: np.column_stack([warp(plane[name]), lift[name]]) for name in plane},
    }
    return ExpressionBasis(np.stack([moves[name] for name in EXPRESSIONS], axis=-1))
