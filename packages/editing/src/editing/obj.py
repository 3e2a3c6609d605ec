"""Wavefront OBJ and MTL."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing._mesh import CheckedMesh, checked_colours, checked_mesh, checked_uv, png_bytes, write_atomically
from editing.colours import PART_COLOURS
from editing.parts import LABEL_IDS, REGIONS, face_labels

SKIN = "skin"  # material of a mesh without labels


def export_obj(
    path: str | os.PathLike[str],
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    uv: ArrayLike | None = None,
    uv_faces: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    texture: ArrayLike | None = None,
    vertex_colours: ArrayLike | None = None,
    name: str = "face",
) -> Path:
    """Write a mesh as OBJ, in mm, vertex order kept; with labels or a texture also ``<stem>.mtl`` and the picture.

    Args:
        path: file to write; replaced whole or not at all. MTL and PNG are written before it.
        vertices: ``(V, 3)`` mm.
        faces: ``(F, 3)`` 0-based (OBJ counts from 1).
        uv: ``(U, 2)`` texture coordinates, v up; one per vertex unless ``uv_faces`` is given.
        uv_faces: ``(F, 3)`` index into ``uv`` for each corner.
        labels: ``(V,)`` label ids: one group and one material per region, triangles by the majority of their vertices.
        texture: ``(H, W, 3)`` uint8 RGB, written as ``<stem>.png``; needs ``uv``.
        vertex_colours: ``(V, 3)`` uint8 sRGB: three numbers behind each vertex, no standard but widely read.
        name: object name.

    Returns:
        The path written.

    Raises:
        ValueError: arrays that do not fit together, coordinates that are not finite, a missing folder.
    """
    mesh = checked_mesh(vertices, faces, labels)
    corners = _corners(mesh, uv, uv_faces)
    if texture is not None and uv is None:
        raise ValueError("a texture needs uv: give texture coordinates")
    target = Path(path)
    lines = [
        f"# {name}: {len(mesh.vertices)} vertices, {len(mesh.faces)} triangles",
        "# unit: mm, +x to the subject's left, +y up, +z front",
    ]
    if labels is not None or texture is not None:
        _write_materials(target, mesh, texture)
        lines.append(f"mtllib {target.stem}.mtl")
    lines.append(f"o {'_'.join(name.split())}")
    positions = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist()]
    if vertex_colours is not None:
        shares = checked_colours(vertex_colours, len(mesh.vertices)) / 255
        positions = [f"{v} {r:.4f} {g:.4f} {b:.4f}" for v, (r, g, b) in zip(positions, shares.tolist(), strict=True)]
    lines += positions
    if uv is not None:
        lines += [f"vt {u:.9g} {v:.9g}" for u, v in np.asarray(uv, dtype=np.float64).tolist()]
    for group, members in _groups(mesh).items():
        lines.append(f"g {group}")
        if labels is not None or texture is not None:
            lines.append(f"usemtl {group}")
        lines += [f"f {' '.join(triangle)}" for triangle in corners[members].tolist()]
    return write_atomically(target, ("\n".join(lines) + "\n").encode())


def _corners(mesh: CheckedMesh, uv: ArrayLike | None, uv_faces: ArrayLike | None) -> NDArray[np.str_]:
    position = (mesh.faces + 1).astype(str)
    if uv is None:
        if uv_faces is not None:
            raise ValueError("uv_faces without uv: give both")
        return position
    coordinates = checked_uv(uv, len(mesh.vertices) if uv_faces is None else None)
    index = mesh.faces if uv_faces is None else np.asarray(uv_faces)
    if index.shape != mesh.faces.shape or index.min() < 0 or index.max() >= len(coordinates):
        raise ValueError(
            f"uv_faces have shape {index.shape} and run from {index.min()} to {index.max()}: "
            f"expected {mesh.faces.shape} within the {len(coordinates)} of uv"
        )
    return np.char.add(np.char.add(position, "/"), (index + 1).astype(str))


def _groups(mesh: CheckedMesh) -> dict[str, NDArray[np.int64]]:
    if mesh.labels is None:
        return {SKIN: np.arange(len(mesh.faces))}
    owner = face_labels(mesh.labels, mesh.faces)
    members = {region: np.flatnonzero(owner == LABEL_IDS[region]) for region in REGIONS}
    return {region: ids for region, ids in members.items() if ids.size}


def _write_materials(target: Path, mesh: CheckedMesh, texture: ArrayLike | None) -> None:
    if texture is not None:
        write_atomically(target.with_suffix(".png"), png_bytes(texture))
    lines = []
    for group in _groups(mesh):
        colour = (255, 255, 255) if texture is not None else PART_COLOURS[group]
        lines += [f"newmtl {group}", "Kd " + " ".join(f"{c / 255:.4f}" for c in colour), "Ks 0 0 0", "illum 1"]
        if texture is not None:
            lines.append(f"map_Kd {target.stem}.png")
    write_atomically(target.with_suffix(".mtl"), ("\n".join(lines) + "\n").encode())
