"""Pose and perspective camera in NumPy: where a point of the face falls in the 224-pixel crop.

The same convention as Deng et al. 2019 (Deep3DFaceRecon), in millimetres: ``X_cam = X R^T + t`` with
``R = R_z R_y R_x``, camera on +z at 1000 mm, focal length 1015 px and principal point (112, 112) at 224 px.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class CropCamera:
    """Pinhole camera of the square crop: focal length and centre in pixels, distance in mm, size in pixels."""

    focal: float = 1015.0
    centre: float = 112.0
    distance: float = 1000.0
    size: int = 224

    @classmethod
    def of_size(cls, size: int) -> "CropCamera":
        """The crop's camera at another resolution (``size`` pixels a side)."""
        return cls(1015.0 * size / 224, size / 2, 1000.0, size)

    def project(self, points: Array) -> Array:
        """Pixels (..., 2) (column, row) of camera-frame points (..., 3) in mm."""
        depth = self.distance - points[..., 2]
        column = self.centre + self.focal * points[..., 0] / depth
        row = self.centre - self.focal * points[..., 1] / depth
        return np.stack([column, row], -1)


def rotation_matrix(angles: Array) -> Array:
    """Rotations (..., 3, 3), ``R_z R_y R_x``, of angles (..., 3) = (pitch, yaw, roll) in radians."""
    (sx, sy, sz), (cx, cy, cz) = (np.moveaxis(f(np.asarray(angles)), -1, 0) for f in (np.sin, np.cos))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def apply_pose(vertices: Array, angles: Array, translation: Array) -> Array:
    """Camera-frame points (..., V, 3) in mm; `angles` (..., 3) in radians, `translation` (..., 3) in mm."""
    return vertices @ np.swapaxes(rotation_matrix(angles), -1, -2) + np.asarray(translation)[..., None, :]
