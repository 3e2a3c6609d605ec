"""``neo3df reconstruct`` on real photographs with masks, and beside them inputs that cannot be used."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editing import LABEL_IDS
from flows.contracts import PARTS
from flows.errors import UserError
from flows.face_editor import editor_of
from flows.face_file import read_face
from flows.face_texture import read_texture
from flows.reconstruct import newest_run, reconstruct
from flows.run_model import load_controllers, load_part_face_model
from flows.tables import read_table

MESHES = ("mesh.glb", "mesh.mtl", "mesh.obj", "mesh.png")
FILES = ("face.json", "labels.png", "labels_before.png", *MESHES, "overlay.png", "texture.png")
BAD = {
    "noise.png": "no_face",
    "truncated.jpg": "unreadable",
    "othersize.jpg": "mask_size",
    "strangelabel.jpg": "mask_label",
    "tiny.png": "too_small",
}


@pytest.fixture(scope="module")
def faces():
    """The folder of two photographs with masks of the same stem."""
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no photographs, no detector weights")
    if find_spec("facexlib") is None or find_spec("onnxruntime") is None:
        pytest.skip("facexlib or onnxruntime is not installed")
    return Path(os.environ["NEO3DF_ASSETS"]) / "celebamask_maskgan"


def spoil(folder, faces):
    """One file of every kind that cannot be used, each in its own way."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(folder / "noise.png")
    Image.fromarray(rng.integers(0, 256, (40, 300, 3), dtype=np.uint8)).save(folder / "tiny.png")
    content = (faces / "0.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    for name, mask in (
        ("othersize", np.zeros((200, 300), np.uint8)),
        ("strangelabel", np.full((512, 512), 40, np.uint8)),
    ):
        shutil.copy(faces / "0.jpg", folder / f"{name}.jpg")
        Image.fromarray(mask).save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def made(faces, tiny_run, tmp_path_factory):
    """Output folder of one call with good and bad photographs; the masks of all lie in one folder."""
    home = tmp_path_factory.mktemp("reconstruct")
    photos = home / "photos"
    spoil(photos, faces)
    for path in faces.iterdir():
        shutil.copy(path, photos / path.name)
    shutil.copy(faces / "2.jpg", photos / "without mask.jpg")
    reconstruct([photos], out=home / "out", masks=photos, run_dir=tiny_run.folder)
    return home / "out"


@pytest.mark.parametrize("name", ["0", "2", "without mask"])
def test_every_good_photo_gets_its_folder(name, made):
    assert tuple(sorted(path.name for path in (made / name).iterdir())) == FILES
    assert all(path.stat().st_size > 0 for path in (made / name).iterdir())


def test_nothing_else_is_written(made):
    assert {path.name for path in made.iterdir()} == {"0", "2", "without mask", "fits.parquet", "rejected.parquet"}


def test_labels_have_the_photos_size_and_ids_of_parts(made, faces):
    for name in ("0", "2"):
        photo = np.asarray(Image.open(faces / f"{name}.jpg").convert("RGB"))
        for file in ("labels.png", "labels_before.png"):
            labels = np.asarray(Image.open(made / name / file))
            assert labels.shape == photo.shape[:2]
            assert labels.dtype == np.uint8
            assert set(np.unique(labels)) == set(range(7))
        overlay = np.asarray(Image.open(made / name / "overlay.png"))
        tinted = (overlay != photo).any(2)
        final = np.asarray(Image.open(made / name / "labels.png"))
        assert not tinted[final < 2].any()
        assert tinted[final > 1].mean() > 0.99


def test_parts_fall_on_the_parts_of_the_mask(made, faces):
    """CelebAMask-HQ numbers: 2 nose, 4 and 5 eyes, 6 and 7 eyebrows, 11 and 12 lips."""
    theirs = {2: (6, 7), 3: (4, 5), 4: (2,), 5: (11,), 6: (12,)}
    for name in ("0", "2"):
        mask = np.asarray(Image.open(faces / f"{name}.png"))
        labels = np.asarray(Image.open(made / name / "labels.png").resize(mask.shape[::-1], Image.Resampling.NEAREST))
        overlaps = []
        for ours, ids in theirs.items():
            a, b = labels == ours, np.isin(mask, ids)
            overlaps.append((a & b).sum() / (a | b).sum())
        assert np.mean(overlaps) > 0.4, dict(zip(PARTS, overlaps, strict=True))


