"""Encodings by key: computed once, and the same to the bit whether looked up or computed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_builder import encoding_key, image_sha256, load_encoder
from dataset_builder.facenet import InceptionResnetV1
from flows import encodings
from flows.config import parse_config
from flows.encodings import OneByOne, encode_faces, finished_encodings, read_encodings
from flows.errors import UserError
from flows.pipeline import PlainRunner
from flows.run_data import load_faces
from flows.run_model import load_network, load_run_encoder
from flows.stages import STAGES
from flows.store import load_manifest
from flows.tables import read_table

STAGE = next(stage for stage in STAGES if stage.name == "train_regressors")


@pytest.fixture(scope="module")
def facenet(tmp_path_factory):
    """FaceNet with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "facenet.pt"
    torch.save(InceptionResnetV1().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run_dir(tiny_run, tmp_path_factory):
    """A copy of the tiny run."""
    return Path(shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("copy") / "run"))


@pytest.fixture(scope="module")
def with_facenet(tiny_run, run_dir, facenet):
    """Output folders of the stages up to fine-tuning, with that FaceNet."""
    section = {"encoder": "facenet", "encoder_weights": facenet}
    pipeline = tiny_run.pipeline(run_dir, {"regressors": section}, only=["fine_tune"])
    return {outcome.name: outcome for outcome in pipeline.execute(PlainRunner)}


def count_faces(monkeypatch):
    """How many faces go through a network from now on."""
    seen, encode = [], OneByOne.encode
    monkeypatch.setattr(
        OneByOne, "encode", lambda self, images, points: seen.extend(images) or encode(self, images, points)
    )
    return seen


def test_encodings_are_kept_under_the_keys_of_crops_and_encoder(tiny_run):
    faces = load_faces(tiny_run.output("build_dataset"))
    folder = tiny_run.output("train_regressors")
    encoder = load_run_encoder(folder, "small")
    table = read_table(folder / "encodings.parquet", "encodings")
    pairs = zip(faces.crops(), faces.five_points, strict=True)
    assert table["key"] == [encoding_key(encoder, image_sha256(crop, points)) for crop, points in pairs]
    assert table["face_id"] == faces.face_id
    assert set(table["encoder"]) == {"small"}


def test_what_is_known_changes_no_bit(tiny_run, monkeypatch):
    faces = load_faces(tiny_run.output("build_dataset"))
    folder = tiny_run.output("train_regressors")
    encoder, known = load_run_encoder(folder, "small"), read_encodings(folder)
    monkeypatch.setattr(encodings, "CHUNK", 5)
    fresh = encode_faces(encoder, faces, {})
    assert fresh.computed.all()
    half = {key: known[key] for key in list(known)[::2]}
    mixed = encode_faces(encoder, faces, half)
    assert mixed.computed.sum() == len(faces) - len(half)
    for some in (mixed, encode_faces(encoder, faces.where(faces.rows % 3 == 0), known)):
        expected = [fresh.embeddings[fresh.keys.index(key)] for key in some.keys]
        assert some.embeddings.tobytes() == np.stack(expected).tobytes()
    assert fresh.embeddings.tobytes() == np.stack([known[key] for key in fresh.keys]).tobytes()


def test_facenet_by_path_is_used_kept_and_loaded_again(with_facenet, facenet, tiny_run):
    folder = with_facenet["train_regressors"].folder
    faces = load_faces(tiny_run.output("build_dataset"))
    expected = load_encoder("facenet", facenet).encode(faces.crops()[:2], faces.five_points[:2])
    table = read_table(folder / "encodings.parquet", "encodings")
    np.testing.assert_allclose(table["embedding"][:2], expected, atol=1e-5)
    assert set(table["encoder"]) == {"facenet"}
    assert (folder / "encoder.pt").read_bytes() == facenet.read_bytes()
    inputs = {name: outcome.folder for name, outcome in with_facenet.items()}
    network = load_network(inputs, "facenet", fine_tuned=True)
    start = network(faces.crops()[:1], faces.five_points[:1])
    assert all(bool(torch.isfinite(z).all()) for z in start.latents.values())


def test_another_setting_encodes_nothing_again(tiny_run, run_dir, facenet, with_facenet, monkeypatch):
    seen = count_faces(monkeypatch)
    section = {"encoder": "facenet", "encoder_weights": facenet, "epochs": 1}
    pipeline = tiny_run.pipeline(run_dir, {"regressors": section}, only=["fine_tune"])
    outcomes = {outcome.name: outcome for outcome in pipeline.execute(PlainRunner)}
    assert (outcomes["train_regressors"].status, outcomes["fine_tune"].status) == ("ran", "ran")
    assert seen == []
    hashes = [
        {entry.name: entry.sha256 for entry in load_manifest(found["train_regressors"].folder).files}
        for found in (with_facenet, outcomes)
    ]
    assert hashes[0]["encodings.parquet"] == hashes[1]["encodings.parquet"]
    assert hashes[0]["regressors.safetensors"] != hashes[1]["regressors.safetensors"]


def test_encodings_of_another_version_or_contract_are_not_used(tiny_run, run_dir, with_facenet, monkeypatch, tmp_path):
    assert len(finished_encodings(run_dir)) > len(load_faces(tiny_run.output("build_dataset")))
    copy = Path(shutil.copytree(with_facenet["train_regressors"].folder, tmp_path / "train_regressors-1"))
    size = (copy / "encodings.parquet").stat().st_size
    (copy / "encodings.parquet").write_bytes(b"x" * size)
    assert finished_encodings(tmp_path) == {}
    monkeypatch.setattr(encodings, "package_version", lambda name: "0.0")
    assert finished_encodings(run_dir) == {}


def test_the_content_of_the_weights_counts_and_not_their_place(facenet, tmp_path):
    def key(weights):
        return STAGE.config(parse_config({"regressors": {"encoder": "facenet", "encoder_weights": weights}}))

    moved = Path(shutil.copy(facenet, tmp_path))
    assert key(moved) == key(facenet)
    moved.write_bytes(b"others")
    assert key(moved) != key(facenet)
    with pytest.raises(UserError, match=r"regressors\.encoder_weights: there is no file .*absent\.pt"):
        key(tmp_path / "absent.pt")


def test_weights_of_no_named_encoder_are_one_line():
    with pytest.raises(UserError) as caught:
        parse_config({"regressors": {"encoder_weights": "w.pt"}})
    assert str(caught.value) == (
        "configuration: regressors.encoder is 'small', expected the encoder whose weights regressors.encoder_weights "
        "are; the small one is trained here"
    )
