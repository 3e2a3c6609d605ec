"""Vertex normals of a triangle mesh."""

import numpy as np
from numpy.typing import NDArray


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals (V, 3) of vertices (V, 3) and faces (F, 3): area-weighted means of the triangles around each vertex.

    They point to the side from which the triangles run counter-clockwise; a vertex without triangles gets zeros.
    """
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    across = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    total = np.stack([np.bincount(faces.ravel(), across[:, axis], len(vertices)) for axis in range(3)], -1)
    return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)
