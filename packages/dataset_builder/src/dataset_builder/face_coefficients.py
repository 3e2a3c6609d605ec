"""Coefficients of faces as Deep3DMM's network gives them, in our units and frame, and what they decode to.

Deng, Yang, Xu, Chen, Jia, Tong: "Accurate 3D Face Reconstruction with Weakly-Supervised Learning", CVPR workshops 2019.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .camera import CropCamera, apply_pose
from .face_model import FaceModel, Float32
from .normals import vertex_normals
from .spherical_harmonics import sh_shading

# name, length, in the order of the network's 257 outputs
COEFFICIENT_SLICES = (
    ("identity", 80),
    ("expression", 64),
    ("texture", 80),
    ("angles", 3),
    ("light", 27),
    ("translation", 3),
)
N_COEFFICIENTS = sum(length for _, length in COEFFICIENT_SLICES)

_MM_PER_DM = np.float32(100)
_AMBIENT = np.float32(0.8)  # the network predicts light as a difference from this constant term


@dataclass(frozen=True, eq=False)
class FaceCoefficients:
    """Coefficients of N faces on a face model with the modes of BFM's front crop.

    Attributes:
        identity: (N, 80) float32, standard deviations.
        expression: (N, 64) float32, standard deviations.
        texture: (N, 80) float32, standard deviations.
        angles: (N, 3) float32 pitch, yaw, roll in radians.
        light: (N, 3, 9) float32, spherical harmonics per colour (RGB), the constant term included.
        translation: (N, 3) float32 mm, of the model's origin in the camera frame.
    """

    identity: Float32
    expression: Float32
    texture: Float32
    angles: Float32
    light: Float32
    translation: Float32

    @classmethod
    def from_network(cls, outputs: NDArray[np.floating]) -> "FaceCoefficients":
        """Coefficients of the network's outputs (N, 257), whose translation is in decimetres.

        Raises:
            ValueError: the outputs are not (N, 257) or not finite.
        """
        values = np.asarray(outputs, np.float32)
        if values.ndim != 2 or values.shape[1] != N_COEFFICIENTS:
            raise ValueError(f"network outputs must be (N, {N_COEFFICIENTS}), got {values.shape}")
        finite = np.isfinite(values).all(1)
        if not finite.all():
            raise ValueError(f"the coefficients of face {int(np.argmin(finite))} are not finite; leave that photo out")
        ends = np.cumsum([length for _, length in COEFFICIENT_SLICES])[:-1]
        identity, expression, texture, angles, light, translation = (part.copy() for part in np.split(values, ends, 1))
        light = light.reshape(-1, 3, 9)
        light[..., 0] += _AMBIENT
        return cls(identity, expression, texture, angles, light, translation * _MM_PER_DM)

    def to_network(self) -> Float32:
        """The network's outputs (N, 257) float32, translation in decimetres: the inverse of :meth:`from_network`."""
        light = self.light.copy()
        light[..., 0] -= _AMBIENT
        parts = (self.identity, self.expression, self.texture, self.angles, light.reshape(-1, 27))
        return np.concatenate([*parts, self.translation / _MM_PER_DM], 1)

    def __len__(self) -> int:
        return len(self.identity)

    def neutral(self, model: FaceModel) -> Float32:
        """Neutral shapes (N, V, 3) float32, mm, in the model's own frame."""
        return model.shape(self.identity)

    def posed(self, model: FaceModel) -> Float32:
        """Shapes with expression and pose (N, V, 3) float32, mm, in the camera frame."""
        shape = model.shape(self.identity, self.expression)
        return apply_pose(shape, self.angles, self.translation).astype(np.float32)

    def landmarks(self, model: FaceModel) -> Float32:
        """The 68 landmarks (N, 68, 2) float32 in pixels of the 224 crop."""
        return CropCamera().project(self.posed(model)[:, model.landmarks68]).astype(np.float32)

    def albedo(self, model: FaceModel) -> Float32:
        """Skin colours without light (N, V, 3) float32, RGB in [0, 1]."""
        return model.colours(self.texture)

    def lit_colours(self, model: FaceModel) -> Float32:
        """Skin colours under the estimated light (N, V, 3) float32, RGB; bright skin may exceed 1."""
        normals = np.stack([vertex_normals(vertices, model.faces) for vertices in self.posed(model)])
        return (self.albedo(model) * sh_shading(normals, self.light)).astype(np.float32)
