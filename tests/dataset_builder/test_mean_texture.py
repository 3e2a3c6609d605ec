"""Skin colours of a face model from photographs whose faces are known."""

import numpy as np
import pytest

from dataset_builder.face_renderer import FaceRenderer
from dataset_builder.mean_texture import mean_texture
from dataset_builder.models import load_face_model
from dataset_builder.rendered_votes import sweep_faces

pytest.importorskip("open3d")


@pytest.fixture(scope="module")
def model():
    return load_face_model("synthetic-3k")


@pytest.fixture(scope="module")
def faces(model):
    return sweep_faces(model, yaw=0.4, pitch=0.2, step=0.2, n_random=0)


@pytest.fixture(scope="module")
def colours(model):
    """Smooth and mirrored, so that neither pixels nor the averaging of the sides blur them."""
    x, y, z = np.abs(model.mean.T)
    return np.stack([0.4 + x / 200, 0.3 + y / 250, 0.5 + z / 400], 1).clip(0, 1)


@pytest.fixture(scope="module")
def crops(model, faces, colours):
    return FaceRenderer(model, colours, light_tilt=0.0)(faces)


def inner(model):
    return np.hypot(model.mean[:, 0], model.mean[:, 1]) < 50


def test_the_colours_of_renders_come_back(model, faces, colours, crops):
    found = mean_texture(model, faces, crops)
    assert found.shape == (model.n_vertices, 3)
    assert found.dtype == np.float32
    assert np.quantile(np.abs(found - colours)[inner(model)], 0.95) < 0.04
    assert np.abs(found - colours).max() < 0.4


def test_both_sides_get_one_colour(model, faces, crops):
    crops = crops.copy()
    crops[:, :, 112:] //= 2
    found = mean_texture(model, faces, crops)
    np.testing.assert_allclose(found, found[model.mirror], atol=1e-6)


def test_a_few_spoiled_photographs_do_not_count(model, faces, crops):
    spoiled = crops.copy()
    spoiled[[1, 8]] = 0
    clean = mean_texture(model, faces, crops)
    robust = mean_texture(model, faces, spoiled)
    plain = mean_texture(model, faces, spoiled, trim=0.0)
    assert np.abs(robust - clean)[inner(model)].mean() < 0.3 * np.abs(plain - clean)[inner(model)].mean()


def test_ignored_pixels_give_no_colour(model, faces, crops):
    covered = crops.copy()
    covered[:, :112] = 0
    ignore = np.zeros(crops.shape[:3], bool)
    ignore[:, :112] = True
    found = mean_texture(model, faces, covered, ignore=ignore)
    assert found.min() > 0.1


def test_unseen_vertices_take_their_neighbours_colour(model, faces):
    red = np.zeros((len(faces), 224, 224, 3), np.uint8)
    red[..., 0] = 200
    ignore = np.ones(red.shape[:3], bool)
    ignore[:, 90:140, 90:140] = False
    found = mean_texture(model, faces, red, ignore=ignore)
    np.testing.assert_allclose(found, np.tile([200 / 255, 0, 0], (model.n_vertices, 1)), atol=1e-6)


def test_bad_input_is_named(model, faces, crops):
    with pytest.raises(ValueError, match="3 crops but 15 estimated faces"):
        mean_texture(model, faces, crops[:3])
    with pytest.raises(ValueError, match=r"ignore has shape \(2, 2\)"):
        mean_texture(model, faces, crops, ignore=np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match=r"trim is 0\.5"):
        mean_texture(model, faces, crops, trim=0.5)
    with pytest.raises(ValueError, match="no vertex is shown"):
        mean_texture(model, faces, crops, ignore=np.ones(crops.shape[:3], bool))
