"""Midpoint subdivision of a triangle mesh as a sparse linear map, so that shape bases subdivide like shapes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .face_model import Int64


@dataclass(frozen=True, eq=False)
class Subdivision:
    """A finer mesh and the linear map that carries per-vertex values to it.

    Attributes:
        operator: (V', V) float64 CSR matrix with rows that sum to 1; the first V rows are the identity.
        faces: (F', 3) int64 triangles of the finer mesh, with the winding of the coarse ones.
    """

    operator: sparse.csr_matrix
    faces: Int64

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values (V', ...) at the finer vertices of values (V, ...) at the coarse ones, in the same dtype."""
        flat = np.ascontiguousarray(values).reshape(len(values), -1)
        fine = self.operator.astype(flat.dtype) @ flat
        return fine.reshape(self.operator.shape[0], *values.shape[1:])


def mesh_edges(faces: Int64) -> Int64:
    """The edges (E, 2) int64 of triangles (F, 3), each once, lower id first, in lexicographic order."""
    return np.unique(_sides(faces), axis=0)


def midpoint_subdivision(faces: Int64, n_vertices: int, levels: int = 1) -> Subdivision:
    """Split every triangle into four at its edge midpoints, ``levels`` times.

    The new vertices follow the old ones, one per edge, in lexicographic order of the edge. The surface is unchanged.

    Args:
        faces: (F, 3) int64, 0-based.
        n_vertices: number of vertices V of the coarse mesh.
        levels: how often to split; 0 gives the mesh back.

    Raises:
        ValueError: if ``levels`` is negative or a face names a vertex outside 0..V-1.
    """
    if levels < 0:
        raise ValueError(f"levels must be 0 or more, got {levels}")
    if faces.size and (faces.min() < 0 or faces.max() >= n_vertices):
        raise ValueError(f"faces name vertex {faces.max()} but the mesh has {n_vertices} vertices")
    operator = sparse.identity(n_vertices, format="csr")
    for _ in range(levels):
        step, faces = _split_once(faces, operator.shape[0])
        operator = sparse.csr_matrix(step @ operator)
    return Subdivision(operator, np.asarray(faces, np.int64))


def _split_once(faces: Int64, n_vertices: int) -> tuple[sparse.csr_matrix, Int64]:
    edges, edge_of_side = np.unique(_sides(faces), axis=0, return_inverse=True)
    rows = np.repeat(np.arange(len(edges)), 2)
    midpoints = sparse.csr_matrix((np.full(len(rows), 0.5), (rows, edges.ravel())), (len(edges), n_vertices))
    operator = sparse.vstack([sparse.identity(n_vertices, format="csr"), midpoints], format="csr")
    a, b, c = faces.T
    ab, bc, ca = (edge_of_side.reshape(-1, 3) + n_vertices).T
    split = np.stack([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))], 1)
    return operator, split.reshape(-1, 3)


def _sides(faces: Int64) -> Int64:
    """Sides (3F, 2) of the triangles, lower id first: of each triangle ab, bc, ca."""
    return np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
