import numpy as np
import pytest
import torch

from dataset_builder.encoders import load_encoder
from dataset_builder.small_encoder import (
    SmallEncoder,
    SmallEncoderSettings,
    augment,
    mirror_points,
    shrink_crops,
    train_small_encoder,
)

MEAN = np.random.default_rng(9).uniform(70, 154, (34, 2))
MEAN = np.concatenate([MEAN, [224, 0] + MEAN * [-1, 1]])  # any 34 points and their mirror images


def discs(n, seed=0):
    """Crops with a disc on a gradient; the 68 landmarks are its right- and leftmost point, 34 times each."""
    random = np.random.default_rng(seed)
    left_side = mirror_points(torch.arange(136.0).reshape(1, 68, 2))[0, :, 1] > torch.arange(68) * 2 + 1
    centre, radius = random.uniform(92, 132, (n, 2)), random.uniform(25, 50, n)
    rows, columns = np.mgrid[:224, :224] + 0.5
    images, points = np.empty((n, 224, 224, 3), np.uint8), np.empty((n, 68, 2), np.float32)
    for image, marks, (x, y), r in zip(images, points, centre, radius, strict=True):
        inside = (columns - x) ** 2 + (rows - y) ** 2 < r**2
        image[:] = np.where(inside[..., None], (220, 160, 120), (60, 70, 90))
        marks[:] = np.where(left_side.numpy()[:, None], (x - r, y), (x + r, y))
        marks[mirror_points(torch.arange(136.0).reshape(1, 68, 2))[0, :, 1].numpy() == np.arange(68) * 2 + 1] = x, y
    return images, points


@pytest.fixture(scope="module")
def trained():
    images, points = discs(96)
    calls = []
    encoder = train_small_encoder(
        images, points, SmallEncoderSettings(epochs=6), range(8), lambda *call: calls.append(call)
    )
    return encoder, calls


def test_training_finds_the_landmarks_of_new_pictures(trained):
    encoder, calls = trained
    assert [call[:2] for call in calls] == [(i, 6) for i in range(1, 7)]
    assert calls[-1][2] < 0.5 * calls[0][2]
    assert calls[-1][3] == pytest.approx(float(encoder.validation_error_px.mean()))
    images, points = discs(30, seed=1)
    error = np.linalg.norm(encoder.landmarks(images) - points, axis=-1).mean()
    spread = np.linalg.norm(points.mean(0) - points, axis=-1).mean()
    assert error < 0.4 * spread


def test_kept_back_pictures_are_measured_and_not_learned_from():
    images, points = discs(16)
    settings = SmallEncoderSettings(epochs=1)
    first = train_small_encoder(images, points, settings, [3, 5])
    again = train_small_encoder(images, points, settings, [3, 5])
    other_points = points.copy()
    other_points[[3, 5]] += 50
    other = train_small_encoder(images, other_points, settings, [3, 5])
    np.testing.assert_array_equal(first.encode(images), again.encode(images))
    np.testing.assert_array_equal(first.encode(images), other.encode(images))
    measured = np.linalg.norm(first.landmarks(images[[3, 5]]) - points[[3, 5]], axis=-1).mean(0)
    np.testing.assert_allclose(first.validation_error_px, measured, rtol=1e-3)


def test_training_leaves_the_global_seed():
    images, points = discs(10)
    state = torch.random.get_rng_state()
    train_small_encoder(images, points, SmallEncoderSettings(epochs=1))
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_new_encoder_answers_the_mean_landmarks():
    encoder = SmallEncoder()
    mean = torch.from_numpy(MEAN).float()
    encoder.mean_points.copy_(mean / 112 - 1)
    np.testing.assert_allclose(encoder.eval()(torch.rand(1, 3, 112, 112)).detach()[0] * 112 + 112, mean, atol=0.1)


def test_embedding_shape_mode_and_mirror(trained):
    encoder, _ = trained
    images, _ = discs(3)
    embedding = encoder.encode(images, np.zeros((3, 5, 2)))
    assert embedding.shape == (3, encoder.dim) == (3, 136)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(images[1:2])[0], embedding[1], atol=1e-5)
    mirrored = mirror_points(torch.from_numpy(embedding).reshape(3, 68, 2)).flatten(1)
    np.testing.assert_allclose(encoder.encode(images[:, :, ::-1]), mirrored, atol=1e-5)
    assert not encoder.training


def test_saved_encoder_is_the_same(trained, tmp_path):
    encoder, _ = trained
    encoder.save(tmp_path / "small.pt")
    loaded = load_encoder("small", tmp_path / "small.pt")
    assert isinstance(loaded, SmallEncoder)
    images, _ = discs(2)
    np.testing.assert_array_equal(loaded.encode(images), encoder.encode(images))
    np.testing.assert_array_equal(loaded.validation_error_px, encoder.validation_error_px)


def test_gradient_reaches_the_image_once_heat_maps_have_weights(trained):
    encoder, _ = trained
    images = torch.rand(2, 3, 112, 112, requires_grad=True)
    encoder(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_mirroring_twice_changes_nothing_and_sides_swap():
    points = torch.rand(2, 68, 2)
    torch.testing.assert_close(mirror_points(mirror_points(points)), points)
    torch.testing.assert_close(mirror_points(points)[:, 36, 0], -points[:, 45, 0])  # outer corners of the eyes
    torch.testing.assert_close(mirror_points(points)[:, 30, 1], points[:, 30, 1])  # tip of the nose


def test_augmented_landmarks_stay_on_their_picture():
    """A bright dot is drawn at one landmark: after augmentation that dot is found at the landmark."""
    points = torch.zeros(16, 68, 2)
    points[:, 30] = torch.rand(16, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    centres = (torch.arange(112) + 0.5) / 56 - 1
    squared = (centres - points[:, 30, :1, None]) ** 2 + (centres[:, None] - points[:, 30, 1:, None]) ** 2
    crops = torch.exp(-squared / (2 * 0.08**2))[:, None].expand(-1, 3, -1, -1)
    moved, marks = augment(crops, points, torch.Generator().manual_seed(1))
    weight = moved.mean(1).square().square()
    weight = torch.where(weight > 0.1 * weight.amax((1, 2), keepdim=True), weight, 0)
    found = torch.stack([weight.sum(1) @ centres, weight.sum(2) @ centres], 1) / weight.sum((1, 2))[:, None]
    torch.testing.assert_close(found, marks[:, 30], atol=0.02, rtol=0)
    assert (marks[:, 30] - points[:, 30]).abs().max() > 0.05


def test_weights_are_a_few_hundred_thousand():
    assert 200_000 < sum(parameter.numel() for parameter in SmallEncoder().parameters()) < 400_000


def test_shrinking_averages():
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    expected = images.reshape(2, 112, 2, 112, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(shrink_crops(images), expected, atol=1e-6)


def test_bad_training_data_is_refused():
    images, points = discs(10)
    with pytest.raises(ValueError, match=r"landmarks \(N, 68, 2\) for N >= 8 images, got \(9, 68, 2\) for 10 images"):
        train_small_encoder(images, points[:9])
    with pytest.raises(ValueError, match="not finite"):
        train_small_encoder(images, points * np.nan)
    with pytest.raises(ValueError, match=r"crops must be \(B, 224, 224, 3\) uint8"):
        train_small_encoder(images[:, :100], points)
