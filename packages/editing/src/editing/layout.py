"""Texture coordinates with room for what a model's own squeeze together, as eyes where lids were drawn closed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from editing._mesh import checked_mesh, checked_uv

_SQUEEZED = 0.1  # of the median share of texture per area: triangles below need room
_FRONTAL = 0.8  # cosine to +z: what looks elsewhere, as the inside of the nose, needs none
_REACH_MM = 16.0  # of the surroundings that give way


def roomy_uv(vertices: ArrayLike, faces: ArrayLike, uv: ArrayLike) -> NDArray[np.float32]:
    """Texture coordinates that are the model's own, but for more room where they nearly leave something out.

    That is what looks to the front and has less than a tenth of the usual share of the texture. Around it they are
    harmonic on the surface (cotangent weights; Eck et al. 1995), between the coordinates further out and those of the
    mesh's boundary, which stay.

    Args:
        vertices: ``(V, 3)`` mm, the mean face.
        faces: ``(F, 3)``.
        uv: ``(V, 2)``.

    Returns:
        ``(V, 2)`` float32; ``uv`` itself where nothing is squeezed, or where room would fold the texture.

    Raises:
        ValueError: arrays that do not fit together.
    """
    mesh = checked_mesh(vertices, faces)
    own = checked_uv(uv, len(mesh.vertices))
    flat = np.concatenate([own, np.zeros((len(own), 1))], axis=1)
    turn, normals = _normals(flat, mesh.faces)[:, 2], _normals(mesh.vertices, mesh.faces)
    area = np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    share = np.abs(turn) / area
    squeezed = np.unique(mesh.faces[(share < _SQUEEZED * np.median(share)) & (normals[:, 2] > _FRONTAL * area)])
    free = np.zeros(len(own), bool)
    if squeezed.size:
        free = cKDTree(mesh.vertices[squeezed]).query(mesh.vertices)[0] < _REACH_MM
    free[_boundary(mesh.faces)] = False
    if not free.any() or free.all():
        return own.astype(np.float32)
    weights = _cotangents(mesh.vertices, mesh.faces)
    laplacian = sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights
    inner = laplacian[free]
    roomy = own.copy()
    roomy[free] = splu(inner[:, free].tocsc()).solve(-(inner[:, ~free] @ own[~free]))
    turned = _normals(np.concatenate([roomy, np.zeros((len(own), 1))], axis=1), mesh.faces)[:, 2]
    folded = (turned * np.sign(np.median(turn)) <= 0) & free[mesh.faces].any(axis=1)
    return (own if folded.any() else roomy).astype(np.float32)


def _normals(points: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def _boundary(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    sides, count = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True)
    return np.unique(sides[count == 1])


def _cotangents(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> sparse.csr_matrix:
    """Symmetric weights ``(V, V)`` of the edges, kept above 0 so that no vertex leaves the hull of its neighbours."""
    rows, columns, values = [], [], []
    for corner in range(3):
        at, left, right = (faces[:, (corner + step) % 3] for step in range(3))
        a, b = vertices[left] - vertices[at], vertices[right] - vertices[at]
        cotangent = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(np.cross(a, b), axis=1), 1e-9)
        rows += [left, right]
        columns += [right, left]
        values += [cotangent, cotangent]
    shape = (len(vertices), len(vertices))
    summed = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    summed.data = np.maximum(summed.data, 0.05)
    return summed
