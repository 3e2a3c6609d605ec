"""Mistakes of the user on the real stages: exit status 2 and one line that says what was wrong."""

import sys

import numpy as np
import pytest
from PIL import Image

from flows import cli
from flows.pipeline import PlainRunner


@pytest.fixture
def neo3df(monkeypatch, capsys, tmp_path):
    """Exit status and standard error, without the lines of the stages that were started, of one command."""
    monkeypatch.setattr("flows.prefect_runner.PrefectRunner", lambda runner, workers: PlainRunner())
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["neo3df", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        lines = capsys.readouterr().err.splitlines()
        return caught.value.code, [line for line in lines if not line.endswith(": started")]

    return call


@pytest.fixture
def config(tmp_path):
    """A configuration of one synthetic photograph."""
    path = tmp_path / "config.yaml"
    path.write_text(f"run_dir: {tmp_path / 'run'}\ndataset: {{face_model: synthetic-3k, n_photos: 1}}\n")
    return path


def test_a_face_model_file_that_is_not_there(neo3df, config, tmp_path):
    status, lines = neo3df("run", "-c", config, "--set", f"dataset.face_model={tmp_path / 'absent.npz'}")
    assert status == 2
    (line,) = lines
    assert line.startswith(
        f"neo3df: dataset.face_model: unknown face model '{tmp_path / 'absent.npz'}': use synthetic, "
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04 broken", "not a readable .npz"), (b"", "not a readable .npz"), (b"hello", "not a readable .npz")],
    ids=["cut", "empty", "text"],
)
def test_a_face_model_file_that_is_damaged(content, message, neo3df, config, tmp_path):
    path = tmp_path / "face.npz"
    path.write_bytes(content)
    status, lines = neo3df("run", "-c", config, "--set", f"dataset.face_model={path}")
    assert status == 2
    (line,) = lines
    assert line.startswith(f"neo3df: {path}: ")
    assert message in line


def test_an_archive_that_is_no_face_model(neo3df, config, tmp_path):
    np.savez(tmp_path / "other.npz", points=np.zeros(3))
    status, lines = neo3df("run", "-c", config, "--set", f"dataset.face_model={tmp_path / 'other.npz'}")
    assert status == 2
    assert lines == [
        f"neo3df: {tmp_path / 'other.npz'}: neither a saved face model nor the ICT layout nor FLAME; it holds points"
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("segments.n_shape=3", "unknown key 'segments.n_shape'; did you mean 'n_shapes'?"),
        ("fit.iterations=0", "fit.iterations is 0, expected greater than 0"),
        ("dataset.validation_share=1.5", "dataset.validation_share is 1.5, expected less than 1"),
        ("fit.start=truth", "fit.start is 'truth', expected 'network' or 'landmark'"),
        ("dataset.images=${NEO3DF_NOWHERE}/x", "a path with the environment variable NEO3DF_NOWHERE set"),
    ],
)
def test_a_configuration_that_is_wrong(override, message, neo3df, config):
    status, lines = neo3df("run", "-c", config, "--set", override)
    assert status == 2
    (line,) = lines
    assert line.startswith("neo3df: --set: ")
    assert message in line


def test_a_folder_without_photos_and_one_that_is_not_there(neo3df, config, tmp_path):
    (tmp_path / "photos").mkdir()
    for name, message in (("photos", "holds no file ending in"), ("absent", "does not exist")):
        status, lines = neo3df("run", "-c", config, "--set", f"dataset.images={tmp_path / name}")
        assert status == 2
        (line,) = lines
        assert line.startswith(f"neo3df: no photographs: {tmp_path / name} {message}")


def test_photos_of_which_none_can_be_used(neo3df, config, tmp_path, monkeypatch):
    monkeypatch.setattr("flows.real_photos.PhotoPreparer.__init__", lambda self: None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (30, 30)).save(tmp_path / "photos" / "b.png")
    status, lines = neo3df("run", "-c", config, "--set", f"dataset.images={tmp_path / 'photos'}")
    assert status == 2
    assert lines[-1].startswith("neo3df: none of the 2 photographs could be used; the first one: a.jpg: ")


def test_reconstruct_without_a_run_or_photo(neo3df, tmp_path):
    status, lines = neo3df("reconstruct", "x.jpg", "-o", "out")
    assert status == 2
    assert lines == ["neo3df: no run under runs; make one with neo3df run, or name one with --run"]
    status, lines = neo3df("reconstruct", "x.jpg", "-o", "out", "--run", tmp_path)
    assert (status, lines) == (2, ["neo3df: no photographs: x.jpg does not exist"])
    Image.new("RGB", (80, 80)).save(tmp_path / "x.jpg")
    status, lines = neo3df("reconstruct", "x.jpg", "-o", "out", "--run", tmp_path)
    assert status == 2
    assert lines == [f"neo3df: {tmp_path} is not a run folder: no run.json; make one with neo3df run"]


def test_reports_and_exports_of_nothing(neo3df, tmp_path):
    assert neo3df("report", tmp_path)[1] == [
        f"neo3df: {tmp_path} is not a run folder: no run.json; make one with neo3df run"
    ]
    (tmp_path / "face.json").write_text("{}")
    status, lines = neo3df("export", "face.json", "-o", "face.glb")
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("neo3df: cannot read face face.json: ")


def test_a_run_folder_that_is_a_file(neo3df, config, tmp_path):
    (tmp_path / "run").write_text("in the way")
    status, lines = neo3df("run", "-c", config)
    assert status == 2
    assert len(lines) == 1
    assert str(tmp_path / "run") in lines[0]
