import numpy as np
import pytest
import torch

from segmodel import LinearShapes, box_centres, recentre


def test_vertices_are_mean_plus_basis_times_coefficients(face, shapes):
    expected = face.mean + np.einsum("vck,nk->nvc", face.basis, shapes.coefficients.numpy()[[4, 0]])
    np.testing.assert_allclose(shapes.vertices([4, 0]).numpy(), expected, atol=1e-4)


def test_region_is_a_slice_of_the_whole_face(layout, shapes):
    ids = layout.vertices("nose")
    torch.testing.assert_close(shapes.region(ids).vertices([1, 2]), shapes.vertices([1, 2])[:, ids])


def test_chunked_box_centres_equal_those_of_the_meshes(layout, shapes, monkeypatch):
    own = shapes.region(layout.vertices("eyes"))
    monkeypatch.setattr("segmodel.linear._CHUNK_FLOATS", 7 * 3 * own.n_vertices)
    torch.testing.assert_close(own.box_centres(), box_centres(own.vertices(slice(None))))


def test_recentring_zeroes_the_yz_box_and_leaves_x(layout, shapes):
    vertices = shapes.vertices([0, 1, 2])[:, layout.vertices("nose")]
    moved, centres = recentre(vertices)
    assert box_centres(moved).abs().max() < 1e-5
    assert torch.equal(moved[..., 0], vertices[..., 0])
    torch.testing.assert_close(moved[..., 1:] + centres[:, None], vertices[..., 1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 2)), np.zeros((4, 3, 2)), np.zeros((5, 2))), "mean has shape"),
        ((np.zeros((4, 3)), np.zeros((5, 3, 2)), np.zeros((5, 2))), "basis has shape"),
        ((np.zeros((4, 3)), np.zeros((4, 3, 2)), np.zeros((5, 3))), "coefficients has shape"),
        ((np.zeros((4, 3)), np.zeros((4, 3, 2)), np.full((5, 2), np.nan)), "coefficients has values"),
    ],
)
def test_bad_shapes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearShapes(*arguments)
