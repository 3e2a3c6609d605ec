"""Binary glTF 2.0 (GLB): metres, +y up, morph targets with names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pygltflib as gltf
from numpy.typing import ArrayLike, NDArray

from editing._gltf import GltfFile, smallest_uint
from editing._mesh import (
    CheckedMesh,
    checked_colours,
    checked_mesh,
    checked_uv,
    png_bytes,
    vertex_normals,
    write_atomically,
)
from editing.colours import part_colours

METRES_PER_MM: Final = 1e-3
STILL_MM: Final = 1e-3
"""A morph target leaves out vertices that move less than a micrometre."""
STILL_NORMAL: Final = 1e-2
"""... and normals that turn by less than half a degree."""


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
        morph_targets: name -> ``(V, 3)`` delta in mm at weight 1; sparse where few vertices move. Normals turn with
            them, to first order: a viewer does not compute them anew, and a wide nose would be lit as a narrow one.
            Names go to ``mesh.extras.targetNames``, which Blender, three.js and Unity read.
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
    file = GltfFile()
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
        indices=file.accessor(smallest_uint(mesh.faces.ravel(), len(mesh.vertices)), target=gltf.ELEMENT_ARRAY_BUFFER),
        material=0,
    )
    shape = gltf.Mesh(name=name, primitives=[primitive])
    if morph_targets:
        primitive.targets = [
            _morph_target(file, mesh, _checked_delta(target, delta, mesh)) for target, delta in morph_targets.items()
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


def _colours(
    mesh: CheckedMesh, vertex_colours: ArrayLike | None, texture: ArrayLike | None
) -> NDArray[np.uint8] | None:
    if sum(given is not None for given in (mesh.labels, vertex_colours, texture)) > 1:
        raise ValueError("give labels, vertex_colours or a texture, only one: glTF multiplies colours by the texture")
    if mesh.labels is not None:
        return part_colours(mesh.labels)
    if vertex_colours is None:
        return None
    return checked_colours(vertex_colours, len(mesh.vertices))


def _linear_rgba(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """sRGB bytes to linear 16-bit RGBA, as glTF wants COLOR_0 (IEC 61966-2-1)."""
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    rgba = np.concatenate([linear, np.ones((len(linear), 1))], axis=1)
    return np.rint(rgba * 65535).astype("<u2")


def _morph_target(file: GltfFile, mesh: CheckedMesh, delta: NDArray[np.float64]) -> gltf.Attributes:
    turned = vertex_normals(mesh.vertices + delta, mesh.faces) - mesh.normals
    return gltf.Attributes(
        POSITION=file.delta(delta * METRES_PER_MM, STILL_MM * METRES_PER_MM), NORMAL=file.delta(turned, STILL_NORMAL)
    )


def _checked_delta(name: str, delta: ArrayLike, mesh: CheckedMesh) -> NDArray[np.float64]:
    values = np.asarray(delta, dtype=np.float64)
    if values.shape != mesh.vertices.shape:
        raise ValueError(f"morph target {name!r} has shape {values.shape}: expected {mesh.vertices.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"morph target {name!r} is not finite")
    return values


def _material(file: GltfFile, texture: ArrayLike | None) -> gltf.Material:
    surface = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=0.8)
    if texture is not None:
        file.content.images = [gltf.Image(bufferView=file.view(png_bytes(texture)), mimeType="image/png")]
        file.content.textures = [gltf.Texture(source=0)]
        surface.baseColorTexture = gltf.TextureInfo(index=0)
    return gltf.Material(name="skin", pbrMetallicRoughness=surface, doubleSided=True, alphaCutoff=None)
