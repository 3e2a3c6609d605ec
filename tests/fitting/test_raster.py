import numpy as np
import pytest
import torch

from fitting import Camera, Renderer, clip_positions


def from_pixels(pixels, size, depth=0.0):
    """Clip positions (1, V, 4) with w = 1 of (V, 2) pixel positions."""
    pixels = np.asarray(pixels, float)
    clip = np.ones((1, len(pixels), 4), np.float32)
    clip[0, :, :2] = 2 * pixels / size - 1
    clip[0, :, 2] = depth
    return torch.from_numpy(clip)


def owners(clip, faces, size):
    return Renderer(faces, size, "cpu").rasterise(clip)[..., 3].long().numpy()


@pytest.mark.parametrize("winding", [[0, 1, 2], [0, 2, 1]])
def test_square_on_pixel_centres_owns_its_left_and_first_row_only(winding):
    corners = [(2.5, 2.5), (6.5, 2.5), (6.5, 6.5), (2.5, 6.5)]
    faces = np.array([[0, 1, 2], [0, 2, 3]])[:, winding]
    seen = owners(from_pixels(corners, 8), faces, 8)[0] > 0
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(seen, expected)


def test_triangles_that_share_edges_cover_each_pixel_exactly_once():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(9.0), np.arange(9.0))
    points = np.stack([x, y], -1) * 4
    points[1:-1, 1:-1] += rng.integers(-3, 4, (7, 7, 2)) * 0.5  # many vertices fall on pixel centres
    points = points.reshape(-1, 2)
    grid = np.arange(81).reshape(9, 9)
    a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, :-1].ravel(), grid[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, c, d], 1)])
    times = np.zeros((32, 32), int)
    for face in faces:
        times += owners(from_pixels(points, 32), face[None], 32)[0] > 0
    np.testing.assert_array_equal(times, 1)


def assert_equal_rasters(raster, expected):
    """Same triangles everywhere; same weights and depth wherever the snapped coverage lies in the triangle."""
    np.testing.assert_array_equal(raster[..., 3], expected[..., 3])
    inside = (expected[..., :2] >= 0).all(-1) & (expected[..., :2].sum(-1) <= 1)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(raster[inside][:, 2], expected[inside][:, 2], atol=1e-5)
    np.testing.assert_allclose(raster[inside][:, :2], expected[inside][:, :2], atol=1e-4)
    assert raster[..., :2].min() >= 0
    assert raster[..., :2].sum(-1).max() <= 1 + 1e-6


def test_random_triangles_equal_the_slow_twin(twin):
    rng = np.random.default_rng(1)
    vertices = rng.uniform(-4, 36, (600, 2))
    clip = from_pixels(vertices, 32, rng.uniform(-1, 1, 600))
    clip = clip * torch.from_numpy(rng.uniform(0.5, 2, (600, 1)).astype(np.float32))
    faces = np.arange(600).reshape(200, 3)
    raster = Renderer(faces, 32, "cpu").rasterise(clip)[0].numpy()
    assert_equal_rasters(raster, twin.rasterise(clip[0].numpy(), faces, 32, 32))


def test_face_mesh_equals_the_slow_twin(face, twin):
    clip = clip_positions(face.vertices[None], Camera.deep3d(40))
    raster = Renderer(face.faces, 40, "cpu").rasterise(clip)[0].numpy()
    assert_equal_rasters(raster, twin.rasterise(clip[0].numpy(), face.faces.numpy(), 40, 40))


def test_nearer_triangle_wins_and_later_wins_a_tie():
    corners = [(0, 0), (16, 0), (0, 16)]
    points = from_pixels(corners * 3, 8, np.repeat([0.3, -0.2, -0.2], 3))
    assert owners(points, np.arange(9).reshape(3, 3), 8)[0, 2, 2] == 3
    assert owners(points, np.arange(9).reshape(3, 3)[::-1].copy(), 8)[0, 2, 2] == 2


