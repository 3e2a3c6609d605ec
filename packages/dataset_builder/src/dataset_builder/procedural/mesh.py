"""The mesh of the canonical plane: graded, mirror-symmetric, its edges running along every part outline.

The half x >= 0 is meshed with springs (DistMesh, Persson and Strang 2004) in chart coordinates and mirrored. Outline
points are fixed; free points are kept out of the circle over every outline segment, so that the Delaunay triangulation
holds each segment as an edge (Gabriel condition) and no triangle straddles two parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial import Delaunay, cKDTree

from ..parts import LABEL_IDS
from .chart import Chart
from .outlines import Outlines

Array = NDArray[np.floating]
Int64 = NDArray[np.int64]

_STEPS, _RETRIANGULATE, _STEP, _REST, _ATTRACTION = 40, 4, 0.18, 1.15, 0.3
_TOO_CLOSE = 0.45
_TRIALS = 20
_SMALLEST, _LARGEST = 0.3, 1.7


@dataclass(frozen=True)
class CanonicalMesh:
    """Symmetric mesh of the canonical plane.

    Attributes:
        points: (V, 2) canonical points q, mm.
        faces: (F, 3) int64, counter-clockwise seen from the front.
        triangle_labels: (F,) int64 part ids, exact.
        vertex_labels: (V,) int64 part ids; outline vertices belong to their part, the mouth line to the upper lip.
        mirror: (V,) int64, the vertex on the other side.
        slit: (S,) int64 ids of the duplicated mouth-line vertices on the lower lip, ``slit_twins`` on the upper lip.
        slit_twins: (S,) int64.
    """

    points: Array
    faces: Int64
    triangle_labels: Int64
    vertex_labels: Int64
    mirror: Int64
    slit: Int64
    slit_twins: Int64


class _SizeField:
    """Relative edge length at canonical points, small near outlines and smallest near eyes and mouth."""

    def __init__(self, outlines: Outlines, step: float = 0.75) -> None:
        x, y = np.arange(0, 80, step), np.arange(-90, 96, step)
        nodes = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
        inner = [cKDTree(c.points) for c in outlines.curves[1:]]
        fine = [cKDTree(c.points) for c in outlines.curves[3:5] + outlines.curves[6:]]
        to_outline = np.min([tree.query(nodes)[0] for tree in inner], axis=0)
        to_fine = np.min([tree.query(nodes)[0] for tree in fine], axis=0)
        size = np.minimum(0.42 + 0.045 * to_outline, 0.38 + 0.06 * to_fine).clip(_SMALLEST, _LARGEST)
        self._grid = RegularGridInterpolator((x, y), size.reshape(len(x), -1), bounds_error=False, fill_value=None)

    def __call__(self, points: Array) -> Array:
        return np.asarray(self._grid(np.abs(points) * [1, 0] + points * [0, 1]))


def _split(points: Array, chart_points: Array, control: Array, size: Array, h: float) -> Array:
    """Points along a dense polyline, h * size apart in the chart, with every control point among them."""
    step = np.linalg.norm(np.diff(chart_points, axis=0), axis=1)
    count = np.insert((step / (h * (size[1:] + size[:-1]) / 2)).cumsum(), 0, 0.0)
    at = [int(np.linalg.norm(points - c, axis=1).argmin()) for c in control]
    knots = count[at] if count[at[-1]] > 2.5 * (len(at) - 1) else count[[at[0], at[-1]]]
    wanted = [np.linspace(a, b, max(round(b - a), 1), endpoint=False) for a, b in pairwise(knots)]
    where = np.append(np.concatenate(wanted), knots[-1])
    return np.column_stack([np.interp(where, count, points[:, k]) for k in range(2)])


def _unique(points: Array) -> tuple[Array, Int64]:
    _, first, inverse = np.unique(points.round(6), axis=0, return_index=True, return_inverse=True)
    return points[first], inverse.ravel()


def _fixed_points(outlines: Outlines, chart: Chart, size: _SizeField, h: float) -> tuple[Array, Int64]:
    """Fixed canonical points (N, 2) on every outline and on the axis, and the outline segments (S, 2) among them."""
    lines = [_split(c.points, chart(c.points), c.control, size(c.points), h) for c in outlines.curves]
    on_axis = sorted({float(line[k, 1]) for line in lines for k in (0, -1) if line[k, 0] == 0.0})
    for low, high in pairwise(on_axis):
        piece = np.column_stack([np.zeros(65), np.linspace(low, high, 65)])
        lines.append(_split(piece, chart(piece), piece[[0, -1]], size(piece), h))
    points, index = _unique(np.concatenate(lines))
    segments, start = [], 0
    for line in lines:
        ids = index[start : start + len(line)]
        segments.append(np.column_stack([ids[:-1], ids[1:]]))
        start += len(line)
    return points, np.unique(np.sort(np.concatenate(segments), axis=1), axis=0)


def _edges(triangles: Int64) -> Int64:
    a, b = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).T
    n = int(b.max()) + 1
    return np.stack(np.divmod(np.unique(a * n + b), n), axis=1)


def _triangulate(points: Array, inside: "_Inside") -> Int64:
    triangles = Delaunay(points).simplices.astype(np.int64)
    return triangles[inside(points[triangles].mean(1))]


class _Inside:
    """Whether chart points lie inside the half face, by the outline's own polygon of fixed points."""

    def __init__(self, rim: Array) -> None:
        self._rim = rim[np.argsort(np.arctan2(rim[:, 1] - 4.0, rim[:, 0]))]

    def __call__(self, points: Array) -> NDArray[np.bool_]:
        a, b = self._rim[:-1], self._rim[1:]
        angles = np.arctan2(self._rim[:, 1] - 4.0, self._rim[:, 0])
        k = np.searchsorted(angles, np.arctan2(points[:, 1] - 4.0, points[:, 0])).clip(1, len(a)) - 1
        side = (b[k] - a[k])[:, 0] * (points - a[k])[:, 1] - (b[k] - a[k])[:, 1] * (points - a[k])[:, 0]
        return (side > 1e-9) & (points[:, 0] > 0)


