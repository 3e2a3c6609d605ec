"""Tileable random textures and their look-up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

_SIZE = 256


def fractal_noise(rng: np.random.Generator, exponent: float = 1.0) -> NDArray[np.float32]:
    """Tileable texture (256, 256) float32, mean 0, standard deviation 1, amplitude ``1 / frequency^exponent``."""
    fx, fy = np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE))) * frequency**-exponent
    texture = np.fft.irfft2(spectrum, s=(_SIZE, _SIZE))
    return (texture / texture.std()).astype(np.float32)


def look_up(texture: NDArray[np.float32], u: NDArray[np.floating], v: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bilinear, periodic values (N,) at texel coordinates u, v (N,)."""
    u0, v0 = np.floor(u), np.floor(v)
    a, b = (u - u0).astype(np.float32), (v - v0).astype(np.float32)
    i, j = u0.astype(np.int64) % _SIZE, v0.astype(np.int64) % _SIZE
    i1, j1 = (i + 1) % _SIZE, (j + 1) % _SIZE
    low = texture[i, j] * (1 - a) + texture[i1, j] * a
    high = texture[i, j1] * (1 - a) + texture[i1, j1] * a
    return np.asarray(low * (1 - b) + high * b, np.float32)


@dataclass(frozen=True, eq=False)
class Textures:
    """The random textures of one photograph, from the finest to the smoothest."""

    fine: NDArray[np.float32]
    streak: NDArray[np.float32]
    coarse: NDArray[np.float32]
    cloud: NDArray[np.float32]

    @classmethod
    def sample(cls, seed: int) -> "Textures":
        """Textures of a seed."""
        rng = np.random.default_rng([seed, 21])
        return cls(*(fractal_noise(rng, exponent) for exponent in (0.4, 0.7, 1.3, 2.2)))
