"""build_dataset on real photographs: crops, masks, splits and what is set aside."""

import csv
import hashlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dataset_builder import read_photos
from flows.pipeline import PlainRunner
from flows.run_data import load_faces
from flows.tables import read_table


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folders ``images`` and ``masks`` of six faces, one of them without mask, and a file that is no picture."""
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no photographs, no detector weights")
    if find_spec("facexlib") is None or find_spec("onnxruntime") is None:
        pytest.skip("facexlib or onnxruntime is not installed")
    data, home = Path(os.environ["NEO3DF_ASSETS"]), tmp_path_factory.mktemp("source")
    for kind in ("images", "masks"):
        (home / kind).mkdir()
    for photo in sorted((data / "celebamask" / "images").iterdir())[:6]:
        shutil.copy(photo, home / "images")
        shutil.copy(data / "celebamask" / "masks" / f"{photo.stem}.png", home / "masks")
    max((home / "masks").iterdir()).unlink()
    (home / "images" / "broken.jpg").write_text("not a picture")
    shutil.copy(min((home / "images").glob("[0-9]*")), home / "images" / "copy.jpg")
    (home / "images" / "notes.txt").write_text("not a photo by its name")
    shutil.copy(data / "manifest.csv", home)
    return home


@pytest.fixture(scope="module")
def dataset(source, tiny_run, tmp_path_factory):
    """Output folder of the stage."""
    section = {
        "images": source / "images",
        "masks": source / "masks",
        "manifest": source / "manifest.csv",
        "clean": {"frontal": 1, "glasses": 0},
        "validation_share": 0.5,
        "shard_size": 4,
    }
    pipeline = tiny_run.pipeline(tmp_path_factory.mktemp("run"), {"dataset": section}, only=["build_dataset"])
    (outcome,) = pipeline.execute(PlainRunner)
    return outcome.folder


def test_every_photo_is_a_face_or_set_aside(dataset, source):
    faces = load_faces(dataset)
    rejected = read_table(sorted(dataset.glob("rejected-*.parquet")), "rejected")
    reasons = {Path(path).name: code for path, code in zip(rejected["path"], rejected["code"], strict=True)}
    assert reasons == {"broken.jpg": "unreadable", "copy.jpg": "duplicate", "notes.txt": "not_a_photo"}
    names = {path.stem for path in (source / "images").iterdir()}
    assert set(faces.face_id) == names - {"broken", "copy", "notes"}
    with_mask = {path.stem for path in (source / "masks").iterdir()}
    assert {name for name, has in zip(faces.face_id, faces.has_mask, strict=True) if has} == with_mask
    np.testing.assert_array_equal(faces.mask_source, np.where(faces.has_mask, "file", ""))


def test_clean_faces_and_splits_follow_the_manifest(dataset, source):
    with (source / "manifest.csv").open(newline="") as lines:
        rows = {Path(row["file"]).stem: row for row in csv.DictReader(lines) if row["file"].startswith("celebamask/")}
    faces = load_faces(dataset)
    expected = [rows[name]["frontal"] == "1" and rows[name]["glasses"] == "0" for name in faces.face_id]
    np.testing.assert_array_equal(faces.clean, expected)
    people = [rows[name]["person_group"] for name in faces.face_id]
    assert len(set(zip(people, faces.split.tolist(), strict=True))) == len(set(people))
    assert set(faces.split) <= {"train", "validation"}


def test_crops_and_masks_are_cut_out_by_the_stored_transform(dataset, source):
    table = read_table(sorted(dataset.glob("faces-*.parquet")), "faces")
    faces = load_faces(dataset)
    crops, (masks, _) = faces.crops(), faces.masks()
    assert crops.shape == (6, 224, 224, 3)
    column, row = np.meshgrid(np.arange(224) + 0.5, np.arange(224) + 0.5)
    for i, name in enumerate(faces.face_id):
        (photo,) = read_photos(source / "images" / f"{name}.jpg", source / "masks")
        assert table["image_sha256"][i] == hashlib.sha256(photo.path.read_bytes()).hexdigest()
        height, width = photo.image.shape[:2]
        x, y = (
            (p + o) / s for p, o, s in zip((column, row), table["crop_offset"][i], table["crop_scale"][i], strict=True)
        )
        inside = (x > 0) & (x < width) & (y > 0) & (y < height)
        at = y.clip(0, height - 1).astype(int), x.clip(0, width - 1).astype(int)
        error = np.abs(photo.image[at].astype(float) - crops[i])[inside].mean()
        assert error < 8, f"{name}: nearest pixels of the photo differ from the crop by {error:.1f} of 255"
        if photo.mask is None:
            assert not masks[i].any()
        else:
            scale = photo.mask.shape[0] / height
            nearest = photo.mask[tuple((k * scale).astype(int) for k in at)]
            assert (nearest == masks[i])[inside].mean() > 0.97
    area = read_table(sorted(dataset.glob("masks-*.parquet")), "masks")["area"]
    np.testing.assert_array_equal(area, np.stack([(masks == label).sum((1, 2)) for label in range(2, 7)], 1))


def test_landmarks_of_eyes_and_eyebrows_fall_on_their_masks(dataset):
    faces = load_faces(dataset)
    masks, _ = faces.masks()
    for label, points in ((2, slice(17, 27)), (3, slice(36, 48))):
        distances = []
        for i in np.flatnonzero(faces.has_mask):
            rows, columns = np.nonzero(masks[i] == label)
            centre = (columns.mean() + 0.5, rows.mean() + 0.5)
            distances.append(np.linalg.norm(faces.landmarks[i, points].mean(0) - centre))
        assert np.median(distances) < 8, f"label {label}: landmarks lie {np.round(distances)} px off the masks"
    assert np.isfinite(faces.identity).all()
    assert np.abs(faces.angles[:, 1]).max() < 1
