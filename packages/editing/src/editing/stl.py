"""Binary STL, for printing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from editing._mesh import checked_mesh, write_atomically
from editing.solid import closed_solid


def export_stl(
    path: str | os.PathLike[str], vertices: ArrayLike, faces: ArrayLike, *, back_wall_mm: float | None = None
) -> Path:
    """Write a mesh as binary STL in mm, which is what slicers take a number without a unit for.

    Args:
        path: file to write; replaced whole or not at all.
        vertices: ``(V, 3)`` mm.
        faces: ``(F, 3)`` 0-based, counter-clockwise seen from outside.
        back_wall_mm: close the open face to a watertight solid whose flat back lies this far behind its rearmost
            vertex (:func:`editing.solid.closed_solid`); None writes the open surface.

    Returns:
        The path written.

    Raises:
        ValueError: arrays that do not fit together, coordinates that are not finite, a missing folder, a distance that
            is not above 0, or a surface that cannot be closed.
    """
    mesh = checked_mesh(vertices, faces)
    points, triangles = mesh.vertices, mesh.faces
    if back_wall_mm is not None:
        points, triangles = closed_solid(points, triangles, back_wall_mm)
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    table = np.zeros(len(corners), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    table["normal"], table["corners"] = normals, corners
    header = b"neo3df face, unit mm, +y up, +z front".ljust(80)  # must not begin with "solid", the mark of text STL
    return write_atomically(path, header + np.uint32(len(table)).astype("<u4").tobytes() + table.tobytes())