def _keep_out(points: Array, centres: Array, radii: Array, slack: float = 1.02) -> Array:
    """Move free points out of the circles over outline segments (in place of their Delaunay constraint)."""
    tree = cKDTree(centres)
    near = tree.query(points, k=min(4, len(centres)))[1]
    for column in near.T:
        offset = points - centres[column]
        distance = np.linalg.norm(offset, axis=1)
        limit = slack * radii[column]
        push = distance < limit
        points[push] = centres[column[push]] + offset[push] * (limit / np.maximum(distance, 1e-9))[push, None]
    return points


def _relax(
    fixed: Array, segments: Int64, free: Array, inside: _Inside, length: Callable[[Array], Array]
) -> tuple[Array, Int64]:
    """Spring relaxation in chart coordinates; returns all points (fixed first) and the triangles."""
    n = len(fixed)
    centres = fixed[segments].mean(1)
    radii = np.linalg.norm(fixed[segments[:, 1]] - fixed[segments[:, 0]], axis=1) / 2
    points = np.concatenate([fixed, _keep_out(free, centres, radii)])
    for step in range(_STEPS):
        if step == 3 * _STEPS // 4:
            close = cKDTree(fixed).query(points[n:])[0] < _TOO_CLOSE * length(points[n:])
            points = np.concatenate([fixed, points[n:][~close]])
        if step % _RETRIANGULATE == 0 or step == 3 * _STEPS // 4:
            edges = _edges(_triangulate(points, inside))
        vector = points[edges[:, 0]] - points[edges[:, 1]]
        distance = np.maximum(np.linalg.norm(vector, axis=1), 1e-9)
        rest = _REST * length(points[edges].mean(1))
        stretch = (rest - distance) / distance
        pull = vector * (_STEP * np.maximum(stretch, -_ATTRACTION))[:, None]
        moved = np.zeros_like(points)
        for k in range(2):
            moved[:, k] = np.bincount(edges[:, 0], pull[:, k], len(points))
            moved[:, k] -= np.bincount(edges[:, 1], pull[:, k], len(points))
        candidate = points[n:] + moved[n:]
        candidate[:, 0] = np.maximum(candidate[:, 0], 1e-3)
        held = ~inside(candidate)
        candidate[held] = points[n:][held]
        points[n:] = _keep_out(candidate, centres, radii)
    points = np.concatenate([fixed, points[n:][inside(points[n:])]])
    while True:
        triangles = _triangulate(points, inside)
        crossing = _encroaching(points, segments, triangles, n)
        if not len(crossing):
            break
        points = np.delete(points, crossing, axis=0)
    used = np.unique(triangles)
    if len(used) < len(points):
        keep = np.zeros(len(points), np.int64)
        keep[used] = np.arange(len(used))
        points, triangles = points[used], keep[triangles]
    return points, triangles


def _encroaching(points: Array, segments: Int64, triangles: Int64, n_fixed: int) -> Int64:
    """Free points inside the circle of a segment that is missing from the triangulation."""
    present = set(map(tuple, _edges(triangles)))
    missing = np.array([s for s in map(tuple, segments) if s not in present], np.int64).reshape(-1, 2)
    if not len(missing):
        return np.empty(0, np.int64)
    centre = points[missing].mean(1)
    radius = np.linalg.norm(points[missing[:, 0]] - points[missing[:, 1]], axis=1) / 2
    tree = cKDTree(points[n_fixed:])
    inside = [i + n_fixed for c, r in zip(centre, radius, strict=True) for i in tree.query_ball_point(c, r)]
    if not inside:
        raise ValueError(
            f"{len(missing)} outline segments cannot be mesh edges at this number of vertices; ask for more"
        )
    return np.unique(inside)


