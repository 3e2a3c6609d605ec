"""A solid from an open face surface: holes closed, the outer rim drawn back to a wall, as a printer needs it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Triangles = NDArray[np.int64]

_FAIR = 0.02
"""Weight of a triangle's squared perimeter beside its area: of triangulations of one area, the one without slivers."""
_SLIVER = 1e-4
"""Area over squared perimeter below which a triangle pays its whole squared perimeter: three points on a line."""


def welded(vertices: Points, faces: Triangles) -> tuple[Points, Triangles]:
    """The used vertices, those of equal float32 position made one, and the triangles that do not vanish by it.

    STL has no vertex ids: whoever reads it does the same, and must find what was closed still closed.
    """
    used, corners = np.unique(faces, return_inverse=True)
    positions = vertices[used].astype(np.float32)
    _, first, owner = np.unique(positions, axis=0, return_index=True, return_inverse=True)
    joined = owner.ravel()[corners.reshape(-1, 3)]
    a, b, c = joined.T
    return vertices[used[first]], joined[(a != b) & (b != c) & (c != a)]


def boundary_loops(faces: Triangles) -> list[Triangles]:
    """Cycles of the boundary in the direction of its triangles; one that touches itself is cut there into simple ones.

    Raises:
        ValueError: a side belongs to more than two triangles, or to two of opposite winding.
    """
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = int(faces.max()) + 1
    key, opposite = sides[:, 0] * n + sides[:, 1], sides[:, 1] * n + sides[:, 0]
    repeated = len(key) - len(np.unique(key))
    if repeated:
        raise ValueError(f"{repeated} edges have triangles of opposite winding or more than two triangles: no surface")
    following: dict[int, list[int]] = {}
    for start, end in sides[~np.isin(key, opposite)].tolist():
        following.setdefault(start, []).append(end)
    loops = []
    while following:
        path = [next(iter(following))]
        while path[-1] in following:
            ends = following[path[-1]]
            vertex = ends.pop()
            if not ends:
                del following[path[-1]]
            if vertex in path:
                start = path.index(vertex)
                loops.append(np.array(path[start:], np.int64))
                del path[start + 1 :]
            else:
                path.append(vertex)
    return loops


def minimum_area_cap(rim: Points, forbidden: NDArray[np.bool_]) -> Triangles:
    """Triangles ``(n - 2, 3)`` that close a cycle of n points with the least area.

    Klincsek (1980) in the plane, Barequet and Sharir (1995) in space.

    Args:
        rim: ``(n, 3)`` in cyclic order; the triangles keep that order.
        forbidden: ``(n, n)`` pairs that must not become an inner edge.

    Raises:
        ValueError: every triangulation needs a forbidden edge.
    """
    n = len(rim)
    cost, apex = np.full((n, n), np.inf), np.zeros((n, n), np.int64)
    cost[np.arange(n - 1), np.arange(1, n)] = 0
    for span in range(2, n):
        first = np.arange(n - span)[:, None]
        middle, last = first + np.arange(1, span), first + span
        total = cost[first, middle] + cost[middle, last] + _weight(rim[first], rim[middle], rim[last])
        best = total.argmin(axis=1)
        ends = first[:, 0], last[:, 0]
        cost[ends] = np.where(forbidden[ends] & (span < n - 1), np.inf, total[np.arange(len(best)), best])
        apex[ends] = middle[np.arange(len(best)), best]
    if not np.isfinite(cost[0, n - 1]):
        raise ValueError(f"a hole of {n} edges cannot be closed: every cap repeats an edge that the surface has")
    triangles, pending = [], [(0, n - 1)]
    while pending:
        i, j = pending.pop()
        if j - i > 1:
            k = int(apex[i, j])
            triangles.append((i, k, j))
            pending += [(i, k), (k, j)]
    return np.array(triangles, np.int64)


def closed_solid(vertices: Points, faces: Triangles, back_wall_mm: float) -> tuple[Points, Triangles]:
    """A watertight solid of an open surface.

    The longest boundary, the outer rim, is drawn straight back to a plane ``back_wall_mm`` behind the rearmost vertex
    and closed there; every other one (mouth, lids, an open eyeball) is closed where it is. A surface that is closed
    already stays as it is.

    Args:
        vertices: ``(V, 3)`` mm.
        faces: ``(F, 3)``, counter-clockwise seen from outside; any number of components.
        back_wall_mm: distance of the plane, above 0.

    Returns:
        vertices, welded, with those of the back behind them, and triangles: every edge between two of one winding.

    Raises:
        ValueError: a distance that is not above 0, or a surface whose edges have more than two triangles.
    """
    if not (np.isfinite(back_wall_mm) and back_wall_mm > 0):
        raise ValueError(f"back_wall_mm is {back_wall_mm}: it must be above 0 mm")
    points, triangles = welded(vertices, faces)
    loops = sorted(boundary_loops(triangles), key=lambda loop: _length(points[loop]), reverse=True)
    for position, loop in enumerate(loops):
        rim = loop[::-1]
        if position == 0:
            points, wall, rim = _wall(points, rim, back_wall_mm)
            triangles = np.concatenate([triangles, wall])
        cap = rim[minimum_area_cap(points[rim], _joined(triangles, rim, len(points)))]
        triangles = np.concatenate([triangles, cap])
    return points, triangles


def _wall(points: Points, rim: Triangles, back_wall_mm: float) -> tuple[Points, Triangles, Triangles]:
    """Points with the rim's copies in the back plane, the wall's triangles, and the rim in the plane."""
    back = points[rim].copy()
    back[:, 2] = points[:, 2].min() - back_wall_mm
    behind = len(points) + np.arange(len(rim))
    a, b, c, d = rim, np.roll(rim, -1), np.roll(behind, -1), behind
    return np.concatenate([points, back]), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]), behind


def _joined(triangles: Triangles, rim: Triangles, n_points: int) -> NDArray[np.bool_]:
    """Which pairs ``(n, n)`` of a rim's vertices a triangle's side joins already."""
    place = np.full(n_points, -1)
    place[rim] = np.arange(len(rim))
    sides = place[triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    sides = sides[(sides >= 0).all(axis=1)]
    joined = np.zeros((len(rim), len(rim)), bool)
    joined[sides[:, 0], sides[:, 1]] = joined[sides[:, 1], sides[:, 0]] = True
    return joined


def _weight(a: Points, b: Points, c: Points) -> NDArray[np.float64]:
    sides = (b - a, c - b, a - c)
    area = np.linalg.norm(np.cross(sides[0], sides[1]), axis=-1) / 2
    perimeter = sum(np.linalg.norm(side, axis=-1) for side in sides)
    return area + np.where(area < _SLIVER * perimeter**2, 1, _FAIR) * perimeter**2


def _length(loop: Points) -> float:
    return float(np.linalg.norm(loop - np.roll(loop, -1, axis=0), axis=1).sum())
