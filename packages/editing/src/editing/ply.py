"""Stanford PLY, binary little-endian, with part labels for research tools."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing._mesh import checked_colours, checked_mesh, write_atomically


def export_ply(
    path: str | os.PathLike[str],
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    vertex_colours: ArrayLike | None = None,
) -> Path:
    """Write a mesh as binary PLY: x y z (float32 mm), nx ny nz, and per vertex what is given of colour and label.

    Args:
        path: file to write; replaced whole or not at all.
        vertices: ``(V, 3)`` mm; order kept.
        faces: ``(F, 3)`` 0-based.
        labels: ``(V,)`` label ids 1 to 6: a uchar ``label``.
        vertex_colours: ``(V, 3)`` uint8 sRGB: uchar ``red``, ``green`` and ``blue``.

    Returns:
        The path written.

    Raises:
        ValueError: arrays that do not fit together, coordinates that are not finite, a missing folder.
    """
    mesh = checked_mesh(vertices, faces, labels)
    properties = [(axis, "<f4", "float") for axis in ("x", "y", "z", "nx", "ny", "nz")]
    columns: list[NDArray] = [*mesh.vertices.T, *mesh.normals.T]
    if vertex_colours is not None:
        properties += [(name, "u1", "uchar") for name in ("red", "green", "blue")]
        columns += list(checked_colours(vertex_colours, len(mesh.vertices)).T)
    if mesh.labels is not None:
        properties.append(("label", "u1", "uchar"))
        columns.append(mesh.labels)
    table = np.empty(len(mesh.vertices), dtype=[(name, kind) for name, kind, _ in properties])
    for (name, _, _), column in zip(properties, columns, strict=True):
        table[name] = column
    triangles = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("ids", "<i4", 3)])
    triangles["count"], triangles["ids"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment unit mm, +y up, +z front",
        f"element vertex {len(table)}",
        *(f"property {word} {name}" for name, _, word in properties),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return write_atomically(path, ("\n".join(header) + "\n").encode() + table.tobytes() + triangles.tobytes())
