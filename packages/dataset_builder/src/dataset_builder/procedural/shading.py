"""Light on surfaces: first-order ambient light, one key light with soft terminator, highlights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .appearance import Appearance

Array = NDArray[np.floating]

_WRAP_SKIN = np.array([0.30, 0.14, 0.08])
_TO_CAMERA = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Surface:
    """Surface samples.

    Attributes:
        albedo: (N, 3) linear colour.
        normal: (N, 3) unit normals, camera frame.
        occlusion: (N,) share of the ambient light that arrives.
        lit: (N,) share of the key light that arrives.
        gloss: (N,) strength of the highlights.
        wrap: how far light creeps past the terminator, per colour (3,).
    """

    albedo: Array
    normal: Array
    occlusion: Array
    lit: Array
    gloss: Array
    wrap: Array


def skin_wrap() -> Array:
    """Wrap of skin: red light scatters farthest below the surface."""
    return _WRAP_SKIN


def shade(surface: Surface, look: Appearance) -> NDArray[np.floating]:
    """Linear light (N, 3) that reaches the camera."""
    n = surface.normal
    ambient = look.ambient * np.maximum(1 + n @ look.ambient_tilt, 0.1) * surface.occlusion[:, None]
    facing = n @ look.key_direction
    diffuse = ((facing[:, None] + surface.wrap) / (1 + surface.wrap)).clip(0, 1)
    key = look.key_colour * diffuse * surface.lit[:, None]
    half = look.key_direction + _TO_CAMERA
    cosine = (n @ (half / np.linalg.norm(half))).clip(0, 1)
    graze = np.square(np.square(1 - (n @ _TO_CAMERA).clip(0, 1)))
    broad = np.square(np.square(cosine)) * np.square(np.square(np.square(cosine)))
    sheen = (0.030 * broad + 0.045 * np.square(np.square(broad))) * (facing > 0) * surface.lit
    highlight = surface.gloss[:, None] * (
        look.key_colour * sheen[:, None] + look.ambient * (0.03 * graze * surface.occlusion)[:, None]
    )
    return np.asarray(surface.albedo * (ambient + key) + highlight)
