import numpy as np
import pytest

from dataset_builder.subdivision import mesh_edges, midpoint_subdivision

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int64)
CORNERS = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], np.float32)


def signed_volume(vertices, faces):
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return np.einsum("ij,ij->", a, np.cross(b, c)) / 6


def test_new_vertices_are_edge_midpoints_in_edge_order():
    fine = midpoint_subdivision(TETRAHEDRON, 4)
    edges = mesh_edges(TETRAHEDRON)
    vertices = fine.apply(CORNERS)
    np.testing.assert_array_equal(vertices[:4], CORNERS)
    np.testing.assert_array_equal(vertices[4:], CORNERS[edges].mean(1))
    assert edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_surface_orientation_and_topology_stay(levels):
    fine = midpoint_subdivision(TETRAHEDRON, 4, levels)
    vertices = fine.apply(CORNERS.astype(np.float64))
    assert len(fine.faces) == 4 * 4**levels
    assert len(vertices) - len(mesh_edges(fine.faces)) + len(fine.faces) == 2
    assert signed_volume(vertices, fine.faces) == pytest.approx(signed_volume(CORNERS, TETRAHEDRON), rel=1e-12)


def test_rows_sum_to_one_so_translations_carry_over():
    fine = midpoint_subdivision(TETRAHEDRON, 4, 2)
    np.testing.assert_allclose(np.asarray(fine.operator.sum(1)).ravel(), 1, atol=1e-15)


def test_bases_of_any_shape_subdivide_like_shapes_and_keep_their_dtype():
    basis = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    weights = np.arange(5, dtype=np.float32)
    fine = midpoint_subdivision(TETRAHEDRON, 4, 1)
    carried = fine.apply(basis)
    assert carried.shape == (10, 3, 5)
    assert carried.dtype == np.float32
    summed = np.einsum("vck,k->vc", carried, weights)
    np.testing.assert_allclose(summed, fine.apply(np.einsum("vck,k->vc", basis, weights)), atol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="levels must be 0 or more, got -1"):
        midpoint_subdivision(TETRAHEDRON, 4, -1)
    with pytest.raises(ValueError, match="faces name vertex 3 but the mesh has 3 vertices"):
        midpoint_subdivision(TETRAHEDRON, 3)
