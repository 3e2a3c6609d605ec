"""build_dataset on folders of anything: every entry a face or a reason, no copies, masks from a file or a parser."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_builder import LandmarkDetector, PhotoFile, SmallParser, read_photo
from flows.config import load_config, parse_config
from flows.errors import UserError
from flows.pipeline import Pipeline, PlainRunner
from flows.real_photos import PhotoPreparer, RejectedInput
from flows.run_data import load_faces
from flows.sources import PhotoEntry, Split, digest_files, list_inputs, split_photos
from flows.stages import STAGES
from flows.store import load_manifest
from flows.tables import read_table

N_COPIES = 8


@pytest.fixture(scope="module")
def fake():
    path = Path(__file__).with_name("fake_photos.py")
    spec = importlib.util.spec_from_file_location("fake_photos", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def home(fake, tmp_path_factory):
    """Folders ``a`` with masks and ``b`` without, copies of the photos of ``a`` among those of ``b``, and what not."""
    home = tmp_path_factory.mktemp("home")
    (home / "b").mkdir()
    for i in range(N_COPIES):
        shutil.copy(fake.write_photo(home / "a" / f"{i}.png", i), home / "b" / f"copy {i}.png")
    for i in range(0, N_COPIES, 2):
        fake.write_mask(home / "masks" / f"{i}.png", label=2)
    fake.write_mask(home / "masks" / "3.png", label=0)
    fake.write_photo(home / "b" / "3.png", 100)
    fake.write_photo(Path(os.fsdecode(os.fsencode(home / "b") + b"/caf\xe9.png")), 101)
    Path(os.fsdecode(os.fsencode(home / "b") + b"/broken \xff.jpg")).write_bytes(b"no picture")
    (home / "b" / "empty.jpg").touch()
    (home / "b" / "notes.txt").write_text("no photo by its name")
    (home / "b" / "folder.jpg").mkdir()
    (home / "b" / "dead.jpg").symlink_to(home / "nowhere.jpg")
    (home / "b" / "loop.jpg").symlink_to(home / "b" / "loop.jpg")
    os.mkfifo(home / "b" / "pipe.jpg")
    torch.manual_seed(1)
    SmallParser().eval().save(home / "parser.safetensors")
    return home


@pytest.fixture
def build(fake, home, monkeypatch, tmp_path):
    """Runs the stage and returns its folder."""
    faces = fake.Faces()
    for name in ("FaceDetector", "LandmarkDetector"):
        monkeypatch.setattr(f"flows.real_photos.{name}", lambda: faces)

    def run(run_dir=tmp_path / "run", **section):
        section = {"face_model": fake.FACE_MODEL, "images": [home / "a", home / "b"], "shard_size": 5} | section
        config = parse_config({"run_dir": run_dir, "dataset": section})
        (outcome,) = Pipeline(STAGES, config, only=["build_dataset"]).execute(PlainRunner)
        return outcome.folder

    return run


def rejected_rows(folder):
    return read_table(sorted(folder.glob("rejected-*.parquet")), "rejected")


def test_every_entry_is_a_face_or_a_reason(build, home):
    folder = build()
    faces, rejected = load_faces(folder), rejected_rows(folder)
    assert len(faces) + len(rejected["code"]) == len(list((home / "a").iterdir())) + len(list((home / "b").iterdir()))
    codes = {Path(path).name: code for path, code in zip(rejected["path"], rejected["code"], strict=True)}
    assert codes == {
        **{f"copy {i}.png": "duplicate" for i in range(N_COPIES)},
        "broken \\xff.jpg": "unreadable",
        "empty.jpg": "unreadable",
        "notes.txt": "not_a_photo",
        "folder.jpg": "not_a_file",
        "dead.jpg": "unreadable",
        "loop.jpg": "unreadable",
        "pipe.jpg": "not_a_file",
    }
    assert "caf\\xe9" in faces.face_id
    assert {"a-3.png", "b-3.png"} <= set(faces.face_id)
    assert all(detail.isprintable() and detail for detail in rejected["detail"])
    assert not list(folder.glob("plan-*")), "the plan is no output"


@pytest.mark.parametrize("shard_size", [1, 7, 100])
def test_of_copies_the_first_is_kept_whatever_the_shards(build, home, tmp_path, shard_size):
    folder = build(shard_size=shard_size, run_dir=tmp_path / "other")
    table = read_table(sorted(folder.glob("faces-*.parquet")), "faces", columns=["face_id", "image_sha256"])
    assert len(set(table["image_sha256"])) == len(table["image_sha256"]) == N_COPIES + 2
    kept = {hashlib.sha256((home / "a" / f"{i}.png").read_bytes()).hexdigest() for i in range(N_COPIES)}
    assert kept < set(table["image_sha256"])
    assert [name for name in table["face_id"] if name.startswith("copy")] == []
    rejected = rejected_rows(folder)
    details = dict(zip(rejected["path"], rejected["detail"], strict=True))
    assert details[str(home / "b" / "copy 4.png")] == "copy 4.png: same content as 4.png"
    assert len(list(folder.glob("rejected-*.parquet"))) == -(-(2 * N_COPIES + 9) // shard_size)


def test_the_other_order_of_the_folders_keeps_the_other_copies(build, home):
    folder = build(images=[home / "b", home / "a"])
    names = load_faces(folder).face_id
    assert {f"copy {i}" for i in range(N_COPIES)} < set(names)
    assert rejected_rows(folder)["code"].count("duplicate") == N_COPIES


def test_a_parser_labels_what_has_no_mask_file(build, home):
    weights = home / "parser.safetensors"
    masks = {"masks": [home / "masks", None]}
    plain = load_faces(build(**masks))
    assert set(plain.mask_source) == {"file", ""}
    parsed = load_faces(build(**masks, parser="small", parser_weights=weights))
    assert parsed.face_id == plain.face_id
    np.testing.assert_array_equal(parsed.mask_source, np.where(plain.has_mask, "file", "small"))
    assert parsed.has_mask.all()
    (before, _), (after, ignore) = plain.masks(), parsed.masks()
    np.testing.assert_array_equal(after[plain.has_mask], before[plain.has_mask])
    expected = SmallParser.load(weights).parse(parsed.crops()[~plain.has_mask])
    np.testing.assert_array_equal(after[~plain.has_mask], expected.labels)
    np.testing.assert_array_equal(ignore[~plain.has_mask], expected.ignore)
    assert expected.labels.any((1, 2)).all()


def test_an_empty_mask_file_sets_its_photo_aside_with_a_parser_too(build, home):
    section = {"masks": [home / "masks", None], "parser": "small", "parser_weights": home / "parser.safetensors"}
    rejected = rejected_rows(build(**section))
    assert [
        Path(p).name for p, code in zip(rejected["path"], rejected["code"], strict=True) if code == "mask_empty"
    ] == ["3.png"]


def test_the_content_of_the_parser_counts_and_not_its_place(home, tmp_path):
    def key(weights):
        section = {"images": home / "a", "parser": "small", "parser_weights": weights}
        return STAGES[0].config(parse_config({"dataset": section}))

    moved = Path(shutil.copy(home / "parser.safetensors", tmp_path))
    first = key(home / "parser.safetensors")
    assert key(moved) == first
    moved.write_bytes(b"another")
    assert key(moved) != first
    with pytest.raises(UserError, match=r"dataset\.parser_weights: there is no file .*absent"):
        key(tmp_path / "absent")


def test_which_masks_belong_to_which_folder_counts(home):
    def key(**section):
        return STAGES[0].config(parse_config({"dataset": section}))

    images, masks = [home / "a", home / "b"], home / "masks"
    keys = [key(images=images, masks=given) for given in (None, [masks, None], [None, masks], [masks, masks])]
    keys += [key(images=images[::-1]), key(images=images[0]), key(images=images[1])]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert key(images=images[0], masks=masks)["content"] == key(images=images[:1], masks=[masks])["content"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"images": ["a", "b"], "masks": "m"}, "expected a list of 2, one folder of masks, or null, for each folder"),
        ({"images": []}, r"dataset.images is \[\], expected a folder, or several"),
        ({"images": "a", "parser": "small"}, "expected dataset.parser_weights with it, the file of a parser that was"),
        ({"images": "a", "parser_weights": "w"}, "expected the parser whose weights dataset.parser_weights are"),
        ({"parser": "bisenet"}, "expected none for synthetic faces, whose masks are exact: give dataset.images"),
        ({"images": ["${NEO3DF_NOWHERE}"]}, "expected a path with the environment variable NEO3DF_NOWHERE set"),
    ],
)
def test_folders_and_parsers_that_cannot_be_are_one_line(section, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_config({"dataset": section})
    assert "\n" not in str(caught.value)


def test_masks_of_no_photographs_are_no_folder():
    assert parse_config({"dataset": {"masks": "masks"}}).dataset.folders == ()


def test_a_manifest_in_another_encoding_is_read(home):
    manifest = home / "latin.csv"
    manifest.write_bytes(b"\xef\xbb\xbffile,person_group\n3.png,Andr\xe9\n")
    (entry,) = split_photos([home / "a" / "3.png"], manifest=manifest, clean={}, split=Split(0, 0.2))
    assert entry.group == "Andr\\xe9"


def test_a_manifest_knows_photos_of_one_name_by_their_folder(home):
    manifest = home / "manifest.csv"
    manifest.write_text("file,person_group\na/3.png,anna\nb/3.png,bert\nelsewhere/5.png,carla\n")
    photos = [home / "a" / "3.png", home / "b" / "3.png", home / "a" / "5.png", home / "a" / "6.png"]
    entries = split_photos(photos, manifest=manifest, clean={}, split=Split(0, 0.2))
    assert [entry.group for entry in entries] == ["anna", "bert", "carla", "6"]


def test_what_is_no_file_is_not_opened_for_the_digest(home):
    strange = [home / "b" / name for name in ("pipe.jpg", "dead.jpg", "loop.jpg", "folder.jpg")]
    assert len({digest_files([path]) for path in strange}) == 4


def test_masks_that_are_not_there_are_one_line(home):
    with pytest.raises(UserError, match=r"no photographs: .*absent: no such mask or folder"):
        list_inputs(home / "a", home / "absent")


@pytest.mark.parametrize("where", [np.nan, 41.0])
def test_landmarks_that_are_no_face_set_the_photo_aside(monkeypatch, fake, home, where):
    for network in ("detect_pfld", "detect_slim"):
        monkeypatch.setattr(LandmarkDetector, network, lambda self, image, box: np.full((68, 2), where))
    preparer = object.__new__(PhotoPreparer)
    preparer._detector, preparer._landmarks = fake.Faces(), object.__new__(LandmarkDetector)
    path = home / "a" / "1.png"
    found = preparer.prepare(read_photo(PhotoFile("1", path)), PhotoEntry(path, "1", "1", True, "train"))
    assert isinstance(found, RejectedInput)
    assert (found.code, found.detail) == ("unusable", "1.png: the landmarks lie on a line or a point")


def test_the_configuration_of_all_photographs_is_valid(monkeypatch, tmp_path):
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path))
    config = load_config(Path(__file__).parents[2] / "configs" / "photos.yaml")
    assert len(config.dataset.folders) == 7
    assert config.dataset.folders[0] == (tmp_path / "celebamask" / "images", tmp_path / "celebamask" / "masks")
    assert config.dataset.folders[-1][1] is None


def test_a_cached_dataset_of_photographs_imports_nothing_heavy(build, fake, home, tmp_path):
    build()
    section = {"face_model": fake.FACE_MODEL, "images": [str(home / "a"), str(home / "b")], "shard_size": 5}
    code = f"""
import sys
from flows.config import parse_config
from flows.pipeline import Pipeline
from flows.stages import STAGES
config = parse_config({{"run_dir": {str(tmp_path / "run")!r}, "dataset": {section!r}}})
(outcome,) = Pipeline(STAGES, config, only=["build_dataset"]).execute(lambda: sys.exit("not cached"))
print(outcome.status, *(name for name in ("torch", "numpy", "prefect", "dataset_builder") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["cached"]


def test_a_run_again_is_cached_and_another_parser_is_not(build, home):
    folder = build()
    assert build() == folder
    assert load_manifest(folder) is not None
    assert build(parser="small", parser_weights=home / "parser.safetensors") != folder
