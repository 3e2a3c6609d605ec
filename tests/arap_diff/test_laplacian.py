"""Edge weights and the Laplacian: hand-counted triangles, textbook cotangents, and bad input."""

import numpy as np
import pytest

from arap_diff import laplacian, mesh_edges

SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


def test_uniform_weights_count_half_per_triangle_side() -> None:
    expected = [[2, -0.5, -1, -0.5], [-0.5, 1, -0.5, 0], [-1, -0.5, 2, -0.5], [-0.5, 0, -0.5, 1]]
    np.testing.assert_array_equal(laplacian(SQUARE, 4).toarray(), expected)


def test_vertex_in_no_face_has_an_empty_row() -> None:
    matrix = laplacian(SQUARE, 6).toarray()
    assert not matrix[4:].any()
    assert not matrix[:, 4:].any()


def test_three_triangles_on_one_edge_add_up() -> None:
    matrix = laplacian([[0, 1, 2], [1, 0, 3], [0, 1, 4]], 5)
    assert matrix[0, 1] == -1.5


def test_edges_come_once_and_sorted() -> None:
    edges = mesh_edges([[2, 1, 0], [0, 2, 3], [3, 2, 7]], 9)
    np.testing.assert_array_equal(edges, [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3], [2, 7], [3, 7]])
    assert edges.dtype == np.int64
    assert mesh_edges(np.zeros((0, 3), dtype=np.int32), 2).shape == (0, 2)


def test_given_weights_stand_on_the_edges_of_mesh_edges() -> None:
    weights = np.array([1.0, 2, 3, 4, 5])
    matrix = laplacian(SQUARE, 4, weights=weights).toarray()
    for (i, j), weight in zip(mesh_edges(SQUARE, 4), weights, strict=True):
        assert matrix[i, j] == matrix[j, i] == -weight
    np.testing.assert_array_equal(matrix.sum(axis=1), 0)


def test_cotangent_weights_of_a_right_and_an_equilateral_triangle() -> None:
    right = laplacian([[0, 1, 2]], 3, weights="cotangent", rest=[[0, 0, 0], [1, 0, 0], [0, 1, 0]]).toarray()
    assert right[0, 1] == pytest.approx(-0.5)  # opposite angle 45 degrees
    assert right[1, 2] == pytest.approx(-1e-4)  # opposite angle 90 degrees: clamped, not zero
    equal = laplacian([[0, 1, 2]], 3, weights="cotangent", rest=[[0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0]]).toarray()
    np.testing.assert_allclose(equal[[0, 1, 2], [1, 2, 0]], -0.5 / np.sqrt(3))


def test_cotangent_laplacian_annihilates_linear_functions_inside_a_flat_mesh() -> None:
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 7)[:-1] + rng.uniform(-0.1, 0.1, 6)
    rest = np.vstack([[[0.1, 0.05, 0]], np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)])
    faces = [[0, 1 + k, 1 + (k + 1) % 6] for k in range(6)]
    matrix = laplacian(faces, 7, weights="cotangent", rest=rest)
    np.testing.assert_allclose((matrix @ rest)[0], 0, atol=1e-12)


def test_cotangent_weights_stay_positive_and_finite_on_obtuse_and_flat_triangles() -> None:
    rest = [[0, 0, 0], [1, 0, 0], [0.5, 0.01, 0], [0.5, 0, 0], [0, 0, 0]]
    matrix = laplacian([[0, 1, 2], [0, 3, 1], [0, 4, 1]], 5, weights="cotangent", rest=rest).toarray()
    assert np.isfinite(matrix).all()
    assert (np.linalg.eigvalsh(matrix) > -1e-9).all()
    assert (matrix[~np.eye(5, dtype=bool)] <= 0).all()


@pytest.mark.parametrize(
    ("faces", "n_vertices", "options", "message"),
    [
        ([[0, 1]], 3, {}, r"faces must be integers of shape \(F, 3\), got int64 \(1, 2\)"),
        ([[0.0, 1.0, 2.0]], 3, {}, r"faces must be integers of shape \(F, 3\), got float64"),
        ([[0, 1, 2], [0, 1, 3]], 3, {}, r"face 1 is \[0, 1, 3\], outside 0\.\.2"),
        ([[0, 1, -1]], 3, {}, r"face 0 is \[0, 1, -1\], outside 0\.\.2"),
        ([[0, 1, 1]], 3, {}, r"face 0 repeats a vertex: \[0, 1, 1\]"),
        ([[0, 1, 2]], 0, {}, "n_vertices must be a positive integer, got 0"),
        ([[0, 1, 2]], 3, {"weights": "mean"}, 'weights must be "uniform", "cotangent" or one positive number per edge'),
        ([[0, 1, 2]], 3, {"weights": "cotangent"}, 'weights="cotangent" needs rest'),
        (
            [[0, 1, 2]],
            3,
            {"weights": "cotangent", "rest": np.zeros((2, 3))},
            r"rest must have shape \(3, 3\), got \(2, 3\)",
        ),
        ([[0, 1, 2]], 3, {"weights": "cotangent", "rest": np.full((3, 3), np.inf)}, "rest is not finite at vertex 0"),
    ],
)
def test_bad_input_is_refused(faces: list, n_vertices: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        laplacian(np.array(faces), n_vertices, **options)
