import sys

import numpy as np
import pytest

from dataset_builder.camera import CropCamera
from dataset_builder.normals import vertex_normals
from dataset_builder.subdivision import midpoint_subdivision
from dataset_builder.visibility import visible_triangles, visible_vertices

OCTAHEDRON = np.array(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]], np.int64
)


def sphere(radius, levels=4):
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64)
    fine = midpoint_subdivision(OCTAHEDRON, 6, levels)
    points = fine.apply(corners)
    return radius * points / np.linalg.norm(points, axis=-1, keepdims=True), fine.faces


def square(half, z, cells):
    grid = np.linspace(-half, half, cells + 1)
    x, y = np.meshgrid(grid, grid)
    ids = np.arange((cells + 1) ** 2).reshape(cells + 1, -1)
    a, b, c, d = ids[:-1, :-1].ravel(), ids[:-1, 1:].ravel(), ids[1:, 1:].ravel(), ids[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, float(z))], -1), faces.astype(np.int64)


def test_normals_of_a_sphere_point_outwards():
    points, faces = sphere(50.0)
    normals = vertex_normals(points, faces)
    cosine = (normals * points).sum(-1) / np.linalg.norm(normals, axis=-1) / 50
    assert cosine.min() > 0.99


def test_a_sphere_shows_its_cap_under_perspective():
    pytest.importorskip("open3d")
    points, faces = sphere(60.0)
    seen = visible_vertices(points, faces)
    horizon = 60.0**2 / CropCamera().distance
    assert seen[points[:, 2] > horizon + 3].all()
    assert not seen[points[:, 2] < horizon - 3].any()


def test_a_square_hides_what_lies_in_its_shadow():
    pytest.importorskip("open3d")
    back, back_faces = square(60, 0, 40)
    front, front_faces = square(20, 50, 4)
    points = np.concatenate([back, front])
    seen = visible_vertices(points, np.concatenate([back_faces, front_faces + len(back)]))
    shadow = 20 * 1000 / 950
    reach = np.abs(back[:, :2]).max(1)
    assert not seen[: len(back)][reach < shadow - 0.1].any()
    assert seen[: len(back)][reach > shadow + 0.1].all()
    assert seen[len(back) :].all()


def test_triangles_are_seen_where_their_centroids_are_open():
    pytest.importorskip("open3d")
    back, back_faces = square(60, 0, 40)
    front, front_faces = square(20, 50, 4)
    seen = visible_triangles(np.concatenate([back, front]), np.concatenate([back_faces, front_faces + len(back)]))
    reach = np.abs(back[back_faces].mean(1)[:, :2]).max(1)
    shadow = 20 * 1000 / 950
    np.testing.assert_array_equal(seen[: len(back_faces)], reach > shadow)
    assert seen[len(back_faces) :].all()
    assert not visible_triangles(back, back_faces[:, ::-1]).any()


def test_a_surface_turned_away_is_not_seen():
    pytest.importorskip("open3d")
    points, faces = square(30, 0, 5)
    assert visible_vertices(points, faces).all()
    assert not visible_vertices(points, faces[:, ::-1]).any()


def test_missing_open3d_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ImportError, match=r"neo3df-dataset-builder\[photos\]"):
        visible_vertices(*square(30, 0, 5))
