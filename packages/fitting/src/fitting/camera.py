"""The pinhole camera, head pose and clip space.

Camera frame: millimetres, right-handed, +x image right, +y up, +z towards the camera, which sits on +z at
``distance``. Image frame: pixels, row 0 on top, pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fitting._pose import is_fast, move

NEAR, FAR = 0.5, 1.5
"""Depth range of clip space as multiples of the camera distance."""


@dataclass(frozen=True)
class Camera:
    """Pinhole camera: ``column = fx * x / depth + cx``, ``row = cy - fy * y / depth``, ``depth = distance - z``.

    ``fx, fy, cx, cy`` are pixels, ``width, height`` whole pixels, ``distance`` millimetres.

    Raises:
        ValueError: a focal length, size or distance is not positive.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distance: float = 1000.0

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "width", "height", "distance"):
            if not getattr(self, name) > 0:
                raise ValueError(f"camera {name} is {getattr(self, name)}; it must be positive")

    @classmethod
    def deep3d(cls, size: int = 224) -> Camera:
        """Camera of Deep3DFaceRecon (Deng et al. 2019): focal length 1015 px at 224 px, 1000 mm away."""
        scale = size / 224
        return cls(1015 * scale, 1015 * scale, size / 2, size / 2, size, size)

    def to_photo(self, scale: Sequence[float], offset: Sequence[float], width: int, height: int) -> Camera:
        """Camera that renders into the original photo of ``width`` x ``height`` pixels.

        The crop this camera belongs to was made by ``crop_xy = photo_xy * scale - offset``; ``scale`` and
        ``offset`` are (2,), x first.
        """
        (sx, sy), (ox, oy) = (tuple(float(value) for value in pair) for pair in (scale, offset))
        if not (sx > 0 and sy > 0):
            raise ValueError(f"crop scale is ({sx}, {sy}); both must be positive")
        return replace(
            self,
            fx=self.fx / sx,
            fy=self.fy / sy,
            cx=(self.cx + ox) / sx,
            cy=(self.cy + oy) / sy,
            width=width,
            height=height,
        )

    def resized(self, factor: float) -> Camera:
        """The same view with ``factor`` times as many pixels along each axis (the size is rounded)."""
        return replace(
            self,
            fx=self.fx * factor,
            fy=self.fy * factor,
            cx=self.cx * factor,
            cy=self.cy * factor,
            width=round(self.width * factor),
            height=round(self.height * factor),
        )


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotation ``Rz(roll) @ Ry(yaw) @ Rx(pitch)`` of column vectors.

    Args:
        angles: (..., 3) pitch, yaw, roll in radians.

    Returns:
        (..., 3, 3) in the dtype of ``angles``; differentiable.
    """
    if angles.shape[-1:] != (3,):
        raise ValueError(f"angles have shape {tuple(angles.shape)}; expected (..., 3): pitch, yaw, roll")
    (cp, cy, cr), (sp, sy, sr) = torch.cos(angles).unbind(-1), torch.sin(angles).unbind(-1)
    rows = (
        (cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp),
        (sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp),
        (-sy, cy * sp, cy * cp),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def apply_pose(vertices: Tensor, angles: Tensor, translation: Tensor) -> Tensor:
    """Bring model-frame vertices into the camera frame: ``X @ R.T + t``.

    Args:
        vertices: (B, V, 3) or (V, 3) mm.
        angles: (B, 3) pitch, yaw, roll in radians.
        translation: (B, 3) mm.

    Returns:
        (B, V, 3) mm; differentiable in every argument.
    """
    rotation = rotation_matrix(angles)
    if is_fast(vertices, rotation, translation):
        return move(vertices, rotation, translation)
    return vertices @ rotation.mT + translation[..., None, :]


def project(vertices: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Project camera-frame vertices.

    Args:
        vertices: (..., V, 3) mm, camera frame.
        camera: the camera.

    Returns:
        pixels (..., V, 2) as (column, row), and depth (..., V) mm along the viewing axis; differentiable.

    Raises:
        ValueError: a vertex is not finite or not in front of the camera.
    """
    depth = camera.distance - vertices[..., 2]
    if not bool((depth > 0).all()):
        count = int((~(depth > 0)).sum())
        raise ValueError(f"{count} vertices are not in front of the camera (depth must be > 0 mm); check the pose")
    column = camera.fx * vertices[..., 0] / depth + camera.cx
    row = camera.cy - camera.fy * vertices[..., 1] / depth
    return torch.stack((column, row), -1), depth


def clip_transform(camera: Camera) -> tuple[Tensor, Tensor]:
    """weight (4, 3) and bias (4,) float64 of the affine map of `clip_positions`: ``X @ weight.T + bias``."""
    near, far, depth = NEAR * camera.distance, FAR * camera.distance, camera.distance
    scale_x, scale_y = 2 / camera.width, 2 / camera.height
    centre_x, centre_y = scale_x * camera.cx - 1, scale_y * camera.cy - 1
    stretch, shift = (far + near) / (far - near), 2 * far * near / (far - near)
    weight = [
        [scale_x * camera.fx, 0, -centre_x],
        [0, -scale_y * camera.fy, -centre_y],
        [0, 0, -stretch],
        [0, 0, -1],
    ]
    bias = [centre_x * depth, centre_y * depth, stretch * depth - shift, depth]
    return torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64)


def clip_positions(vertices: Tensor, camera: Camera) -> Tensor:
    """Homogeneous clip-space positions of camera-frame vertices.

    Follows OpenGL (w > 0 in front, smaller z/w is nearer) except that y is negated, so that row 0 of a
    rendered image is its top. Depths of 0.5 to 1.5 camera distances fill z/w from -1 to 1.

    Args:
        vertices: (..., V, 3) mm, camera frame.
        camera: the camera.

    Returns:
        (..., V, 4); differentiable.
    """
    weight, bias = (tensor.to(vertices) for tensor in clip_transform(camera))
    return torch.nn.functional.linear(vertices, weight, bias)
