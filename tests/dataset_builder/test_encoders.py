import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_builder.alignment import align_face
from dataset_builder.encoders import MobileFaceNetEncoder, arcface_crop, fit_similarity, load_encoder


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
