"""What all mesh writers share: checks, vertex normals, and writing a file whole or not at all."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from editing.parts import LABEL_IDS


@dataclass(frozen=True)
class CheckedMesh:
    """A mesh fit to be written: float64 ``vertices (V, 3)`` mm, int64 ``faces (F, 3)`` and ``labels (V,)`` or None."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    labels: NDArray[np.int64] | None

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """Unit vertex normals ``(V, 3)``."""
        return vertex_normals(self.vertices, self.faces)


def vertex_normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit vertex normals ``(V, 3)``, area-weighted; +z where a vertex has no triangle with an area."""
    corners = vertices[faces]
    area_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    owner = faces.ravel()
    summed = np.stack([np.bincount(owner, np.repeat(axis, 3), len(vertices)) for axis in area_normals.T], axis=1)
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.where(length > 1e-12, summed / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])


def checked_mesh(vertices: ArrayLike, faces: ArrayLike, labels: ArrayLike | None = None) -> CheckedMesh:
    """The mesh as plain arrays; ValueError with one line where something is wrong."""
    xyz, triangles = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or len(xyz) == 0:
        raise ValueError(f"vertices have shape {xyz.shape}: expected (V, 3)")
    if not np.isfinite(xyz).all():
        raise ValueError("vertices have coordinates that are not finite")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or len(triangles) == 0:
        raise ValueError(f"faces have shape {triangles.shape}: expected (F, 3)")
    if not np.issubdtype(triangles.dtype, np.integer):
        raise ValueError(f"faces are {triangles.dtype}: expected integers")
    if triangles.min() < 0 or triangles.max() >= len(xyz):
        raise ValueError(f"faces run from {triangles.min()} to {triangles.max()}: the mesh has {len(xyz)} vertices")
    return CheckedMesh(xyz, triangles.astype(np.int64), None if labels is None else _checked_labels(labels, len(xyz)))


def _checked_labels(labels: ArrayLike, n_vertices: int) -> NDArray[np.int64]:
    ids = np.asarray(labels)
    if ids.shape != (n_vertices,):
        raise ValueError(f"labels have shape {ids.shape}: expected one id per vertex, ({n_vertices},)")
    if ids.min() < 1 or ids.max() >= len(LABEL_IDS):
        raise ValueError(
            f"labels run from {ids.min()} to {ids.max()}: vertex labels are 1 (rest) to {len(LABEL_IDS) - 1}"
        )
    return ids.astype(np.int64)


def checked_uv(uv: ArrayLike, n_vertices: int | None) -> NDArray[np.float64]:
    """Texture coordinates ``(U, 2)``, v up; one per vertex where a number of vertices is given."""
    coordinates = np.asarray(uv, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != 2 or n_vertices not in (None, len(coordinates)):
        wanted = "(U, 2)" if n_vertices is None else f"({n_vertices}, 2), one per vertex"
        raise ValueError(f"uv has shape {coordinates.shape}: expected {wanted}")
    if not np.isfinite(coordinates).all():
        raise ValueError("uv has coordinates that are not finite")
    return coordinates


def checked_colours(colours: ArrayLike, n_vertices: int) -> NDArray[np.uint8]:
    """Vertex colours ``(V, 3)`` uint8 sRGB; ValueError for anything else."""
    values = np.asarray(colours)
    if values.dtype != np.uint8 or values.shape != (n_vertices, 3):
        raise ValueError(f"vertex_colours are {values.dtype} {values.shape}: expected uint8 {(n_vertices, 3)}")
    return values


def png_bytes(texture: ArrayLike) -> bytes:
    """A texture ``(H, W, 3)`` uint8 RGB as PNG; ValueError for anything else."""
    pixels = np.asarray(texture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"texture is {pixels.dtype} {pixels.shape}: expected uint8 (H, W, 3)")
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file so that readers see the old one or the new one, never half of one."""
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {target.name}: the folder {target.parent} does not exist")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
