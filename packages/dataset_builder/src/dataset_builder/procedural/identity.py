"""What makes people differ: named identity parameters, their sizes, and what they have in common.

Each parameter is a standard normal number times a move of handles (in the plane) or a lift (in z). The sizes were tuned
on the spread of the measurements that Yan et al. 2022 edit. Causes such as "nose size" correlate the parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .handles import BROW, EYE, FACE, HANDLES, LIP_LOWER, LIPS, Moves, Warp, all_of
from .height import HeightFields, bump, middle_bump, smooth_step

Array = NDArray[np.floating]
Lift = Callable[[HeightFields], Array]
Field = Callable[[Array, Array], Array]

N_SMOOTH = 8
_WAVES = 3
_CLIP = 2.6


@dataclass(frozen=True)
class Parameter:
    """One way in which faces differ.

    Attributes:
        name: group and what it changes.
        sigma: standard deviation in the unit of ``moves`` and ``lift`` (mm).
        moves: handle -> (dx, dy) per unit, dx outwards.
        lift: z (N,) per unit, or None.
    """

    name: str
    sigma: float
    moves: Moves = field(default_factory=dict)
    lift: Lift | None = None


def _lift_at(x: float, y: float, rx: float, ry: float) -> Lift:
    return lambda f: bump(f.points, x, y, rx, ry)


def _lift_middle(y: float, rx: float, ry: float) -> Lift:
    return lambda f: middle_bump(f.points, y, rx, ry)


def _face_moves(dx: Field | None = None, dy: Field | None = None) -> dict[str, tuple[float, float]]:
    """Moves of every handle outside the parts by smooth functions of (|x|, y), so that the outline stays smooth."""
    sites = np.array([HANDLES[name] for name in FACE], float).T
    zero = np.zeros(len(FACE))
    moves = [zero if f is None else f(*sites) for f in (dx, dy)]
    return {name: (float(moves[0][k]), float(moves[1][k])) for k, name in enumerate(FACE)}


def _row(y: float, radius: float) -> Lift:
    return lambda f: np.exp(-(((f.y - y) / radius) ** 2)) * (0.35 + 0.65 * np.exp(-((f.x / 45) ** 2)))


def _chin_depth(f: HeightFields) -> Array:
    return smooth_step(f.y, -22, -66) * (0.3 + 0.7 * np.exp(-((f.x / 40) ** 2)))


def _eye_depth(f: HeightFields) -> Array:
    return f.eye_blend() * np.exp(-((np.maximum(f.sd_eye, 0) / 9) ** 2))


def _lid_fold(f: HeightFields) -> Array:
    return np.exp(-(((f.sd_eye - 4.2) / 2.2) ** 2)) * smooth_step(f.y, 26.5, 29.5)


def _hump(f: HeightFields) -> Array:
    return middle_bump(f.points, 14, 6, 7)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("brow front thickness", 0.88, {"brow_t1": (0, 0.5), "brow_b1": (0, -0.5)}),
    Parameter("brow middle thickness", 0.5, {"brow_t2": (0, 0.5), "brow_b2": (0, -0.5)}),
    Parameter("brow tail thickness", 0.18, {"brow_t3": (0, 0.5), "brow_b3": (0, -0.5)}),
    Parameter("brow length", 0.95, {"brow_tail": (0.6, 0), "brow_t3": (0.5, 0), "brow_b3": (0.5, 0),
        "brow_front": (-0.5, 0), "brow_t1": (-0.4, 0), "brow_b1": (-0.4, 0)}),
    Parameter("brow curve", 0.2, {"brow_t2": (0, 1), "brow_b2": (0, 1)}),
    Parameter("brow tilt", 0.9, {"brow_front": (0, -1), "brow_t1": (0, -0.9), "brow_b1": (0, -0.9), "brow_t3": (0,
        0.8), "brow_b3": (0, 0.8), "brow_tail": (0, 1)}),
    Parameter("brow height", 1.2, all_of(BROW, 0, 1) | {"crease": (0, 0.5)}),
    Parameter("eye distance", 1.4, all_of((*EYE, "crease"), 0.5, 0) | all_of(BROW, 0.15, 0)),
    Parameter("eye height", 0.95, {"eye_t1": (0, 0.45), "eye_t2": (0, 0.6), "eye_t3": (0, 0.5), "eye_b1": (0,
        -0.3), "eye_b2": (0, -0.4), "eye_b3": (0, -0.35), "crease": (0, 0.5)}),
    Parameter("eye width", 1.05, {"eye_in": (-0.5, 0), "eye_out": (0.5, 0), "eye_t1": (-0.2, 0), "eye_b1": (-0.2,
        0), "eye_t3": (0.2, 0), "eye_b3": (0.2, 0)}),
    Parameter("eye tilt", 0.9, {"eye_in": (0, -0.5), "eye_t1": (0, -0.25), "eye_b1": (0, -0.25), "eye_out": (0,
        0.5), "eye_t3": (0, 0.25), "eye_b3": (0, 0.25)}),
    Parameter("eye y", 1.5, all_of((*EYE, "crease"), 0, 1) | {"nose_12": (0, 0.3), "sellion": (0, 0.3)}
        | all_of(BROW, 0, 0.5)),
    Parameter("lid arch", 0.8, {"eye_t1": (0, 0.5), "eye_t3": (0, -0.5)}),
    Parameter("eye depth", 1.2, lift=_eye_depth),
    Parameter("lid fold", 0.5, lift=_lid_fold),
    Parameter("nose tip y", 1.3, {"tip": (0, 1), "tip_side": (0, 0.8)}),
    Parameter("nose tip z", 3.9, lift=lambda f: f.nose() / 25.4 * smooth_step(f.y, 30, -2)),
    Parameter("nose height", 2.45, {"sellion": (0, 0.38), "nose_12": (0, 0.3), "bridge_side": (0, 0.1), "tip": (0,
        -0.5), "tip_side": (0, -0.5), "ala_top": (0, -0.45), "ala": (0, -0.5), "ala_low": (0, -0.6),
        "nose_base": (0, -0.6), "philtrum": (0, -0.4)} | all_of(LIPS, 0, -0.3)),
    Parameter("nose width", 2.35, {"ala": (0.5, 0), "ala_top": (0.45, 0), "ala_low": (0.4, 0), "nose_mid": (0.1, 0)}),
    Parameter("nose tip width", 0.6, {"tip_side": (0.5, 0)}),
    Parameter("bridge width", 0.5, {"bridge_side": (0.5, 0), "nose_mid": (0.5, 0), "nose_12": (0.35, 0)}),
    Parameter("bridge z", 1.1, lift=_lift_middle(22, 11, 13)),
    Parameter("nose hump", 0.7, lift=_hump),
    Parameter("alae z", 0.8, lift=lambda f: f.alae() / 12.2),
    Parameter("sellion z", 0.9, lift=_lift_middle(33, 13, 8)),
    Parameter("bow width", 0.68, {"bow": (0.5, 0)}),
    Parameter("bow depth", 0.4, {"bow": (0, 0.5), "lip_top": (0, -0.5)}),
    Parameter("upper lip height", 0.95, {"lip_top": (0, 1), "bow": (0, 1), "lip_top_end": (0, 0.35),
        "philtrum": (0, 0.3)}),
    Parameter("upper lip end", 0.58, {"lip_top_end": (0, 1)}),
    Parameter("lower lip height", 0.75, {"lip_low": (0, -1), "lip_low_10": (0, -0.9), "lip_low_end": (0, -0.4)}),
    Parameter("lower lip end", 0.2, {"lip_low_end": (0, -1)}),
    Parameter("mouth width", 3.0, {"corner": (0.5, 0), "lip_top_end": (0.3, 0), "mouth_15": (0.3, 0),
        "mouth_8": (0.15, 0), "lip_low_end": (0.3, 0), "lip_low_10": (0.15, 0)}),
    Parameter("mouth y", 1.3, all_of(LIPS, 0, 1) | {"philtrum": (0, 0.3)}),
    Parameter("mouth corner y", 0.8, {"corner": (0, 1), "mouth_15": (0, 0.3), "lip_top_end": (0, 0.3),
        "lip_low_end": (0, 0.3)}),
    Parameter("upper lip fullness", 0.7, lift=lambda f: f.upper_lip() / 4.9),
    Parameter("lower lip fullness", 0.7, lift=lambda f: f.lower_lip() / 5.0),
    Parameter("mouth z", 1.3, lift=_lift_middle(-32, 24, 11)),
    Parameter("philtrum depth", 0.3, lift=lambda f: bump(f.points, 5.6, -21.5, 2.0,
        5.5) - 2 * middle_bump(f.points, -20.5, 3.0, 6.0)),
    Parameter("face width", 3.9, _face_moves(lambda x,
        y: 0.5 * (x / 73) ** 1.5 * (0.6 + 0.4 * np.exp(-(((y - 8) / 50) ** 2))))),
    Parameter("jaw width", 2.6, _face_moves(lambda x, y: 0.6 * (x / 60) * smooth_step(y, 15,
        -42) * (1 - 0.5 * smooth_step(y, -55, -85)))),
    Parameter("chin width", 2.5, _face_moves(lambda x, y: 0.6 * (x / 30).clip(0, 1) * smooth_step(y, -30, -72))),
    Parameter("cheek width", 1.5, _face_moves(lambda x, y: 0.5 * (x / 70) ** 2 * np.exp(-((y / 30) ** 2)))),
    Parameter("upper height", 3.1, _face_moves(dy=lambda x, y: smooth_step(y, 5, 48) + 0.2 * smooth_step(y, 45,
        76)) | all_of(BROW, 0, 0.5) | all_of(EYE, 0, 0.15) | {"crease": (0, 0.25), "sellion": (0, 0.3),
        "nose_12": (0, 0.15)}),
    Parameter("forehead height", 2.5, _face_moves(dy=lambda x, y: smooth_step(y, 42, 76))),
    Parameter("middle height", 2.1, _face_moves(dy=lambda x, y: -0.8 * smooth_step(y, -8, -50)) | all_of(LIPS, 0,
        -0.9) | {"nose_base": (0, -0.2), "philtrum": (0, -0.6)}),
    Parameter("lower height", 3.1, _face_moves(dy=lambda x, y: -smooth_step(y, -32, -82)) | all_of(LIP_LOWER, 0,
        -0.1)),
    Parameter("upper depth", 1.0, lift=_row(42, 18)),
    Parameter("middle depth", 1.9, lift=_row(-14, 20)),
    Parameter("lower depth", 3.1, lift=_chin_depth),
    Parameter("brow ridge", 0.9, lift=_lift_at(22, 44, 17, 6)),
    Parameter("cheekbone", 1.1, lift=_lift_at(44, 4, 15, 11)),
    Parameter("cheek fat", 1.6, lift=_lift_at(40, -20, 16, 18)),
    Parameter("forehead z", 1.3, lift=_lift_middle(66, 38, 20)),
    Parameter("temple z", 1.2, lift=_lift_at(56, 42, 12, 18)),
    Parameter("fold depth", 0.6, lift=lambda f: f.fold()),
    Parameter("mentolabial depth", 0.8, lift=_lift_middle(-47.5, 15, 4.5)),
    Parameter("chin point", 0.9, lift=_lift_middle(-63, 10, 8)),
    Parameter("jowl", 1.0, lift=_lift_at(34, -52, 13, 11)),
)  # fmt: skip

_CAUSES: tuple[dict[str, float], ...] = (
    # nose size
    {"nose height": 0.5, "nose width": 0.4, "nose tip z": 0.5, "bridge width": 0.3, "nose tip width": 0.4,
        "alae z": 0.3},
    # lip size
    {"upper lip height": 0.6, "lower lip height": 0.6, "upper lip end": 0.5, "lower lip end": 0.5,
        "upper lip fullness": 0.6, "lower lip fullness": 0.6, "bow width": 0.2},
    # masculinity
    {"jaw width": 0.5, "brow ridge": 0.6, "lower height": 0.4, "chin width": 0.5, "nose hump": 0.4,
        "brow height": -0.4, "eye height": -0.3, "lower depth": 0.3, "cheek fat": -0.3,
        "brow middle thickness": 0.4, "brow front thickness": 0.3},
    # weight
    {"cheek fat": 0.6, "face width": 0.5, "jowl": 0.6, "jaw width": 0.4, "temple z": 0.4, "fold depth": 0.3,
        "eye height": -0.2},
    # eye size
    {"eye height": 0.5, "eye width": 0.5, "lid fold": 0.3, "eye distance": 0.2},
    # brow bushiness
    {"brow front thickness": 0.5, "brow middle thickness": 0.5, "brow tail thickness": 0.5, "brow length": 0.3},
    # body size
    {"face width": 0.4, "upper height": 0.4, "lower height": 0.4, "middle height": 0.4, "eye distance": 0.4,
        "mouth width": 0.4, "nose height": 0.3},
)  # fmt: skip
_COMMUNALITY = 0.85


def sample_parameters(n: int, seed: int) -> Array:
    """Correlated standard normal parameters (n, P), named ones first, then the smooth modes; clipped at 2.6."""
    names = [p.name for p in PARAMETERS]
    loadings = np.zeros((len(names), len(_CAUSES)))
    for k, cause in enumerate(_CAUSES):
        for name, value in cause.items():
            loadings[names.index(name), k] = value
    total = (loadings**2).sum(1, keepdims=True)
    loadings *= np.sqrt(np.minimum(1.0, _COMMUNALITY / np.maximum(total, 1e-12)))
    rng = np.random.default_rng([seed, 1])
    common = rng.standard_normal((n, len(_CAUSES)))
    own = rng.standard_normal((n, len(names)))
    named = common @ loadings.T + own * np.sqrt(1 - (loadings**2).sum(1))
    return np.concatenate([named, rng.standard_normal((n, N_SMOOTH))], axis=1).clip(-_CLIP, _CLIP)


def _smooth_modes(points: Array, seed: int) -> Array:
    """Random smooth displacements (8, N, 3): cosines of wavelength 70 to 150 mm, the last two antisymmetric."""
    rng = np.random.default_rng([seed, 2])
    modes = np.zeros((N_SMOOTH, len(points), 3))
    for k in range(N_SMOOTH):
        symmetric = k < N_SMOOTH - 2
        for axis, size in enumerate((0.5, 0.5, 0.8)):
            for _ in range(_WAVES):
                wavelength = rng.uniform(70, 150, 2)
                odd = (axis == 0) == symmetric
                wave_x = (np.sin if odd else np.cos)(2 * np.pi * points[:, 0] / wavelength[0])
                wave_y = np.cos(2 * np.pi * points[:, 1] / wavelength[1] + rng.uniform(0, 2 * np.pi))
                modes[k, :, axis] += size / np.sqrt(_WAVES) * rng.standard_normal() * wave_x * wave_y
    return modes


def parameter_basis(fields: HeightFields, warp: Warp, seed: int) -> Array:
    """Displacements (P, N, 3) mm per standard deviation of every parameter, in the order of the samples."""
    named = np.zeros((len(PARAMETERS), len(fields.points), 3))
    for k, parameter in enumerate(PARAMETERS):
        if parameter.moves:
            named[k, :, :2] = parameter.sigma * warp(parameter.moves)
        if parameter.lift is not None:
            named[k, :, 2] = parameter.sigma * parameter.lift(fields)
    return np.concatenate([named, _smooth_modes(fields.points, seed)])


def interactions(fields: HeightFields, parameters: Array) -> tuple[Array, Array, Array]:
    """Non-linear part of the identity: overall scale (n,), products (n, 2) and their displacements (2, N, 3) mm."""
    column = {p.name: k for k, p in enumerate(PARAMETERS)}
    value = {name: parameters[:, k] for name, k in column.items()}
    scale = 1 + 0.006 * (value["face width"] + value["middle height"])
    products = np.stack([value["nose tip z"] * value["nose height"], value["nose width"] * value["nose tip z"]], axis=1)
    modes = np.zeros((2, len(fields.points), 3))
    modes[0, :, 2] = 0.35 * fields.dorsum() / 25.4
    modes[1, :, 2] = 0.3 * fields.alae() / 12.2
    return scale, products, modes
