"""What the deformation needs to know of a triangle mesh: its edges, their weights, its Laplacian and its components."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Weights = Literal["uniform", "cotangent"] | ArrayLike
NAMED_WEIGHTS = ("uniform", "cotangent")

SMALLEST_COTANGENT_WEIGHT = 1e-4  # keeps the Laplacian positive semi-definite on obtuse triangles
LARGEST_COTANGENT = 1e4  # of one corner, so that a sliver cannot drown the rest of the mesh


@dataclass(frozen=True)
class Edges:
    """The undirected edges of a mesh, each once, `start < end`, ordered; `weight` is positive. All have shape (E,)."""

    start: IntArray
    end: IntArray
    weight: FloatArray


def to_numpy(values: Any) -> NDArray[Any]:
    """A NumPy array of an array, a sequence or a tensor on any device."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def check_faces(faces: ArrayLike, n_vertices: int) -> IntArray:
    """`faces` as (F, 3) int64, or ValueError naming the first bad row."""
    array = to_numpy(faces)
    if isinstance(n_vertices, bool) or not isinstance(n_vertices, (int, np.integer)) or n_vertices < 1:
        raise ValueError(f"n_vertices must be a positive integer, got {n_vertices!r}")
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise ValueError(f"faces must be integers of shape (F, 3), got {array.dtype} {array.shape}")
    array = array.astype(np.int64)
    outside = np.flatnonzero(((array < 0) | (array >= n_vertices)).any(axis=1))
    if outside.size:
        row = outside[0]
        raise ValueError(f"face {row} is {array[row].tolist()}, outside 0..{n_vertices - 1}")
    a, b, c = array.T
    repeated = np.flatnonzero((a == b) | (b == c) | (c == a))
    if repeated.size:
        row = repeated[0]
        raise ValueError(f"face {row} repeats a vertex: {array[row].tolist()}; remove it")
    return array


def check_handles(handles: ArrayLike, n_vertices: int) -> IntArray:
    """`handles` as (K,) int64 in the caller's order, or ValueError naming the first bad one."""
    array = to_numpy(handles)
    if array.size == 0:
        raise ValueError("handles is empty: give at least one vertex id, nothing else would place the mesh")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"handles must be vertex ids of shape (K,), got {array.dtype} {array.shape}")
    array = array.astype(np.int64)
    outside = array[(array < 0) | (array >= n_vertices)]
    if outside.size:
        raise ValueError(f"handle vertex {outside[0]} is outside 0..{n_vertices - 1}")
    ids, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"handle vertex {ids[counts > 1][0]} is given more than once")
    return array


def check_shape(name: str, points: ArrayLike, n_points: int) -> FloatArray:
    """One set of points as (n_points, 3) float64, or ValueError."""
    array = to_numpy(points).astype(np.float64)
    if array.shape != (n_points, 3):
        raise ValueError(f"{name} must have shape ({n_points}, 3), got {array.shape}")
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))[0]
        raise ValueError(f"{name} is not finite at vertex {bad}: {array[bad].tolist()}")
    return array


def corner_cotangents(faces: IntArray, rest: FloatArray) -> FloatArray:
    """Cotangent of every corner angle, (F, 3); corners of triangles without area are bounded, not infinite."""
    corners = rest[faces]
    along = np.roll(corners, -1, axis=1) - corners
    across = np.roll(corners, -2, axis=1) - corners
    cosine = np.einsum("fkc,fkc->fk", along, across)
    sine = np.linalg.norm(np.cross(along, across), axis=-1)
    bound = np.abs(cosine) / LARGEST_COTANGENT
    return cosine / np.maximum(np.maximum(sine, bound), np.finfo(np.float64).tiny)


def check_weights(weights: Weights, n_edges: int) -> FloatArray:
    """Given edge weights as (E,) float64, or ValueError naming the first bad one."""
    if getattr(weights, "requires_grad", False):
        raise ValueError("weights requires a gradient, but edge weights are constants: pass weights.detach()")
    array = to_numpy(weights)
    if array.shape != (n_edges,) or array.dtype.kind not in "iuf":
        raise ValueError(
            f"weights must be one number per edge, shape (E={n_edges},) in the order of mesh_edges, "
            f"got {array.dtype} {array.shape}"
        )
    array = array.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if bad.size:
        raise ValueError(f"weights must be positive and finite, edge {bad[0]} has {array[bad[0]]}")
    return array


