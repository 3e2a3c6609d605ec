"""Caps over the lid openings of a face mesh: the visible eye as an ordinary part of the surface.

A cap is a few rings shrinking to a centre, each point an affine combination of the rim, so that shape bases extend to
the cap and the eye follows the lids under identity and blink.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .face_model import Int64


@dataclass(frozen=True, eq=False)
class Cap:
    """Vertices and triangles that close one hole.

    Attributes:
        weights: (C, V) float64 CSR, the cap's new vertices as affine combinations of the mesh's vertices: ring by
            ring from the rim inwards, the centre last.
        faces: (F, 3) int64; ids below V are mesh vertices, V + i is the i-th new vertex of this cap.
    """

    weights: sparse.csr_matrix
    faces: Int64


def boundary_loops(faces: Int64) -> list[Int64]:
    """Vertex cycles of the mesh boundary, longest first.

    Each cycle (n,) int64 follows the direction of the boundary's triangle sides and starts at its lowest id.

    Raises:
        ValueError: if the boundary touches itself at a vertex, so that it has no single next one.
    """
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = int(faces.max()) + 1
    key, opposite = sides[:, 0] * n + sides[:, 1], sides[:, 1] * n + sides[:, 0]
    boundary = sides[~np.isin(key, opposite)]
    following = dict(boundary.tolist())
    if len(following) != len(boundary):
        raise ValueError("the mesh boundary touches itself at a vertex; its loops are not simple")
    loops = []
    while following:
        start = min(following)
        loop = [start]
        while (vertex := following.pop(loop[-1])) != start:
            loop.append(vertex)
        loops.append(np.array(loop, np.int64))
    return sorted(loops, key=len, reverse=True)


def cap_hole(rim: Int64, n_vertices: int, rings: int = 3) -> Cap:
    """Close the hole with boundary cycle ``rim`` (n,) by ``rings`` rings, n points each, and a centre.

    Ring j of m lies at ``1 - j / (m + 1)`` of the way from the rim's centroid to the rim. The winding continues that
    of the mesh around the hole, if ``rim`` comes from :func:`boundary_loops`.

    Raises:
        ValueError: if the rim has fewer than 3 vertices or ``rings`` is negative.
    """
    n = len(rim)
    if n < 3 or rings < 0:
        raise ValueError(f"a cap needs a rim of 3 or more vertices and 0 or more rings, got {n} and {rings}")
    shrink = 1 - np.arange(1, rings + 1) / (rings + 1)
    pick = sparse.csr_matrix((np.ones(n), (np.arange(n), rim)), (n, n_vertices))
    mean = sparse.csr_matrix((np.full(n, 1 / n), (np.zeros(n, np.int64), rim)), (1, n_vertices))
    spread = sparse.csr_matrix(np.ones((n, 1))) @ mean
    weights = sparse.vstack([*(s * pick + (1 - s) * spread for s in shrink), mean], format="csr")

    circles = np.vstack([rim[None], n_vertices + np.arange(rings * n).reshape(rings, n)])
    here, ahead = circles, np.roll(circles, -1, axis=1)
    faces = [np.stack([ahead[-1], here[-1], np.full(n, n_vertices + rings * n)], -1)]
    for outer, outer_next, inner, inner_next in zip(here[:-1], ahead[:-1], here[1:], ahead[1:], strict=True):
        faces.append(np.stack([outer_next, outer, inner], -1))
        faces.append(np.stack([outer_next, inner, inner_next], -1))
    return Cap(weights, np.concatenate(faces))