def test_fits_hold_the_photos_with_masks(made):
    fits = read_table(made / "fits.parquet", "fits")
    assert fits["face_id"] == ["0", "2"]
    assert np.nanmean(fits["iou_after"]) > np.nanmean(fits["iou_before"])
    assert set(fits["method"]) == {"controls from landmark"}


def test_without_a_mask_the_start_is_the_result(made):
    folder = made / "without mask"
    assert (folder / "labels.png").read_bytes() == (folder / "labels_before.png").read_bytes()
    assert read_face(folder / "face.json").state.controls == {}
    same_photo = made / "2"
    assert (same_photo / "labels_before.png").read_bytes() == (folder / "labels_before.png").read_bytes()


def test_face_json_rebuilds_the_mesh(made, tiny_run):
    stored = read_face(made / "0" / "face.json")
    assert stored.name == "0"
    assert stored.run == tiny_run.folder.resolve()
    inputs = {o.name: o.folder for o in tiny_run.outcomes}
    model = load_part_face_model(inputs)
    vertices = editor_of(model, stored.state, *load_controllers(inputs, model)).vertices()
    lines = (line.split() for line in (made / "0" / "mesh.obj").read_text().splitlines() if line.startswith("v "))
    np.testing.assert_allclose(np.array([line[1:4] for line in lines], float), vertices, atol=1e-3)
    assert json.loads((made / "0" / "face.json").read_text())["pose"]["angles_rad"]


def test_the_texture_shows_the_photo(made, faces, tiny_run):
    """Its skin has the colour of the photo's."""
    model = load_part_face_model({o.name: o.folder for o in tiny_run.outcomes})
    for name in ("0", "2"):
        texture = read_texture(made / name, model.face_model)
        assert texture.picture.shape == (1024, 1024, 3)
        with Image.open(made / name / "mesh.png") as beside:
            np.testing.assert_array_equal(np.asarray(beside), texture.picture)
        with Image.open(faces / f"{name}.jpg") as photo, Image.open(faces / f"{name}.png") as mask:
            skin = np.asarray(photo.resize(mask.size).convert("RGB"))[np.asarray(mask) == 1]
        shown = texture.colours[model.segments.layout.labels == LABEL_IDS["rest"]]
        assert np.abs(np.median(shown, axis=0) - np.median(skin, axis=0)).max() < 25


def test_bad_inputs_are_set_aside_with_their_reason(made):
    rejected = read_table(made / "rejected.parquet", "rejected")
    assert {Path(path).name: code for path, code in zip(rejected["path"], rejected["code"], strict=True)} == BAD
    for path, detail in zip(rejected["path"], rejected["detail"], strict=True):
        assert Path(path).stem in detail
        assert "\n" not in detail


def test_photos_of_one_name_from_two_folders_do_not_overwrite_each_other(faces, tiny_run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    shutil.copy(faces / "0.jpg", tmp_path / "a" / "x.jpg")
    shutil.copy(faces / "2.jpg", tmp_path / "b" / "x.jpg")
    reconstruct([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out", masks=None, run_dir=tiny_run.folder)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a-x.jpg", "b-x.jpg", "rejected.parquet"}


def test_one_mask_is_not_laid_over_many_photos(tiny_run, tmp_path):
    for name in ("1.jpg", "2.jpg", "mask.png"):
        Image.new("RGB", (80, 80)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"mask\.png is one mask for 2 photographs; give the folder of the masks"):
        reconstruct(
            [tmp_path / "1.jpg", tmp_path / "2.jpg"],
            out=tmp_path / "out",
            masks=tmp_path / "mask.png",
            run_dir=tiny_run.folder,
        )
    assert not (tmp_path / "out").exists()


def test_the_newest_run_is_found_or_its_absence_told(tmp_path):
    with pytest.raises(UserError, match=r"no run under .*; make one with neo3df run, or name one with --run"):
        newest_run(tmp_path)
    for age, name in enumerate(("new", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        os.utime(tmp_path / name / "run.json", (1e9 - age, 1e9 - age))
    assert newest_run(tmp_path) == tmp_path / "new"