def _half_mesh(outlines: Outlines, chart: Chart, n_vertices: int, seed: int) -> tuple[Array, Int64]:
    """Canonical points (N, 2) of the half mesh and its triangles (M, 3)."""
    size = _SizeField(outlines)
    rng = np.random.default_rng(seed)
    rim = chart(outlines.rim.points)
    box = np.array([[0.0, rim[:, 1].min()], [rim[:, 0].max(), rim[:, 1].max()]])
    trial = rng.uniform(box[0], box[1], (_TRIALS * n_vertices, 2))
    trial = trial[_Inside(rim)(trial)]
    density = size(chart.inverse(trial)) ** -2.0
    weight = density.mean() * np.prod(box[1] - box[0]) * len(trial) / (_TRIALS * n_vertices)
    h = float(np.sqrt(4 * weight / (np.sqrt(3) * n_vertices)))
    points, segments = _fixed_points(outlines, chart, size, h)
    fixed = chart(points)
    on_rim = chart(_split(outlines.rim.points, rim, outlines.rim.control, size(outlines.rim.points), h))
    on_axis = int((points[:, 0] == 0).sum())
    n_free = (n_vertices + on_axis) // 2 - len(points)
    if n_free < 20:
        raise ValueError(f"{n_vertices} vertices are too few for the outlines of the face; ask for 300 or more")
    chosen = rng.random(len(trial)) < density / density.max()
    free = trial[chosen][:n_free]
    chart_points, triangles = _relax(fixed, segments, free, _Inside(on_rim), lambda p: h * size(chart.inverse(p)))
    canonical = chart.inverse(chart_points)
    canonical[: len(points)] = points
    return canonical, triangles


def label_triangles(outlines: Outlines, centres: Array) -> Int64:
    """Part ids (F,) of triangles by their canonical centres (F, 2)."""
    labels = np.full(len(centres), LABEL_IDS["rest"], np.int64)
    polygons = {"brow": "eyebrows", "eye": "eyes", "nose": "nose", "upper_lip": "upper_lip", "lower_lip": "lower_lip"}
    for polygon, part in polygons.items():
        labels[outlines.inside(polygon, centres)] = LABEL_IDS[part]
    return labels


def label_vertices(faces: Int64, triangle_labels: Int64, n_vertices: int) -> Int64:
    """Vertex labels (V,) of exact triangle labels (F,): a vertex of several parts belongs to the part, not the rest.

    Where the lips meet at the corners of the mouth the upper lip wins.
    """
    labels = np.full(n_vertices, LABEL_IDS["rest"], np.int64)
    for part in ("eyebrows", "eyes", "nose", "lower_lip", "upper_lip"):
        labels[faces[triangle_labels == LABEL_IDS[part]]] = LABEL_IDS[part]
    return labels


def build_mesh(outlines: Outlines, chart: Chart, n_vertices: int, seed: int = 0) -> CanonicalMesh:
    """Mesh of the whole face with about ``n_vertices`` vertices and the mouth slit open.

    Args:
        outlines: part outlines; each becomes a chain of mesh edges.
        chart: coordinates in which triangles are made regular.
        n_vertices: wanted number of vertices; the result is within a few percent.
        seed: of the free points before relaxation.

    Raises:
        ValueError: when ``n_vertices`` is too small to follow the outlines.
    """
    half, triangles = _half_mesh(outlines, chart, n_vertices, seed)
    n = len(half)
    axis = half[:, 0] == 0.0
    other = np.arange(n)
    other[~axis] = n + np.arange((~axis).sum())
    points = np.concatenate([half, half[~axis] * [-1, 1]])
    mirror = np.arange(len(points))
    mirror[:n], mirror[other] = other, np.arange(n)
    faces = np.concatenate([triangles, other[triangles][:, [0, 2, 1]]])
    faces = _counter_clockwise(points, faces)
    labels = label_triangles(outlines, points[faces].mean(1))
    return _cut_mouth(outlines, points, faces, labels, mirror)


def _counter_clockwise(points: Array, faces: Int64) -> Int64:
    flipped = front_areas(points, faces) < 0
    faces = faces.copy()
    faces[flipped] = faces[flipped][:, [0, 2, 1]]
    return faces


def front_areas(points: Array, faces: Int64) -> Array:
    """Signed areas (..., F) in mm² of triangles in the front view of points (..., V, 2 or 3), positive when facing."""
    a, b, c = (points[..., faces[:, k], :2] for k in range(3))
    u, v = b - a, c - a
    return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) / 2


def _cut_mouth(outlines: Outlines, points: Array, faces: Int64, labels: Int64, mirror: Int64) -> CanonicalMesh:
    """Duplicate the vertices between the lips, corners excepted, so that the mouth can open."""
    lower = labels == LABEL_IDS["lower_lip"]
    twins = np.intersect1d(faces[lower], faces[labels == LABEL_IDS["upper_lip"]])
    corner = np.abs(points[twins, 0]) > outlines.mouth_line.control[-1, 0] - 1e-6
    twins = twins[~corner]
    n = len(points)
    copy = np.arange(n)
    copy[twins] = n + np.arange(len(twins))
    faces = faces.copy()
    faces[lower] = copy[faces[lower]]
    return CanonicalMesh(
        points=np.concatenate([points, points[twins]]),
        faces=faces,
        triangle_labels=labels,
        vertex_labels=label_vertices(faces, labels, n + len(twins)),
        mirror=np.concatenate([mirror, copy[mirror[twins]]]),
        slit=copy[twins],
        slit_twins=twins,
    )
