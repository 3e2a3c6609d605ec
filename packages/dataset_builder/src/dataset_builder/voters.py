"""Who votes when labels are transferred: the vertices of a mesh, or its triangles on behalf of their corners."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from .camera import CropCamera
from .face_model import FaceModel, Int64
from .parts import LABEL_IDS
from .subdivision import mesh_edges
from .visibility import visible_triangles, visible_vertices

Array = NDArray[np.floating]
Bool = NDArray[np.bool_]


class Voters(Protocol):
    """N voters on a face model.

    Attributes:
        place: (N, 3) float, mm, where they are on the mean face.
        edges: (E, 2) int64, neighbours.
        mirror: (N,) int64, the voter on the other side of the face.
    """

    place: Array
    edges: Int64
    mirror: Int64

    def seen(self, vertices: Array, camera: CropCamera) -> tuple[Array, Bool, NDArray[np.float64]]:
        """Pixels (N, 2), whether the camera sees each voter (N,), and the area (N,) in pixels that each stands for."""
        ...

    def allowed(self, vertices: Bool) -> Bool:
        """Labels (N, 6) that the voters may get, where ``vertices`` (V, 6) may get these."""
        ...

    def to_vertices(self, labels: Int64, ballots: NDArray[np.float64]) -> tuple[Int64, NDArray[np.float64]]:
        """Labels (V,) and ballots (V, 7) of the vertices from those of the voters."""
        ...


class VertexVoters:
    """Every vertex votes for itself; borders run half way between vertices, as interpolated labels are drawn."""

    def __init__(self, model: FaceModel) -> None:
        self._faces = model.faces
        self.place = model.mean
        self.edges = mesh_edges(model.faces)
        self.mirror = model.mirror if model.mirror is not None else _nearest_mirror(model.mean)

    def seen(self, vertices: Array, camera: CropCamera) -> tuple[Array, Bool, NDArray[np.float64]]:
        """See :class:`Voters`: a third of each facing triangle, as far as its corners are visible, to each corner."""
        visible = visible_vertices(vertices, self._faces, camera)
        pixels = camera.project(vertices)
        shown = _facing_areas(pixels, self._faces) * visible[self._faces].mean(1)
        area = np.bincount(self._faces.ravel(), np.repeat(shown / 3, 3), len(pixels)).astype(np.float64)
        return pixels, visible, area

    def allowed(self, vertices: Bool) -> Bool:
        """See :class:`Voters`."""
        return vertices

    def to_vertices(self, labels: Int64, ballots: NDArray[np.float64]) -> tuple[Int64, NDArray[np.float64]]:
        """See :class:`Voters`."""
        return labels, ballots


class TriangleVoters:
    """Every triangle votes; borders run along edges, and a part's vertices are the corners of its triangles.

    The triangles with all corners in a part are then the part's surface, which is what NEO-3DF cuts out.
    """

    def __init__(self, model: FaceModel) -> None:
        self._faces, self._n_vertices = model.faces, model.n_vertices
        self.place = model.mean[model.faces].mean(1)
        self.edges = _neighbouring_triangles(model.faces)
        self.mirror = _nearest_mirror(self.place)

    def seen(self, vertices: Array, camera: CropCamera) -> tuple[Array, Bool, NDArray[np.float64]]:
        """See :class:`Voters`: votes are cast at the centroid, for the whole triangle."""
        visible = visible_triangles(vertices, self._faces, camera)
        area = _facing_areas(camera.project(vertices), self._faces) * visible
        return camera.project(vertices[self._faces].mean(1)), visible, area

    def allowed(self, vertices: Bool) -> Bool:
        """See :class:`Voters`: what all three corners may get."""
        return np.asarray(vertices[self._faces].all(1))

    def to_vertices(self, labels: Int64, ballots: NDArray[np.float64]) -> tuple[Int64, NDArray[np.float64]]:
        """See :class:`Voters`: a part's label wins over rest, and of two parts the earlier.

        A vertex has the mean ballot of the triangles around it with its label.
        """
        order = np.where(labels == LABEL_IDS["rest"], 9, labels)
        found = np.full(self._n_vertices, 9, np.int64)
        np.minimum.at(found, self._faces.ravel(), np.repeat(order, 3))
        agreeing = order[:, None] == found[self._faces]
        rows, columns = self._faces[agreeing], np.nonzero(agreeing)[0]
        around = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (self._n_vertices, len(labels)))
        count = np.bincount(rows, minlength=self._n_vertices)[:, None]
        return np.where(found == 9, LABEL_IDS["rest"], found), (around @ ballots) / np.maximum(count, 1)


def nearest_seen(place: Array, edges: Int64, seen: Bool) -> Int64:
    """For each node (N,) the seen node nearest along the edges; itself if seen or cut off."""
    length = np.linalg.norm(place[edges[:, 0]] - place[edges[:, 1]], axis=-1)
    graph = sparse.csr_matrix((length, (edges[:, 0], edges[:, 1])), (len(place), len(place)))
    _, _, source = dijkstra(
        graph, directed=False, indices=np.flatnonzero(seen), return_predecessors=True, min_only=True
    )
    return np.where(source >= 0, source, np.arange(len(place))).astype(np.int64)


def _facing_areas(pixels: Array, faces: Int64) -> NDArray[np.float64]:
    """Projected area (F,) of each triangle, 0 for those turned away."""
    a, b, c = (pixels[faces[:, i]].astype(np.float64) for i in range(3))
    side, other = b - a, c - a
    return np.maximum(-(side[:, 0] * other[:, 1] - side[:, 1] * other[:, 0]) / 2, 0)


def _nearest_mirror(place: Array) -> Int64:
    return cKDTree(place).query(place * [-1, 1, 1])[1].astype(np.int64)


def _neighbouring_triangles(faces: Int64) -> Int64:
    """Pairs (E, 2) of triangles with a side in common."""
    sides = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    order = np.lexsort(sides.T)
    same = (sides[order[1:]] == sides[order[:-1]]).all(1)
    return np.stack([order[:-1][same] // 3, order[1:][same] // 3], 1)
