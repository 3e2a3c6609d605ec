import numpy as np
import pytest

from editing import Sight, TexelMap, bake_texture, fill_colours, sample_photo, without_strangers
from editing.texture import feathered

N = 21
BLUE = np.array([0.1, 0.2, 0.8])
SKIN = np.array([0.8, 0.6, 0.5])


class Plane:
    """A square of (N, N) vertices over -1..1, diagonals mirrored too, with its mirror map; x runs along rows."""

    def __init__(self):
        y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
        self.x, self.y = x.ravel(), y.ravel()
        ids = np.arange(N * N).reshape(N, N)
        self.mirror = ids[:, ::-1].ravel()
        left = ids[:, : N // 2 + 1]
        a, b, c, d = left[:-1, :-1].ravel(), left[:-1, 1:].ravel(), left[1:, 1:].ravel(), left[1:, :-1].ravel()
        half = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        self.faces = np.concatenate([half, self.mirror[half]])

    def texels(self, size):
        """A texture that covers the square but for a border of an eighth of its side on all sides."""
        row, column = np.mgrid[:size, :size]
        x, y = 8 / 6 * ((column + 0.5) / size * 2 - 1), 8 / 6 * (1 - (row + 0.5) / size * 2)
        covered = (np.abs(x) < 1) & (np.abs(y) < 1)
        x, y = x[covered], y[covered]
        u, v = (1 - np.abs(x)) * (N - 1) / 2, (y + 1) * (N - 1) / 2
        i, j = u.astype(int), v.astype(int)
        u, v, squares = u - i, v - j, (N - 1) * (N - 1) // 2
        lower = u >= v
        weights = np.where(lower[:, None], np.stack([1 - u, u - v, v], 1), np.stack([1 - v, u, v - u], 1))
        triangle = j * ((N - 1) // 2) + i + np.where(lower, 0, squares) + np.where(x < 0, 0, 2 * squares)
        return TexelMap(covered, triangle, weights)


@pytest.fixture
def plane():
    return Plane()


def pattern(x, y):
    """A symmetric skin with waves."""
    wave = 0.1 * np.cos(7 * np.abs(x)) * np.cos(5 * y)
    return SKIN + wave[:, None]


def test_a_photo_is_sampled_between_pixel_centres():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    pixels = np.array([[0.5, 0.5], [2.5, 1.5], [1.0, 0.5], [1.0, 1.0], [-5, 0.5], [9, 9]])
    red = np.array([image[0, 0, 0], image[1, 2, 0], image[0, :2, 0].mean(), image[:, :2, 0].mean(), 0, image[1, 3, 0]])
    np.testing.assert_allclose(sample_photo(image, pixels)[:, 0], red / 255)


def test_colours_that_are_seen_are_kept(plane):
    truth = pattern(plane.x, plane.y)
    np.testing.assert_allclose(fill_colours(Sight(truth, np.ones(N * N)), plane.faces), truth, atol=1e-6)


def test_a_hidden_patch_is_smooth_without_a_mirror(plane):
    slope = SKIN + 0.1 * plane.x[:, None]
    hidden = (np.abs(plane.x) < 0.4) & (np.abs(plane.y) < 0.4)
    found = fill_colours(Sight(np.where(hidden[:, None], BLUE, slope), 1.0 - hidden), plane.faces)
    np.testing.assert_allclose(found, slope, atol=1e-3, err_msg="a linear function is harmonic")


def test_a_hidden_side_takes_the_detail_of_the_other_at_its_own_brightness(plane):
    """The left lies in the shade: what is hidden there must be as dark as what surrounds it."""
    truth = pattern(plane.x, plane.y) - 0.25 * (plane.x < 0)[:, None]
    hidden = (plane.x < -0.2) & (plane.x > -0.8) & (np.abs(plane.y) < 0.6)
    seen = Sight(np.where(hidden[:, None], BLUE, truth), 1.0 - hidden)
    mirrored = np.abs(fill_colours(seen, plane.faces, plane.mirror) - truth).max()
    smooth = np.abs(fill_colours(seen, plane.faces) - truth).max()
    assert mirrored < 0.01
    assert smooth > 5 * mirrored


def test_a_piece_that_nobody_shows_has_the_mean_colour(plane):
    faces = np.concatenate([plane.faces, plane.faces + N * N])
    truth = pattern(plane.x, plane.y)
    seen = Sight(np.concatenate([truth, truth * 0]), np.concatenate([np.ones(N * N), np.zeros(N * N)]))
    np.testing.assert_allclose(fill_colours(seen, faces)[N * N :], np.tile(truth.mean(axis=0), (N * N, 1)), atol=1e-4)


def test_a_photo_that_shows_nothing_is_refused(plane):
    with pytest.raises(ValueError, match="the photo shows no vertex of the face"):
        fill_colours(Sight(np.zeros((N * N, 3)), np.zeros(N * N)), plane.faces)


def test_feathering_lowers_towards_what_is_hidden_and_raises_nothing(plane):
    weight = (plane.x > 0).astype(float)
    soft = feathered(weight, plane.faces)
    assert (soft <= weight).all()
    row = soft[plane.y == plane.y[N * (N // 2)]][N // 2 + 1 :]
    assert (np.diff(row) >= -1e-12).all()
    assert 0 < row[0] < 0.7
    assert row[-1] == 1


def test_strangers_on_one_side_are_left_out(plane):
    colours = pattern(plane.x, plane.y) + np.random.default_rng(0).normal(0, 0.01, (N * N, 3))
    everything, inner = np.ones(N * N, bool), np.abs(plane.x) < 0.5
    left = (plane.x < -0.75) & (plane.y > -0.5)
    colours[left] = BLUE
    seen = Sight(colours, np.ones(N * N))
    kept = without_strangers(seen, plane.faces, everything, inner, plane.mirror).weight
    assert not kept[left].any()
    assert kept[plane.x > 0].all()
    both = Sight(np.where((left | left[plane.mirror])[:, None], BLUE, colours), seen.weight)
    assert without_strangers(both, plane.faces, everything, inner, plane.mirror).weight.all(), "a beard has two sides"
    alone = Sight(colours, 1.0 * (plane.x < 0.5))
    assert without_strangers(alone, plane.faces, everything, inner, plane.mirror).weight[left].all(), "none to compare"
    assert without_strangers(seen, plane.faces, ~left, inner, plane.mirror).weight.all(), "not to be judged"
    unseen = Sight(colours, 1.0 * ~inner)
    np.testing.assert_array_equal(
        without_strangers(unseen, plane.faces, everything, inner, plane.mirror).weight, unseen.weight
    )


def test_a_texture_has_the_photos_detail_on_both_sides_and_a_margin(plane):
    """Stripes finer than the mesh: seen on the right, mirrored to the left."""
    size = 160
    texels = plane.texels(size)
    x, y = texels.at(plane.x, plane.faces), texels.at(plane.y, plane.faces)
    assert x[0] == pytest.approx(-1, abs=0.02)
    assert y[0] == pytest.approx(1, abs=0.02)

    def skin(x, y):
        return pattern(x, y) + 0.05 * np.sign(np.sin(80 * np.abs(x)))[:, None]

    def seen(x, y):
        right = (x > -0.3).astype(float)
        return Sight(np.where(right[:, None] > 0, skin(x, y), BLUE), right)

    vertices = seen(plane.x, plane.y)
    filled = fill_colours(vertices, plane.faces, plane.mirror)
    picture = bake_texture(texels, plane.faces, vertices, filled, seen(x, y), seen(-x, y), plane.mirror)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    error = np.abs(picture[texels.covered] / 255 - skin(x, y))
    assert error[x > 0.1].max() < 0.01
    assert error[x < -0.6].mean() < 0.03
    smooth = bake_texture(texels, plane.faces, vertices, filled, seen(x, y), None, None)
    assert np.abs(smooth[texels.covered] / 255 - skin(x, y))[x < -0.6].mean() > 1.5 * error[x < -0.6].mean()
    rows, columns = np.nonzero(texels.covered)
    np.testing.assert_array_equal(picture[80, columns.max() + 5], picture[80, columns.max()], "charts reach beyond")
    np.testing.assert_allclose(picture[0, 0] / 255, filled.mean(axis=0), atol=0.01)
    assert rows.min() > 10
