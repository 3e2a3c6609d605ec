"""What a synthetic photograph looks like apart from the shape: skin, hair, eyes, light, background."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_SKIN = np.array(
    [[238, 204, 184], [228, 186, 160], [212, 164, 132], [184, 134, 102], [142, 96, 70], [100, 66, 50]], float
)
_HAIR = np.array(
    [[28, 22, 20], [44, 30, 22], [74, 48, 30], [112, 76, 44], [168, 128, 78], [120, 56, 30], [150, 148, 146]], float
)
_IRIS = np.array([[70, 44, 24], [92, 62, 34], [110, 90, 52], [92, 112, 84], [88, 120, 146], [120, 132, 140]], float)


def to_linear(colour: Array) -> Array:
    """Linear light of display values 0..255 (gamma 2.2)."""
    return np.asarray((np.asarray(colour, float) / 255) ** 2.2)


@dataclass(frozen=True)
class Hair:
    """Shape of the hair, in mm of the face frame.

    Attributes:
        hairline: y of the front hairline.
        thickness: of the hair over the skull.
        bottom: y where the hair ends at the sides and the back.
        opening: angle in radians at the sides up to which the face is free.
        parting: sideways shift of the front hairline, radians.
    """

    hairline: float
    thickness: float
    bottom: float
    opening: float
    parting: float


@dataclass(frozen=True)
class Appearance:
    """Colours are linear RGB (3,).

    Attributes:
        skin, lips, hair_colour, iris, cloth: base colours.
        redness: of cheeks, nose and ears, 0..1.
        lip_strength: how far the lips differ from the skin, 0..1.
        brow_density: opacity of the eyebrows, 0..1.
        beard: opacity of beard stubble, 0..1.
        freckles: strength of spots and unevenness of the skin, 0..1.
        oiliness: strength of the highlights.
        hair: shape of the hair, or None for a shaved head.
        gaze: (2,) mm, shift of the irises.
        key_direction: (3,) unit vector towards the main light, camera frame.
        key_colour, ambient: (3,) strength of the main light and of the light from everywhere.
        ambient_tilt: (3, 3) linear change of the ambient light along x, y, z for each colour.
        background: (2, 3) two colours blended by noise.
        noise: standard deviation of sensor noise, grey levels.
        seed: of all textures.
    """

    skin: Array
    lips: Array
    hair_colour: Array
    iris: Array
    cloth: Array
    redness: float
    lip_strength: float
    brow_density: float
    beard: float
    freckles: float
    oiliness: float
    hair: Hair | None
    gaze: Array
    key_direction: Array
    key_colour: Array
    ambient: Array
    ambient_tilt: Array
    background: Array
    noise: float
    seed: int


def _between(palette: Array, at: float) -> Array:
    low = int(min(at, len(palette) - 2))
    return np.asarray(palette[low] + (at - low) * (palette[low + 1] - palette[low]))


def _muted(rng: np.random.Generator, saturation: float, low: float, high: float) -> Array:
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    value = rng.uniform(low, high)
    return np.asarray(value * (1 - rng.uniform(0, saturation) * (0.5 - 0.5 * np.cos(hue))) * 255)


def _sample_hair(rng: np.random.Generator) -> Hair | None:
    style = rng.choice(["short", "bob", "long", "shaved"], p=[0.5, 0.16, 0.29, 0.05])
    if style == "shaved":
        return None
    bottom = {"short": rng.uniform(6, 22), "bob": rng.uniform(-75, -30), "long": rng.uniform(-190, -120)}[style]
    thickness = rng.uniform(5, 12) if style == "short" else rng.uniform(8, 14)
    opening = rng.uniform(1.14, 1.32) if style == "short" else rng.uniform(1.12, 1.36)
    return Hair(rng.uniform(71, 89), thickness, float(bottom), opening, rng.uniform(-0.25, 0.25))


def sample_appearance(seed: int) -> Appearance:
    """Random appearance; the same ``seed`` gives the same one, independent of any shape."""
    rng = np.random.default_rng([seed, 11])
    tone = rng.uniform(0, len(_SKIN) - 1)
    skin = _between(_SKIN, tone) * (1 + rng.normal(0, 0.02) + rng.normal(0, 0.012) * np.array([-0.5, 0.2, 1.0]))
    dark = tone / (len(_SKIN) - 1)
    lips = skin * [0.86, 0.62, 0.62] + [10, 0, 6]
    painted, stubble = rng.random() < 0.25, rng.random()
    if painted:
        lips = np.array([rng.uniform(130, 190), rng.uniform(30, 80), rng.uniform(50, 90)])
    blond = rng.uniform(0, 1) * (1 - dark)
    hair_colour = _HAIR[int(blond * (len(_HAIR) - 1))] if rng.random() > 0.08 else _HAIR[-1]
    iris = _between(_IRIS, rng.uniform(0, len(_IRIS) - 1) * (1 - dark))
    azimuth, elevation = rng.uniform(-1.0, 1.0), rng.uniform(0.1, 0.85)
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    warmth = 1 + rng.uniform(-0.08, 0.1) * np.array([1, 0.1, -1])
    share = rng.uniform(0.3, 0.62)
    level = rng.uniform(0.66, 0.86) * (1 + 0.6 * dark)
    tint = 1 + rng.uniform(-0.06, 0.06) * np.array([-1, 0, 1])
    return Appearance(
        skin=to_linear(skin.clip(5, 250)),
        lips=to_linear(lips.clip(5, 250)),
        hair_colour=to_linear(hair_colour * rng.uniform(0.85, 1.15)),
        iris=to_linear(iris),
        cloth=to_linear(_muted(rng, 0.6, 0.1, 0.8)),
        redness=rng.uniform(0.15, 0.8) * (1 - 0.7 * dark),
        lip_strength=rng.uniform(0.55, 0.95),
        brow_density=rng.uniform(0.6, 0.95),
        beard=0.0 if painted else float(np.clip((stubble - 0.6) * 2.0, 0, 0.75)),
        freckles=rng.uniform(0.1, 1.0),
        oiliness=rng.uniform(0.4, 1.0) * (1 + 0.8 * dark),
        hair=_sample_hair(rng),
        gaze=rng.normal(0, [0.5, 0.25]),
        key_direction=direction,
        key_colour=level * share * 1.9 * warmth,
        ambient=level * (1 - share) * tint,
        ambient_tilt=rng.normal(0, 0.12, (3, 1)) * np.ones(3) + rng.normal(0, 0.02, (3, 3)) + [[0], [0.18], [0.12]],
        background=np.stack([to_linear(_muted(rng, 0.5, 0.15, 0.95)) for _ in range(2)]),
        noise=rng.uniform(0.8, 2.5),
        seed=seed,
    )
