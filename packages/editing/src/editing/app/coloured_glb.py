"""A mesh with a colour per vertex as GLB bytes for the browser's scene, quick enough for every move of a slider."""

from __future__ import annotations

import numpy as np
import pygltflib as gltf
from numpy.typing import ArrayLike, NDArray

from editing.app.colouring import linear_light

FACE_SIZE_MM = 1000.0


class ColouredGlb:
    """Writes one topology again and again. Positions stay in mm: this is for a scene, not a file for others."""

    def __init__(self, faces: NDArray[np.integer], n_vertices: int) -> None:
        """Lay the file out once: ``faces (F, 3)``, number of vertices V."""
        # without normals the loader shades flat; with any, viser's browser side computes its own smooth ones
        normals = np.tile(np.array([0, 0, 1], "<f4"), n_vertices).tobytes()
        indices = faces.astype("<u4").tobytes()
        self._constant = indices + normals
        sizes = (len(indices), 12 * n_vertices, 12 * n_vertices, 12 * n_vertices)
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        targets = (gltf.ELEMENT_ARRAY_BUFFER, gltf.ARRAY_BUFFER, gltf.ARRAY_BUFFER, gltf.ARRAY_BUFFER)
        views = [
            gltf.BufferView(buffer=0, byteOffset=start, byteLength=size, target=target)
            for start, size, target in zip(starts[:-1], sizes, targets, strict=True)
        ]
        bounds = {"min": [-FACE_SIZE_MM] * 3, "max": [FACE_SIZE_MM] * 3}
        accessors = [
            gltf.Accessor(bufferView=0, componentType=gltf.UNSIGNED_INT, count=faces.size, type=gltf.SCALAR),
            gltf.Accessor(bufferView=1, componentType=gltf.FLOAT, count=n_vertices, type=gltf.VEC3),
            gltf.Accessor(bufferView=2, componentType=gltf.FLOAT, count=n_vertices, type=gltf.VEC3, **bounds),
            gltf.Accessor(bufferView=3, componentType=gltf.FLOAT, count=n_vertices, type=gltf.VEC3),
        ]
        surface = gltf.Material(
            doubleSided=True, pbrMetallicRoughness=gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=0.8)
        )
        primitive = gltf.Primitive(attributes=gltf.Attributes(NORMAL=1, POSITION=2, COLOR_0=3), indices=0, material=0)
        layout = gltf.GLTF2(
            asset=gltf.Asset(version="2.0"),
            scene=0,
            scenes=[gltf.Scene(nodes=[0])],
            nodes=[gltf.Node(mesh=0)],
            meshes=[gltf.Mesh(primitives=[primitive])],
            materials=[surface],
            accessors=accessors,
            bufferViews=views,
            buffers=[gltf.Buffer(byteLength=starts[-1])],
        )
        text = layout.to_json().encode()
        text += b" " * (-len(text) % 4)
        whole = 12 + 8 + len(text) + 8 + starts[-1]
        self._head = b"glTF" + np.array([2, whole, len(text)], "<u4").tobytes() + b"JSON" + text
        self._head += np.array([starts[-1]], "<u4").tobytes() + b"BIN\0"

    def content(self, vertices: ArrayLike, colours: ArrayLike) -> bytes:
        """The file with ``vertices (V, 3)`` mm and ``colours (V, 3)`` uint8 sRGB."""
        position = np.asarray(vertices, "<f4").tobytes()
        return b"".join((self._head, self._constant, position, linear_light(colours).astype("<f4").tobytes()))
