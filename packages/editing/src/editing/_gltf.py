"""A glTF document that grows by accessors into one binary chunk."""

from __future__ import annotations

from typing import Final

import numpy as np
import pygltflib as gltf
from numpy.typing import NDArray


class GltfFile:
    """The document ``content`` and its binary chunk; every method that adds something returns its index."""

    def __init__(self) -> None:
        self.content = gltf.GLTF2()
        self._chunk = bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        """Add a buffer view of some bytes, aligned to four."""
        self._chunk += b"\0" * (-len(self._chunk) % 4)
        view = gltf.BufferView(buffer=0, byteOffset=len(self._chunk), byteLength=len(data), target=target)
        self._chunk += data
        self.content.bufferViews.append(view)
        return len(self.content.bufferViews) - 1

    def accessor(self, values: NDArray, *, target: int, bounds: bool = False, normalised: bool = False) -> int:
        """Add an accessor of ``(N,)`` or ``(N, C)`` float, uint16 or uint32 numbers."""
        data = values.astype("<f4") if values.dtype.kind == "f" else values
        accessor = _accessor(data, normalised)
        accessor.bufferView = self.view(data.tobytes(), target)
        if bounds:
            accessor.min, accessor.max = data.min(axis=0).tolist(), data.max(axis=0).tolist()
        return self._add(accessor)

    def delta(self, delta: NDArray[np.float64], still: float) -> int:
        """Add an accessor of ``(V, 3)`` numbers, sparse where that is smaller: zeros where shorter than ``still``."""
        moving = np.flatnonzero(np.linalg.norm(delta, axis=1) >= still)
        kept = moving if moving.size else np.array([0])  # a sparse accessor needs one entry
        ids = smallest_uint(kept, len(delta))
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
        return self._add(accessor)

    def to_bytes(self) -> bytes:
        """The whole file as binary glTF."""
        self._chunk += b"\0" * (-len(self._chunk) % 4)
        self.content.buffers = [gltf.Buffer(byteLength=len(self._chunk))]
        self.content.set_binary_blob(bytes(self._chunk))
        return b"".join(self.content.save_to_bytes())

    def _add(self, accessor: gltf.Accessor) -> int:
        self.content.accessors.append(accessor)
        return len(self.content.accessors) - 1


_COMPONENT: Final = {"<f4": gltf.FLOAT, "<u2": gltf.UNSIGNED_SHORT, "<u4": gltf.UNSIGNED_INT}
_TYPE: Final = {2: gltf.VEC2, 3: gltf.VEC3, 4: gltf.VEC4}


def _accessor(data: NDArray, normalised: bool) -> gltf.Accessor:
    kind = gltf.SCALAR if data.ndim == 1 else _TYPE[data.shape[1]]
    return gltf.Accessor(componentType=_COMPONENT[data.dtype.str], count=len(data), type=kind, normalized=normalised)


def smallest_uint(ids: NDArray[np.int64], n_vertices: int) -> NDArray:
    """Vertex ids as uint16 where they fit, else uint32."""
    return ids.astype("<u2" if n_vertices < 0xFFFF else "<u4")  # the largest value means primitive restart
