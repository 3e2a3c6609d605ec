import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_builder.alignment import align_face
from dataset_builder.encoders import (
    MobileFaceNetEncoder,
    SmallEncoder,
    SmallEncoderSettings,
    arcface_crop,
    fit_similarity,
    load_encoder,
    shrink_crops,
    train_small_encoder,
)


def discs(n, seed=0):
    """Crops with a disc whose place and radius are the targets, standardised."""
    random = np.random.default_rng(seed)
    values = random.uniform(-1, 1, (n, 3)).astype(np.float32)
    rows, columns = np.mgrid[:224, :224] + 0.5
    images = np.empty((n, 224, 224, 3), np.uint8)
    for image, (x, y, r) in zip(images, values, strict=True):
        inside = (columns - 112 - 50 * x) ** 2 + (rows - 112 - 50 * y) ** 2 < (35 + 15 * r) ** 2
        image[:] = np.where(inside[..., None], (220, 160, 120), (60, 70, 90))
    return images, (values - values.mean(0)) / values.std(0)


@pytest.fixture(scope="module")
def trained():
    images, targets = discs(128)
    calls = []
    encoder = train_small_encoder(
        images, targets, SmallEncoderSettings(dim=32, epochs=6, batch=16), lambda *call: calls.append(call)
    )
    return encoder, calls


def test_training_learns_to_regress(trained):
    encoder, calls = trained
    assert [call[:2] for call in calls] == [(i, 6) for i in range(1, 7)]
    assert calls[-1][2] < 0.5 * calls[0][2]
    assert encoder.validation_r2.min() > 0.4
    assert calls[-1][3] == pytest.approx(float(encoder.validation_r2.mean()))
    images, targets = discs(40, seed=1)
    assert 1 - np.square(encoder.predict(images) - targets).mean() > 0.5


def test_training_is_repeatable_and_leaves_the_global_seed(trained):
    images, targets = discs(16)
    settings = SmallEncoderSettings(dim=8, epochs=1, batch=8)
    state = torch.random.get_rng_state()
    first, second = (train_small_encoder(images, targets, settings).encode(images) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(state, torch.random.get_rng_state())


def test_embedding_shape_and_mode(trained):
    encoder, _ = trained
    images, _ = discs(3)
    embedding = encoder.encode(images, np.zeros((3, 5, 2)))
    assert embedding.shape == (3, encoder.dim) == (3, 32)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(images[1:2])[0], embedding[1], atol=1e-5)
    assert not encoder.training


def test_saved_encoder_is_the_same(trained, tmp_path):
    encoder, _ = trained
    encoder.save(tmp_path / "small.pt")
    loaded = load_encoder("small", tmp_path / "small.pt")
    assert isinstance(loaded, SmallEncoder)
    images, _ = discs(2)
    np.testing.assert_array_equal(loaded.encode(images), encoder.encode(images))
    np.testing.assert_array_equal(loaded.validation_r2, encoder.validation_r2)


def test_gradient_reaches_the_image():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 112, 112, requires_grad=True)
    SmallEncoder(4).regress(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_weights_are_a_few_hundred_thousand():
    assert 200_000 < sum(parameter.numel() for parameter in SmallEncoder(20).parameters()) < 400_000


def test_shrinking_averages():
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    expected = images.reshape(2, 112, 2, 112, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(shrink_crops(images), expected, atol=1e-6)


def test_bad_training_data_is_refused():
    images, targets = discs(10)
    with pytest.raises(ValueError, match=r"targets \(N, T\) for N >= 8 images, got \(9, 3\) for 10 images"):
        train_small_encoder(images, targets[:9])
    with pytest.raises(ValueError, match="not finite"):
        train_small_encoder(images, targets * np.nan)
    with pytest.raises(ValueError, match=r"crops must be \(B, 224, 224, 3\) uint8"):
        train_small_encoder(images[:, :100], targets)


def test_names_and_checkpoints_are_checked(tmp_path):
    with pytest.raises(ValueError, match="no encoder named 'facenet'; there are mobilefacenet, small"):
        load_encoder("facenet")
    with pytest.raises(ValueError, match="give the checkpoint"):
        load_encoder("small")
    torch.save({"format": "another"}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: not a small-encoder checkpoint"):
        load_encoder("small", tmp_path / "other.pt")


def test_similarity_is_recovered():
    random = np.random.default_rng(3)
    source = random.uniform(0, 100, (5, 2))
    angle, scale = 0.7, 1.8
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    fitted = fit_similarity(source, source @ turn.T + [3, -8])
    np.testing.assert_allclose(fitted, [[*turn[0], 3], [*turn[1], -8], [0, 0, 1]], atol=1e-9)
    with pytest.raises(ValueError, match="must be finite and apart"):
        fit_similarity(np.ones((5, 2)), source)


def test_arcface_crop_puts_the_points_on_the_template():
    points = np.array([[80.0, 90], [140, 100], [108, 125], [82, 155], [128, 163]])
    image = np.zeros((224, 224, 3), np.uint8)
    for x, y in points.astype(int):
        image[y - 3 : y + 3, x - 3 : x + 3] = 255
    crop = arcface_crop(image, points).astype(float)[..., 0]
    assert crop.shape == (112, 112)
    rows, columns = np.mgrid[:112, :112] + 0.5
    found = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(found, [56.03, 71.94], atol=0.5)  # the least squares keep the mean


def test_mobilefacenet_separates_people(recorded_five_points):
    pytest.importorskip("onnxruntime", reason="the extra [photos] is not installed")
    data = Path(os.environ["NEO3DF_ASSETS"])
    encoder = load_encoder("mobilefacenet")
    assert isinstance(encoder, MobileFaceNetEncoder)
    embeddings = {}
    for path in (data / "photos" / "deepface").glob("*.jpg"):
        five = recorded_five_points[f"photos/deepface/{path.name}"]
        face = align_face(np.asarray(Image.open(path).convert("RGB")), five)
        (embedding,) = encoder.encode(face.image[None], face.transform.to_crop(five)[None])
        assert embedding.shape == (encoder.dim,)
        embeddings[path.name] = embedding / np.linalg.norm(embedding)
    likeness = {"Yes": [], "No": []}
    with (data / "photos" / "deepface_pairs.csv").open() as file:
        for pair in csv.DictReader(file):
            if pair["file_x"] in embeddings and pair["file_y"] in embeddings:
                likeness[pair["same_person"]].append(embeddings[pair["file_x"]] @ embeddings[pair["file_y"]])
    assert min(likeness["Yes"]) > max(likeness["No"])
    with pytest.raises(ValueError, match=r"five points must be \(2, 5, 2\) for 2 images, got \(5, 2\)"):
        encoder.encode(np.zeros((2, 224, 224, 3), np.uint8), np.zeros((5, 2)))
