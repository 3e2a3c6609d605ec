"""A run whose bytes have changed is found out, whatever changed, and no reader gives wrong numbers for it."""

import shutil

import numpy as np
import pytest

from flows.cli import app
from flows.errors import UserError
from flows.report import publish
from flows.sealed import read_json_sealed, write_json_sealed
from flows.store import find_output, load_run, stage_folders
from flows.tables import read_table, table_metadata
from flows.verify import verify_run

DAMAGES = 240


@pytest.fixture(scope="module")
def published_run(tiny_run, tmp_path_factory):
    """A copy of the tiny run with its report, face.json and face.glb."""
    folder = shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("published") / "run")
    publish(folder)
    return folder


@pytest.fixture
def run(published_run, tmp_path):
    """A run that a test may spoil."""
    return shutil.copytree(published_run, tmp_path / "run")


def files(run):
    """Every file that a stage, or the run itself, has written."""
    return [path for path in sorted(run.rglob("*")) if path.is_file() and ".locks" not in path.parts]


def damage(path, kind, random):
    """Flip a bit, cut the end off, or delete."""
    data = bytearray(path.read_bytes())
    if kind == "delete":
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(data[: int(random.integers(len(data)))])
    else:
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        path.write_bytes(data)


def test_an_untouched_run_is_in_order(run):
    assert verify_run(run) == []


def test_every_damage_is_found_and_no_reader_is_taken_in(run):
    random = np.random.default_rng(0)
    everything = files(run)
    stages = {folder.name: folder.name.rpartition("-")[0] for folder in stage_folders(run)}
    assert {path.suffix for path in everything} >= {".json", ".parquet", ".npz", ".safetensors", ".pt", ".html", ".glb"}
    for i in range(DAMAGES):
        path = everything[i % len(everything)] if i < len(everything) else everything[random.integers(len(everything))]
        if path.stat().st_size == 0:
            continue
        whole = path.read_bytes()
        contract = table_metadata(path)["contract"] if path.suffix == ".parquet" else ""
        damage(path, ("flip", "flip", "truncate", "delete")[i % 4], random)

        found = verify_run(run)
        assert [each.path for each in found] == [path]
        top = path.relative_to(run).parts[0]
        if top in stages:
            stage = stages[top]
            assert f"--refresh {stage}" in found[0].remedy
            if path.suffix == ".parquet":
                with pytest.raises(UserError):
                    read_table(path, contract)
            else:
                with pytest.raises(UserError, match=r"has changed since it was written|is incomplete"):
                    find_output(run, stage)
        elif top == "run.json":
            assert "delete it and run again" in found[0].remedy
            if path.exists():
                with pytest.raises(UserError, match=r"run\.json is damaged"):
                    load_run(run)
        else:
            assert "neo3df report" in found[0].remedy
        path.write_bytes(whole)
    assert verify_run(run) == []


def test_a_flip_anywhere_in_a_table_is_refused_by_its_reader(run):
    """Headers, statistics and footer included, which Parquet's own page checksums leave open."""
    path = next(iter(sorted(run.glob("fit_controllers-*/controllers.parquet"))))
    whole = path.read_bytes()
    expected = read_table(path, "controllers")
    for at in np.linspace(0, len(whole) - 1, 400).astype(int):
        spoilt = bytearray(whole)
        spoilt[at] ^= 4
        path.write_bytes(spoilt)
        with pytest.raises(UserError):
            read_table(path, "controllers")
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_table(path, "controllers")["sigma"], expected["sigma"])


def test_a_stage_does_not_start_on_damaged_models(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    path = next(iter(run.glob("train_segments-*/model/model.safetensors")))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    message = r"model\.safetensors has changed since it was written; run neo3df run --refresh train_segments"
    with pytest.raises(UserError, match=message):
        tiny_run.pipeline(run_dir=run, sections={"controllers": {"n_faces": 150}}).execute()


def test_refreshing_the_stage_that_verify_names_mends_the_run(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    path = next(iter(run.glob("transfer_labels-*/topology_vertices.parquet")))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert [found.remedy for found in verify_run(run)] == ["neo3df run --refresh transfer_labels"]
    outcomes = tiny_run.pipeline(run_dir=run, refresh=["transfer_labels"]).execute()
    assert {outcome.name for outcome in outcomes if outcome.status == "ran"} == {"transfer_labels"}
    assert path.read_bytes() == whole
    assert verify_run(run) == []


def test_the_command_exits_with_1_where_something_is_damaged(run):
    from typer.testing import CliRunner

    good = CliRunner().invoke(app, ["verify", str(run)])
    assert (good.exit_code, good.output.strip()) == (0, "every file is what was written")
    (run / "report.html").write_text("<html>")
    bad = CliRunner().invoke(app, ["verify", str(run)])
    assert bad.exit_code == 1
    assert "report.html: altered; neo3df report" in bad.output
    assert "1 damaged" in bad.output


def test_no_run_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="there is no run folder"):
        verify_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run folder: no run\.json"):
        verify_run(tmp_path)


def test_sealed_json_refuses_a_flip_of_any_byte(tmp_path):
    path = tmp_path / "a.json"
    value = {"stage": "s", "seconds": 1.25, "files": [{"name": "é", "bytes": 3}]}
    write_json_sealed(path, value)
    assert read_json_sealed(path) == value
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(ValueError):  # noqa: PT011  the many ways in which text is no JSON
            read_json_sealed(path)
