"""Shading under distant light in nine spherical harmonics, in the scale of Deng et al. 2019 (Deep3DFaceRecon).

The idea is that of Ramamoorthi and Hanrahan 2001: a diffuse surface sees only the slow parts of its surroundings. The
factor of each band is the one that the network was trained with, pi, 2 pi / sqrt 3 and 2 pi / sqrt 8, and not the
cosine lobe's pi, 2 pi / 3 and pi / 4; light coefficients are therefore comparable among themselves only.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# Factor of the band times the constant of the basis function.
_BAND0 = np.pi * np.sqrt(1 / (4 * np.pi))
_BAND1 = 2 * np.pi / np.sqrt(3) * np.sqrt(3 / (4 * np.pi))
_BAND2 = 2 * np.pi / np.sqrt(8) * 3 * np.sqrt(5 / (12 * np.pi))


def irradiance_basis(normals: Array) -> Array:
    """The nine functions (..., 9) of unit normals (..., 3), each times the factor of its band.

    Order and signs: 1, -y, z, -x, xy, -yz, 3z^2 - 1, -xz, x^2 - y^2.
    """
    x, y, z = np.moveaxis(np.asarray(normals), -1, 0)
    return np.stack(
        [
            np.full_like(x, _BAND0),
            -_BAND1 * y,
            _BAND1 * z,
            -_BAND1 * x,
            _BAND2 * x * y,
            -_BAND2 * y * z,
            _BAND2 * (3 * z * z - 1) / (2 * np.sqrt(3)),
            -_BAND2 * x * z,
            _BAND2 * (x * x - y * y) / 2,
        ],
        -1,
    )


def sh_shading(normals: Array, light: Array) -> Array:
    """Light (..., V, 3) RGB that a white diffuse surface sends back.

    Args:
        normals: (..., V, 3) unit normals, camera frame.
        light: (..., 3, 9) coefficients per colour.
    """
    return irradiance_basis(normals) @ np.swapaxes(light, -1, -2)
