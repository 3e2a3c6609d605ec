"""Binary glTF 2.0 (GLB): metres, +y up, morph targets with names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pygltflib as gltf
from numpy.typing import ArrayLike, NDArray

from editing._mesh import CheckedMesh, checked_mesh, checked_uv, png_bytes, write_atomically
from editing.colours import part_colours

METRES_PER_MM: Final = 1e-3
STILL_MM = 1e-3
"""A morph target leaves out vertices that move less than a micrometre."""


def export_glb(
    path: str | os.PathLike[str],
    vertices: ArrayLike,
    faces: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    vertex_colours: ArrayLike | None = None,
    uv: ArrayLike | None = None,
    texture: ArrayLike | None = None,
    morph_targets: Mapping[str, ArrayLike] | None = None,
    extras: Mapping[str, Any] | None = None,
    name: str = "face",
) -> Path:
    """Write one mesh as GLB: metres baked into the numbers, one primitive, vertex order kept.

    Args:
        path: file to write; replaced whole or not at all.
        vertices: ``(V, 3)`` mm.
        faces: ``(F, 3)`` 0-based.
        labels: ``(V,)`` label ids: vertex colours by part.
        vertex_colours: ``(V, 3)`` uint8 sRGB instead.
        uv: ``(V, 2)``, v up (glTF's v runs down: turned here).
        texture: ``(H, W, 3)`` uint8 RGB, embedded as PNG; needs ``uv``, excludes colours.
        morph_targets: name -> ``(V, 3)`` delta in mm at weight 1; positions only, sparse where few vertices move. Names
            go to ``mesh.extras.targetNames``, which Blender, three.js and Unity read.
        extras: JSON values added to ``asset.extras`` beside the units.
        name: mesh and node name.

    Returns:
        The path written.

    Raises:
        ValueError: arrays that do not fit together, coordinates that are not finite, colours given twice.
    """
    mesh = checked_mesh(vertices, faces, labels)
    colours = _colours(mesh, vertex_colours, texture)
    if texture is not None and uv is None:
        raise ValueError("a texture needs uv: give texture coordinates (V, 2)")
    file = _File()
    attributes = gltf.Attributes(
        POSITION=file.accessor(mesh.vertices * METRES_PER_MM, bounds=True, target=gltf.ARRAY_BUFFER),
        NORMAL=file.accessor(mesh.normals, target=gltf.ARRAY_BUFFER),
    )
    if colours is not None:
        attributes.COLOR_0 = file.accessor(_linear_rgba(colours), target=gltf.ARRAY_BUFFER, normalised=True)
    if uv is not None:
        flipped = checked_uv(uv, len(mesh.vertices)) * (1, -1) + (0, 1)
        attributes.TEXCOORD_0 = file.accessor(flipped, target=gltf.ARRAY_BUFFER)
    primitive = gltf.Primitive(
        attributes=attributes,
        indices=file.accessor(_smallest_uint(mesh.faces.ravel(), len(mesh.vertices)), target=gltf.ELEMENT_ARRAY_BUFFER),
        material=0,
    )
    shape = gltf.Mesh(name=name, primitives=[primitive])
    if morph_targets:
        primitive.targets = [
            gltf.Attributes(POSITION=file.morph(_checked_delta(target, delta, mesh) * METRES_PER_MM))
            for target, delta in morph_targets.items()
        ]
        shape.weights = [0.0] * len(morph_targets)
        shape.extras = {"targetNames": list(morph_targets)}
    file.content.meshes = [shape]
    file.content.materials = [_material(file, texture)]
    file.content.nodes = [gltf.Node(mesh=0, name=name)]
    file.content.scenes, file.content.scene = [gltf.Scene(nodes=[0])], 0
    units = {"unit": "metre", "source_unit": "millimetre", "metres_per_source_unit": METRES_PER_MM}
    file.content.asset = gltf.Asset(generator="neo3df-editing", extras={**units, **(extras or {})})
    return write_atomically(path, file.to_bytes())


class _File:
    """A glTF document that grows by accessors into one binary chunk."""

    def __init__(self) -> None:
        self.content = gltf.GLTF2()
        self._chunk = bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        self._chunk += b"\0" * (-len(self._chunk) % 4)
        view = gltf.BufferView(buffer=0, byteOffset=len(self._chunk), byteLength=len(data), target=target)
        self._chunk += data
        self.content.bufferViews.append(view)
        return len(self.content.bufferViews) - 1

    def accessor(self, values: NDArray, *, target: int, bounds: bool = False, normalised: bool = False) -> int:
        data = values.astype("<f4") if values.dtype.kind == "f" else values
        accessor = _accessor(data, normalised)
        accessor.bufferView = self.view(data.tobytes(), target)
        if bounds:
            accessor.min, accessor.max = data.min(axis=0).tolist(), data.max(axis=0).tolist()
        self.content.accessors.append(accessor)
        return len(self.content.accessors) - 1

    def morph(self, delta: NDArray[np.float64]) -> int:
        """Accessor of ``(V, 3)`` metres, sparse where that is smaller: zeros except at the vertices that move."""
        moving = np.flatnonzero(np.linalg.norm(delta, axis=1) >= STILL_MM * METRES_PER_MM)
        kept = moving if moving.size else np.array([0])  # a sparse accessor needs one entry
        ids = _smallest_uint(kept, len(delta))
        values = np.where(moving.size, delta[kept], 0.0).astype("<f4")
        if ids.nbytes + values.nbytes >= 12 * len(delta):
            return self.accessor(delta, bounds=True, target=gltf.ARRAY_BUFFER)
        accessor = _accessor(np.empty(delta.shape, dtype="<f4"), normalised=False)
        accessor.byteOffset = None  # the schema allows it beside a bufferView only
        accessor.sparse = gltf.Sparse(
            count=len(kept),
            indices=gltf.AccessorSparseIndices(
                bufferView=self.view(ids.tobytes()), componentType=_COMPONENT[ids.dtype.str]
            ),
            values=gltf.AccessorSparseValues(bufferView=self.view(values.tobytes())),
        )
        accessor.min = np.minimum(values.min(axis=0), 0).tolist()
        accessor.max = np.maximum(values.max(axis=0), 0).tolist()
        self.content.accessors.append(accessor)
        return len(self.content.accessors) - 1

    def to_bytes(self) -> bytes:
        self._chunk += b"\0" * (-len(self._chunk) % 4)
        self.content.buffers = [gltf.Buffer(byteLength=len(self._chunk))]
        self.content.set_binary_blob(bytes(self._chunk))
        return b"".join(self.content.save_to_bytes())


_COMPONENT: Final = {"<f4": gltf.FLOAT, "<u2": gltf.UNSIGNED_SHORT, "<u4": gltf.UNSIGNED_INT}
_TYPE: Final = {2: gltf.VEC2, 3: gltf.VEC3, 4: gltf.VEC4}


def _accessor(data: NDArray, normalised: bool) -> gltf.Accessor:
    kind = gltf.SCALAR if data.ndim == 1 else _TYPE[data.shape[1]]
    return gltf.Accessor(componentType=_COMPONENT[data.dtype.str], count=len(data), type=kind, normalized=normalised)


def _smallest_uint(ids: NDArray[np.int64], n_vertices: int) -> NDArray:
    return ids.astype("<u2" if n_vertices < 0xFFFF else "<u4")  # the largest value means primitive restart


def _colours(
    mesh: CheckedMesh, vertex_colours: ArrayLike | None, texture: ArrayLike | None
) -> NDArray[np.uint8] | None:
    if sum(given is not None for given in (mesh.labels, vertex_colours, texture)) > 1:
        raise ValueError("give labels, vertex_colours or a texture, only one: glTF multiplies colours by the texture")
    if mesh.labels is not None:
        return part_colours(mesh.labels)
    if vertex_colours is None:
        return None
    colours = np.asarray(vertex_colours)
    if colours.dtype != np.uint8 or colours.shape != mesh.vertices.shape:
        raise ValueError(f"vertex_colours are {colours.dtype} {colours.shape}: expected uint8 {mesh.vertices.shape}")
    return colours


def _linear_rgba(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """sRGB bytes to linear 16-bit RGBA, as glTF wants COLOR_0 (IEC 61966-2-1)."""
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    rgba = np.concatenate([linear, np.ones((len(linear), 1))], axis=1)
    return np.rint(rgba * 65535).astype("<u2")


def _checked_delta(name: str, delta: ArrayLike, mesh: CheckedMesh) -> NDArray[np.float64]:
    values = np.asarray(delta, dtype=np.float64)
    if values.shape != mesh.vertices.shape:
        raise ValueError(f"morph target {name!r} has shape {values.shape}: expected {mesh.vertices.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"morph target {name!r} is not finite")
    return values


def _material(file: _File, texture: ArrayLike | None) -> gltf.Material:
    surface = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=0.8)
    if texture is not None:
        file.content.images = [gltf.Image(bufferView=file.view(png_bytes(texture)), mimeType="image/png")]
        file.content.textures = [gltf.Texture(source=0)]
        surface.baseColorTexture = gltf.TextureInfo(index=0)
    return gltf.Material(name="skin", pbrMetallicRoughness=surface, doubleSided=True, alphaCutoff=None)
