import numpy as np
import pytest

from editing import roomy_uv

N = 41


@pytest.fixture
def sheet():
    """A slightly bowed square of 120 mm: vertices, triangles, even texture coordinates."""
    y, x = np.mgrid[-60 : 60 : N * 1j, -60 : 60 : N * 1j]
    vertices = np.stack([x.ravel(), y.ravel(), 20 - (x.ravel() / 30) ** 2], axis=1)
    ids = np.arange(N * N).reshape(N, N)
    a, b, c, d = ids[:-1, :-1].ravel(), ids[:-1, 1:].ravel(), ids[1:, 1:].ravel(), ids[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return vertices, faces, (vertices[:, :2] + 60) / 120


def closed_lids(vertices, uv):
    """The coordinates with what lies in an eye-shaped opening pressed onto a line."""
    x, y = vertices[:, 0], vertices[:, 1]
    height = 8 * np.sqrt(np.maximum(1 - (x / 14) ** 2, 0))
    pressed = uv.copy()
    inside = np.abs(y) < height
    pressed[inside, 1] = 0.5 + 0.02 * (uv[inside, 1] - 0.5)
    around = ~inside & (np.abs(y) < height + 14) & (height > 0)
    depth, rim = (np.abs(y[around]) - height[around]) / 14, height[around]
    pressed[around, 1] = 0.5 + np.sign(y[around]) * (0.02 * rim * (1 - depth) + depth * (rim + 14)) / 120
    return pressed, inside


def areas(uv, faces):
    a, b, c = (uv[faces[:, i]] for i in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def test_closed_lids_get_room_and_nothing_folds(sheet):
    vertices, faces, even = sheet
    pressed, inside = closed_lids(vertices, even)
    assert (areas(pressed, faces) > 0).all()
    roomy = roomy_uv(vertices, faces, pressed)
    assert roomy.dtype == np.float32
    eye = inside[faces].all(axis=1)
    assert areas(roomy, faces)[eye].sum() > 10 * areas(pressed, faces)[eye].sum()
    assert (areas(roomy.astype(float), faces) > 0).all()
    far = np.hypot(vertices[:, 0] / 14, vertices[:, 1] / 8) > 4
    np.testing.assert_array_equal(roomy[far], pressed[far].astype(np.float32))


def test_what_is_even_or_looks_aside_stays(sheet):
    vertices, faces, even = sheet
    np.testing.assert_array_equal(roomy_uv(vertices, faces, even), even.astype(np.float32))
    pressed, _ = closed_lids(vertices, even)
    aside = vertices[:, [2, 1, 0]] * [1, 1, -1]
    np.testing.assert_array_equal(roomy_uv(aside, faces, pressed), pressed.astype(np.float32))


def test_room_that_would_fold_the_texture_is_not_made(sheet):
    """The surroundings are drawn out into a narrow horn, whose outline is no place for what is inside."""
    vertices, faces, even = sheet
    pressed, _ = closed_lids(vertices, even)
    bent = pressed.copy()
    ring = (np.hypot(vertices[:, 0], vertices[:, 1]) > 20) & (np.abs(vertices[:, 0]) < 8) & (vertices[:, 1] > 0)
    bent[ring, 1] -= 0.35
    np.testing.assert_array_equal(roomy_uv(vertices, faces, bent), bent.astype(np.float32))


def test_coordinates_that_do_not_fit_are_refused(sheet):
    vertices, faces, even = sheet
    with pytest.raises(ValueError, match=r"uv has shape \(1680, 2\): expected \(1681, 2\), one per vertex"):
        roomy_uv(vertices, faces, even[:-1])