def test_images_of_a_batch_are_independent(face):
    shifted = torch.stack([face.vertices, face.vertices + torch.tensor([5.0, -3.0, 20.0])])
    clip = clip_positions(shifted, face.camera)
    renderer = Renderer(face.faces, (96, 96), "cpu")
    both = renderer.rasterise(clip)
    for index in range(2):
        assert torch.equal(both[index], renderer.rasterise(clip[index : index + 1])[0])


def test_triangles_behind_the_camera_are_dropped():
    clip = from_pixels([(0, 0), (16, 0), (0, 16)], 8)
    clip[0, 1, 3] = -1.0
    assert owners(clip, np.array([[0, 1, 2]]), 8).max() == 0


def test_wide_image_has_its_own_axes():
    clip = from_pixels([(0, 0), (12, 0), (12, 4), (0, 4)], np.array([12, 4]))
    assert owners(clip, np.array([[0, 1, 2], [0, 2, 3]]), (4, 12)).min() > 0


def test_bad_input_is_named():
    clip = from_pixels([(0, 0), (16, 0), (0, 16)], 8)
    clip[0, 2, 1] = float("nan")
    with pytest.raises(ValueError, match="vertex 2 of image 0 is NaN"):
        owners(clip, np.array([[0, 1, 2]]), 8)
    with pytest.raises(ValueError, match=r"expected \(B, V, 4\) with V >= 4"):
        owners(clip, np.array([[0, 1, 3]]), 8)
    with pytest.raises(ValueError, match=r"faces have shape \(2,\)"):
        Renderer(np.array([0, 1]), 8, "cpu")
    with pytest.raises(ValueError, match="image size is 0 x 0"):
        Renderer(np.array([[0, 1, 2]]), 0, "cpu")
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        Renderer(np.array([[0, 1, 2]]), 8, "gpu")
    with pytest.raises(ValueError, match=r"attributes have shape \(2, 1\)"):
        Renderer(np.array([[0, 1, 2]]), 8, "cpu")(from_pixels([(0, 0), (16, 0), (0, 16)], 8), torch.zeros(2, 1))


def test_the_one_point_of_a_sliver_that_rounding_opened_is_its_middle():
    on_a_line = [(2.5, 5.5), (2.9375, 5.71875), (14.3125, 11.40625)]  # through the centre of a pixel
    raster = Renderer(np.array([[0, 1, 2]]), 16, "cpu").rasterise(from_pixels(on_a_line, 16))
    torch.testing.assert_close(raster[0, 8, 8], torch.tensor([1 / 3, 1 / 3, 0, 1]))


@pytest.mark.parametrize("weighed", [(1, 0), (0, 1), (1, 1)], ids=["u", "v", "both"])
def test_gradient_of_each_weight_equals_float64_autograd_and_empty_pixels_have_none(twin, weighed):
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    clip = torch.tensor([[-0.9, -0.8, 0.1, 0.9], [0.8, -0.7, 0.2, 1.1], [-0.7, 0.9, 0.3, 1.2], [0.9, 0.8, 0.2, 1.0]])
    clip32, clip64 = clip[None].requires_grad_(), clip.double().requires_grad_()
    raster = Renderer(faces, (10, 16), "cpu").rasterise(clip32)
    owner = raster[0, ..., 3].detach().long()
    assert 0 < int((owner == 0).sum()) < owner.numel() // 2
    weight = torch.randint(-1, 3, (10, 16, 2), generator=torch.Generator().manual_seed(0)) * torch.tensor(weighed)
    (raster[0, ..., :2] * weight).sum().backward()
    _, share = twin.weights(clip64, torch.from_numpy(faces), owner)
    (share[..., :2] * weight * (owner > 0)[..., None]).sum().backward()
    torch.testing.assert_close(clip32.grad[0].double(), clip64.grad, rtol=1e-4, atol=1e-4)
