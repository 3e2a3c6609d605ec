import io

import numpy as np
import pytest
from PIL import Image

from editing import PART_COLOURS
from flows.contracts import PARTS
from flows.pictures import (
    Studio,
    difference,
    heat_colours,
    jpeg_bytes,
    montage,
    overlay,
    png_bytes,
    vertex_normals,
)


def ball(n=24, radius=60.0):
    """A sphere of UV rings around the origin: vertices (V, 3) and outward triangles (F, 3)."""
    theta, phi = np.linspace(0.01, np.pi - 0.01, n), np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
    t, p = (x.ravel() for x in np.meshgrid(theta, phi, indexing="ij"))
    vertices = radius * np.stack([np.sin(t) * np.cos(p), np.cos(t), -np.sin(t) * np.sin(p)], 1)
    i, j = (x.ravel() for x in np.meshgrid(np.arange(n - 1), np.arange(2 * n), indexing="ij"))
    a, b = i * 2 * n + j, i * 2 * n + (j + 1) % (2 * n)
    faces = np.concatenate([np.stack([a, a + 2 * n, b], 1), np.stack([b, a + 2 * n, b + 2 * n], 1)])
    return vertices, faces.astype(np.int64)


def test_overlay_mixes_each_part_with_its_colour_and_leaves_the_rest():
    photo = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    labels = np.arange(63, dtype=np.uint8).reshape(7, 9) % 7
    result = overlay(photo, labels, opacity=0.25)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[labels < 2], photo[labels < 2])
    for label, part in enumerate(PARTS, 2):
        expected = 0.75 * photo[labels == label] + 0.25 * np.array(PART_COLOURS[part], float)
        np.testing.assert_allclose(result[labels == label], expected, atol=0.51)


def test_difference_is_grey_where_parts_agree_and_vermilion_where_not():
    predicted = np.array([[0, 1, 2, 2, 2, 4, 1]], np.uint8)
    target = np.array([[1, 0, 2, 3, 0, 4, 6]], np.uint8)
    grey, wrong, white = [190] * 3, [213, 94, 0], [255] * 3
    expected = [white, white, grey, wrong, wrong, grey, wrong]
    np.testing.assert_array_equal(difference(predicted, target)[0], expected)
    np.testing.assert_array_equal(difference(predicted, predicted)[0][[0, 1]], [white, white])


def test_montage_places_every_picture_on_white():
    colours = np.arange(1, 6, dtype=np.uint8) * 40
    pictures = [np.full((30, 20, 3), colour, np.uint8) for colour in colours]
    sheet = montage([pictures[:3], pictures[3:]], gap=4)
    assert sheet.shape == (2 * 30 + 4, 3 * 20 + 2 * 4, 3)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, 3)
        np.testing.assert_array_equal(sheet[row * 34 : row * 34 + 30, column * 24 : column * 24 + 20], picture)
    assert (sheet[34:, 48:] == 255).all(), "a short row leaves its end white"
    assert (sheet[30:34] == 255).all()
    titled = montage([pictures[:3]], ["a", "β σ", "c"], row_titles=["row"])
    assert titled.shape == (22 + 30, 150 + 68, 3)
    np.testing.assert_array_equal(titled[22:, 150:], montage([pictures[:3]]))
    for part in (titled[:22, 150:170], titled[:22, 174:194], titled[22:, :150]):
        assert part.min() < 128, "a title is written there"


def test_heat_runs_from_light_to_dark_and_stops_at_full_scale():
    colours = heat_colours(np.array([0.0, 1.0, 2.0, 4.0, 9.0]), 4.0)
    assert colours.dtype == np.float32
    brightness = colours @ np.array([0.3, 0.6, 0.1])
    assert (np.diff(brightness[:4]) < 0).all()
    np.testing.assert_array_equal(colours[3], colours[4])


def test_normals_of_a_ball_point_outwards():
    vertices, faces = ball()
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert (normals * vertices / 60.0).sum(1).min() > 0.98
    with_stray = np.concatenate([vertices, [[0, 0, 0]]])
    np.testing.assert_array_equal(vertex_normals(with_stray, faces)[-1], 0)


def test_studio_draws_a_shaded_ball_on_white_and_turns_it():
    vertices, faces = ball()
    studio = Studio(faces, size=64)
    picture = studio.draw(vertices)
    assert picture.shape == (64, 64, 3)
    assert (picture[:4, :4] == 255).all()
    row = picture[32].mean(1)
    assert row[20] > row[44], "the main light comes from the upper left"
    width = (picture[32] < 250).any(1).sum()
    assert width == pytest.approx(2 * 60 * 64 * 1015 / 224 / 1000, abs=2)
    red = np.where(vertices[:, :1] > 0, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]])
    left, right = (studio.draw(vertices, red, yaw)[32, 32].astype(int) for yaw in (-60, 60))
    assert left[0] > left[2] + 50, "turned to image left, the half at +x comes to the front"
    assert right[2] > right[0] + 50


def test_pictures_survive_their_bytes():
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture)))), picture)
    labels = picture[..., 0] % 7
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(labels)))), labels)
    flat = np.full((16, 24, 3), 90, np.uint8)
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(jpeg_bytes(flat)))), flat, atol=2)
