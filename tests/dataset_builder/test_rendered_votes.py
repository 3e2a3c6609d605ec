"""Labels by rendering: faces to render, their renders, and what comes back of known labels."""

import numpy as np
import pytest

from dataset_builder.alignment import CANONICAL_FIVE_POINTS_DM
from dataset_builder.camera import CropCamera
from dataset_builder.face_renderer import FaceRenderer
from dataset_builder.label_transfer import label_agreement
from dataset_builder.models import load_face_model
from dataset_builder.parser_labels import ParsedFaces
from dataset_builder.parsers import SyntheticTruth
from dataset_builder.procedural import Studio, render_photo, sample_appearance
from dataset_builder.rendered_votes import sweep_faces, vote_by_rendering
from dataset_builder.visibility import visible_vertices

pytest.importorskip("open3d")

COLOURS = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]], np.float32)
BLACK = np.zeros((224, 224, 3), np.uint8)


class ColourReader:
    """A parser of faces painted by part: every pixel has the label of the nearest of COLOURS."""

    name = "small"

    def parse(self, crops):
        distance = [np.square(crops / 255 - colour).sum(-1) for colour in COLOURS]
        return ParsedFaces(np.argmin(distance, 0).astype(np.uint8), np.zeros(crops.shape[:3], bool))


@pytest.fixture(scope="module")
def model():
    return load_face_model("synthetic-3k")


@pytest.fixture(scope="module")
def faces(model):
    return sweep_faces(model, step=0.3, n_random=2)


def test_painted_parts_come_back_between_the_vertices(model, faces):
    render = FaceRenderer(model, COLOURS[model.labels], background=BLACK, light_tilt=0.0)
    found = vote_by_rendering(model, ColourReader(), render, faces)
    assert min(label_agreement(found.labels, model.labels).values()) > 0.97
    on_edges = vote_by_rendering(model, ColourReader(), render, faces, borders="edges")
    assert on_edges.counts["nose"] > 1.1 * found.counts["nose"]


def test_exact_masks_of_photographs_give_the_known_labels_back_along_the_edges(model, faces):
    studio = Studio.of(model)
    rows = zip(faces.identity, faces.expression, faces.angles, faces.translation, strict=True)
    photos = [render_photo(studio, *row, sample_appearance(i)) for i, row in enumerate(rows)]
    found = vote_by_rendering(
        model, SyntheticTruth(photos), lambda _: np.stack([photo.image for photo in photos]), faces, borders="edges"
    )
    agreement = label_agreement(found.labels, model.labels)
    assert min(agreement.values()) >= 0.97, agreement


def test_a_sweep_is_a_grid_of_the_mean_face_and_random_faces(model):
    found = sweep_faces(model, yaw=0.4, pitch=0.2, step=0.2, n_random=3, seed=1)
    assert len(found) == 5 * 3 + 3
    grid = found.angles[:15].reshape(3, 5, 3)
    np.testing.assert_allclose(grid[:, 0, 0], [-0.2, 0, 0.2], atol=1e-6)
    np.testing.assert_allclose(grid[0, :, 1], [-0.4, -0.2, 0, 0.2, 0.4], atol=1e-6)
    assert not found.identity[:15].any()
    assert 0.2 < found.identity[15:].std() < 0.8
    assert found.expression.min() >= 0
    assert 0 < found.expression.max() <= 0.5
    np.testing.assert_array_equal(
        found.angles, sweep_faces(model, yaw=0.4, pitch=0.2, step=0.2, n_random=3, seed=1).angles
    )


def test_faces_of_a_sweep_lie_where_the_standard_crop_has_them(model, faces):
    points = np.stack([faces.posed(model, row)[model.landmarks68] for row in range(len(faces))])
    eyes = (points[:, [36, 42]] + points[:, [39, 45]]) / 2
    centre = np.concatenate([eyes, points[:, [30, 48, 54]]], 1).mean(1)
    np.testing.assert_allclose(centre, np.tile(100 * CANONICAL_FIVE_POINTS_DM.mean(0), (len(faces), 1)), atol=1e-3)


def test_a_render_shows_each_vertex_in_its_colour(model, faces):
    x, y = model.mean[:, 0], model.mean[:, 1]
    colours = np.stack([0.5 + x / 300, 0.5 + y / 300, np.full(len(x), 0.3)], 1)
    crop = FaceRenderer(model, colours, background=BLACK, light_tilt=0.0)(faces[:1])[0]
    vertices = faces.posed(model, 0)
    pixels = CropCamera().project(vertices)
    seen = visible_vertices(vertices, model.faces) & (np.hypot(*(pixels - 112).T) < 40)
    column, row = pixels[seen].astype(int).T
    difference = np.abs(crop[row, column] / 255 - colours[seen])
    assert np.median(difference) < 0.01
    assert np.quantile(difference, 0.95) < 0.06
    assert not crop[0].any()


def test_the_open_mouth_is_dark_on_a_bright_background(model, faces):
    rest = faces[:1]
    open_mouth = np.zeros_like(rest.expression)
    open_mouth[0, model.ex_names.index("jaw_open")] = 1
    face = type(rest)(rest.identity, open_mouth, 0 * rest.angles, rest.translation, rest.residual)
    white = np.full((224, 224, 3), 255, np.uint8)
    crop = FaceRenderer(model, np.full((model.n_vertices, 3), 0.8), background=white, light_tilt=0.0)(face)[0]
    lips = CropCamera().project(face.posed(model, 0)[model.landmarks68[[62, 66]]])
    column, row = lips.mean(0).astype(int)
    assert crop[row, column].max() < 60
    assert crop[0, 0].min() == 255


def test_lights_differ_from_face_to_face_but_not_from_call_to_call(model, faces):
    grey = np.full((model.n_vertices, 3), 0.5)
    twice = type(faces)(*(np.repeat(values[:1], 2, 0) for values in vars(faces).values()))
    render = FaceRenderer(model, grey, seed=3)
    crops = render(twice)
    assert np.abs(crops[0].astype(int) - crops[1]).max() > 5
    np.testing.assert_array_equal(crops, render(twice))


def test_bad_input_is_named(model):
    with pytest.raises(ValueError, match=r"step above 0; got 0\.5, 0\.3, 100 and 0"):
        sweep_faces(model, step=0)
    with pytest.raises(ValueError, match=r"colours must be \(\d+, 3\) within 0..1, got .* within 0..255"):
        FaceRenderer(model, np.tile([0.0, 0.0, 255.0], (model.n_vertices, 1)))
    with pytest.raises(ValueError, match=r"background must be \(224, 224, 3\), got \(5, 5, 3\)"):
        FaceRenderer(model, np.zeros((model.n_vertices, 3)), background=np.zeros((5, 5, 3), np.uint8))
