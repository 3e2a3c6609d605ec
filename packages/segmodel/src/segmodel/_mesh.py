"""Topology and discrete differential geometry of triangle meshes, as far as this package needs them (numpy, scipy)."""

import hashlib

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Ids = NDArray[np.int64]


def topology_hash(faces: Ids, n_vertices: int) -> str:
    """SHA-256 (hex) of the vertex count in decimals, a colon, and the ``(F, 3)`` faces as little-endian int64."""
    digest = hashlib.sha256(f"{n_vertices}:".encode())
    digest.update(np.ascontiguousarray(faces, dtype="<i8").tobytes())
    return digest.hexdigest()


def boundary_vertices(faces: Ids) -> Ids:
    """Sorted ids of the vertices on edges that exactly one of the ``(F, 3)`` triangles uses."""
    if len(faces) == 0:
        return np.empty(0, np.int64)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


def adjacency(faces: Ids, n_vertices: int) -> sp.csr_matrix:
    """Boolean ``(V, V)`` vertex adjacency of the ``(F, 3)`` triangles."""
    i = faces[:, [0, 1, 2]].ravel()
    j = faces[:, [1, 2, 0]].ravel()
    one_way = sp.coo_matrix((np.ones(len(i), bool), (i, j)), shape=(n_vertices, n_vertices)).tocsr()
    return (one_way + one_way.T).astype(bool)


def component_ids(faces: Ids, n_vertices: int) -> NDArray[np.int32]:
    """Connected-component number of every vertex, ``(V,)``; a vertex in no face is its own component."""
    return connected_components(adjacency(faces, n_vertices), directed=False)[1]


def submesh(faces: Ids, inside: NDArray[np.bool_]) -> Ids:
    """The triangles whose three vertices are all ``inside`` (a ``(V,)`` mask); vertex numbers are kept."""
    return faces[inside[faces].all(axis=1)]


def renumber(faces: Ids, vertex_ids: Ids, n_vertices: int) -> Ids:
    """The same triangles with vertex ``vertex_ids[i]`` called ``i``."""
    local = np.full(n_vertices, -1, np.int64)
    local[vertex_ids] = np.arange(len(vertex_ids))
    return local[faces]


def cotangent_laplacian(vertices: NDArray[np.floating], faces: Ids) -> sp.csr_matrix:
    """Row-normalised cotangent Laplacian ``I - D^-1 W`` of ``vertices (n, 3)``, shape ``(n, n)`` float64.

    ``W_ij = (cot a + cot b) / 2`` clamped to be non-negative (Pinkall and Polthier 1993). The row of a vertex without
    a positive weight is zero, so such a vertex carries no smoothness at all.
    """
    points = np.asarray(vertices, np.float64)
    n = len(points)
    rows, columns, weights = [], [], []
    for corner in range(3):
        apex, i, j = faces[:, corner], faces[:, (corner + 1) % 3], faces[:, (corner + 2) % 3]
        u, v = points[i] - points[apex], points[j] - points[apex]
        double_area = np.linalg.norm(np.cross(u, v), axis=1)
        cotangent = (u * v).sum(axis=1) / np.maximum(double_area, 1e-12)
        rows += [i, j]
        columns += [j, i]
        weights += [0.5 * cotangent] * 2
    triplets = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    weight = sp.coo_matrix(triplets, shape=(n, n)).tocsr()
    weight.data = np.maximum(weight.data, 0.0)
    degree = np.asarray(weight.sum(axis=1)).ravel()
    connected = degree > 1e-12
    inverse = np.divide(1.0, degree, out=np.zeros(n), where=connected)
    return (sp.diags(connected.astype(np.float64)) - sp.diags(inverse) @ weight).tocsr()