def weighted_edges(faces: IntArray, n_vertices: int, weights: Weights, rest: ArrayLike | None = None) -> Edges:
    """Edges of checked faces; every triangle adds 1/2 (uniform) or half a cotangent to each side, unless given."""
    if isinstance(weights, str) and weights not in NAMED_WEIGHTS:
        raise ValueError(f'weights must be "uniform", "cotangent" or one positive number per edge, got {weights!r}')
    sides = np.sort(np.stack([np.roll(faces, -1, axis=1), np.roll(faces, -2, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    keys, side_to_edge = np.unique(sides[:, 0] * n_vertices + sides[:, 1], return_inverse=True)
    weight: FloatArray
    if not isinstance(weights, str):
        weight = check_weights(weights, keys.size)
    elif weights == "cotangent":
        if rest is None:
            raise ValueError('weights="cotangent" needs rest, the (V, 3) shape whose angles give the weights')
        halves = corner_cotangents(faces, check_shape("rest", rest, n_vertices)) / 2
        summed = np.bincount(side_to_edge.ravel(), weights=halves.ravel(), minlength=keys.size)
        weight = np.maximum(summed, SMALLEST_COTANGENT_WEIGHT)
    else:
        weight = np.bincount(side_to_edge.ravel(), minlength=keys.size).astype(np.float64) / 2
    return Edges(start=keys // n_vertices, end=keys % n_vertices, weight=weight)


def mesh_edges(faces: ArrayLike, n_vertices: int) -> IntArray:
    """The undirected edges of a triangle mesh, in the order in which edge weights are given.

    Args:
        faces: (F, 3) vertex ids.
        n_vertices: V.

    Returns:
        (E, 2) int64, each edge once with the smaller id first, sorted by the first and then by the second id.

    Raises:
        ValueError: bad shape or index, or a face that repeats a vertex.
    """
    edges = weighted_edges(check_faces(faces, n_vertices), n_vertices, "uniform")
    return np.stack([edges.start, edges.end], axis=1)


def edge_laplacian(edges: Edges, n_vertices: int) -> sp.csr_matrix:
    """L = D - A of weighted edges, (V, V) float64, rows summing to zero."""
    rows = np.concatenate([edges.start, edges.end])
    columns = np.concatenate([edges.end, edges.start])
    adjacency = sp.coo_matrix((np.tile(edges.weight, 2), (rows, columns)), shape=(n_vertices, n_vertices)).tocsr()
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    return (sp.diags(degree) - adjacency).tocsr()


def laplacian(
    faces: ArrayLike, n_vertices: int, *, weights: Weights = "uniform", rest: ArrayLike | None = None
) -> sp.csr_matrix:
    """Graph Laplacian L = D - A of a triangle mesh.

    Args:
        faces: (F, 3) vertex ids.
        n_vertices: V; vertices in no face get an empty row.
        weights: "uniform" counts 1/2 for every triangle side, so 1 on interior and 1/2 on boundary edges;
            "cotangent" is half the sum of the opposite cotangents (Pinkall and Polthier 1993); the cotangents of
            slivers are cut to +-1e4 and weights below 1e-4, as of obtuse angles, are raised to it, so that all are
            positive whatever the triangles; or (E,) positive numbers in the order of `mesh_edges`.
        rest: (V, 3), needed for cotangent weights only.

    Returns:
        (V, V) float64 CSR matrix, symmetric and positive semi-definite.

    Raises:
        ValueError: bad shape, index or weights, or a rest shape that is missing or not finite.
    """
    checked = check_faces(faces, n_vertices)
    return edge_laplacian(weighted_edges(checked, n_vertices, weights, rest), n_vertices)


def check_every_component_is_held(edges: Edges, handles: IntArray, n_vertices: int) -> None:
    """ValueError if vertices that are joined by edges have no handle among them: nothing would place them."""
    graph = sp.coo_matrix((edges.weight, (edges.start, edges.end)), shape=(n_vertices, n_vertices))
    _, component = sp.csgraph.connected_components(graph, directed=False)
    in_a_face = np.zeros(n_vertices, dtype=bool)
    in_a_face[edges.start] = in_a_face[edges.end] = True
    loose = np.flatnonzero(in_a_face & ~np.isin(component, component[handles]))
    if loose.size:
        raise ValueError(
            f"{loose.size} vertices are connected to no handle (for example vertex {loose[0]}): "
            "give their component a handle or remove its faces"
        )
