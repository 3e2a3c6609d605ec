import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dataset_builder.parts import LABEL_IDS
from dataset_builder.procedural.chart import Chart
from dataset_builder.procedural.height import HeightFields, spot_heights
from dataset_builder.procedural.mesh import build_mesh, front_areas
from dataset_builder.procedural.outlines import build_outlines, signed_distance

OUTLINES = build_outlines()
CHART = Chart(OUTLINES.rim)


@pytest.fixture(scope="module", params=[3000, 6000])
def mesh(request):
    return build_mesh(OUTLINES, CHART, request.param)


def edges_of(faces):
    return np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)


def test_signed_distance_equals_the_obvious_loop():
    polygon = OUTLINES.polygons["lower_lip"]
    points = np.random.default_rng(0).uniform([-30, -46], [30, -28], (40, 2))
    for point, fast in zip(points, signed_distance(points, polygon), strict=True):
        best, crossings = np.inf, 0
        for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            edge = b - a
            t = np.clip((point - a) @ edge / max(edge @ edge, 1e-18), 0, 1)
            best = min(best, np.linalg.norm(point - a - t * edge))
            if (a[1] <= point[1]) != (b[1] <= point[1]):
                crossings += point[0] < a[0] + (point[1] - a[1]) / (b[1] - a[1]) * edge[0]
        assert abs(fast) == pytest.approx(best, abs=1e-6)
        assert (fast < 0) == (crossings % 2 == 1)


def test_outlines_pass_through_their_control_points():
    for curve in OUTLINES.curves:
        nearest = np.linalg.norm(curve.points[:, None] - curve.control, axis=2).min(0)
        assert nearest.max() < 1e-9


def test_outlines_cross_the_midline_without_a_kink():
    for curve in (OUTLINES.rim, OUTLINES.nose, OUTLINES.lip_lower):
        step = curve.points[1] - curve.points[0]
        assert abs(step[1]) < 0.1 * abs(step[0])


def test_chart_and_its_inverse_agree_and_are_symmetric():
    points = np.random.default_rng(1).uniform(-45, 45, (200, 2))
    np.testing.assert_allclose(CHART.inverse(CHART(points)), points, atol=1e-9)
    np.testing.assert_allclose(CHART(points * [-1, 1]), CHART(points) * [-1, 1], atol=1e-12)


def test_number_of_vertices_is_close_to_the_wish():
    for wish in (3000, 4500):
        assert abs(len(build_mesh(OUTLINES, CHART, wish).points) - wish) < 0.03 * wish


def test_mesh_is_a_disk_with_one_slit(mesh):
    edges = edges_of(mesh.faces)
    assert len(mesh.points) - len(edges) + len(mesh.faces) == 0
    sewn = np.arange(len(mesh.points))
    sewn[mesh.slit] = mesh.slit_twins
    closed = sewn[mesh.faces]
    assert len(np.unique(closed)) - len(edges_of(closed)) + len(closed) == 1


def test_mirror_is_an_exact_symmetry_of_points_faces_and_labels(mesh):
    np.testing.assert_array_equal(mesh.mirror[mesh.mirror], np.arange(len(mesh.points)))
    np.testing.assert_array_equal(mesh.points[mesh.mirror], mesh.points * [-1, 1])
    np.testing.assert_array_equal(mesh.vertex_labels[mesh.mirror], mesh.vertex_labels)
    there = {tuple(sorted(f)) for f in mesh.faces.tolist()}
    back = {tuple(sorted(f)) for f in mesh.mirror[mesh.faces].tolist()}
    assert there == back


def test_triangles_are_well_shaped_and_face_the_front(mesh):
    corners = CHART(mesh.points)[mesh.faces]
    lengths = np.linalg.norm(corners - corners[:, [1, 2, 0]], axis=2)
    area = front_areas(CHART(mesh.points), mesh.faces)
    quality = 4 * np.sqrt(3) * area / (lengths**2).sum(1)
    assert quality.mean() > 0.92
    assert quality.min() > 0.45
    assert front_areas(mesh.points, mesh.faces).min() > 0


def test_no_triangle_crosses_an_outline(mesh):
    weights = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9], [0.45, 0.45, 0.1], [0.1, 0.45, 0.45]])
    samples = np.einsum("wk,fkd->fwd", weights, mesh.points[mesh.faces])
    for polygon in ("brow", "eye", "nose", "upper_lip", "lower_lip"):
        distance = OUTLINES.distance(polygon, samples.reshape(-1, 2)).reshape(samples.shape[:2])
        crossing = np.minimum(distance.max(1), -distance.min(1))
        assert crossing.max() < 0.08


def test_every_part_has_its_components(mesh):
    expected = {"eyebrows": 2, "eyes": 2, "nose": 1, "upper_lip": 1, "lower_lip": 1, "rest": 1}
    for part, count in expected.items():
        faces = mesh.faces[mesh.triangle_labels == LABEL_IDS[part]]
        used, index = np.unique(faces, return_inverse=True)
        edges = edges_of(index.reshape(-1, 3))
        graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(used), len(used)))
        assert connected_components(graph, directed=False)[0] == count, part


def test_slit_gives_each_lip_its_own_vertices(mesh):
    assert (mesh.vertex_labels[mesh.slit] == LABEL_IDS["lower_lip"]).all()
    assert (mesh.vertex_labels[mesh.slit_twins] == LABEL_IDS["upper_lip"]).all()
    np.testing.assert_array_equal(mesh.points[mesh.slit], mesh.points[mesh.slit_twins])
    assert not np.isin(mesh.faces[mesh.triangle_labels == LABEL_IDS["lower_lip"]], mesh.slit_twins).any()
    assert not np.isin(mesh.faces[mesh.triangle_labels == LABEL_IDS["upper_lip"]], mesh.slit).any()


def test_base_surface_agrees_with_its_spot_heights():
    spots, heights = spot_heights()
    inner = np.abs(spots[:, 0]) < 60
    error = HeightFields(spots, OUTLINES, CHART).base - heights
    assert np.sqrt((error[inner] ** 2).mean()) < 1.5
    assert np.abs(error).max() < 4.0


def test_too_few_vertices_are_refused():
    with pytest.raises(ValueError, match="60 vertices are too few"):
        build_mesh(OUTLINES, CHART, 60)
