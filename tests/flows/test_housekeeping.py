"""What a run folder holds, what became of a photograph in it, and what of it may go."""

import shutil

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from flows import cli
from flows.errors import UserError
from flows.gc import collect_garbage, find_garbage
from flows.inspect import lineage, summarise
from flows.store import load_manifest, stage_folders
from flows.tables import read_table
from flows.verify import verify_run


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run."""
    return shutil.copytree(tiny_run.folder, tmp_path / "run")


def face_ids(run, split):
    rows = read_table(sorted(run.output("build_dataset").glob("faces-*.parquet")), "faces")
    return [name for name, found in zip(rows["face_id"], rows["split"], strict=True) if found == split]


def test_the_summary_counts_what_the_manifests_count(tiny_run):
    stages = summarise(tiny_run.folder)
    assert [stage.stage for stage in stages] == [outcome.name for outcome in tiny_run.outcomes]
    for stage, outcome in zip(stages, tiny_run.outcomes, strict=True):
        manifest = load_manifest(outcome.folder)
        on_disk = [path for path in outcome.folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
        assert (stage.key, stage.files) == (outcome.key, len(on_disk))
        assert stage.bytes == sum(path.stat().st_size for path in on_disk)
        assert sum(stage.tables.values()) == manifest.rows == outcome.rows
    faces = next(stage for stage in stages if stage.stage == "build_dataset").tables
    assert (faces["faces"], faces["masks"]) == (16, 16)


def test_a_photograph_is_followed_from_its_crop_to_its_fit(tiny_run):
    fitted = face_ids(tiny_run, "validation")[0]
    steps = lineage(tiny_run.folder, fitted)
    stages = [stage.name for stage in tiny_run.pipeline()._stages]
    order = [stages.index(step.stage) for step in steps]
    assert order == sorted(order)
    assert {"crops", "faces", "masks", "encodings", "fits", "overlaps"} <= {step.table for step in steps}
    fit = next(step for step in steps if step.table == "fits")
    rows = read_table(tiny_run.output("fit_photos") / fit.file, "fits")
    row = rows["face_id"].index(fitted)
    assert f"{rows['iou_after'][row].mean():.3f} after" in fit.says
    in_training = lineage(tiny_run.folder, face_ids(tiny_run, "train")[0])
    assert "fits" not in {step.table for step in in_training}
    with pytest.raises(UserError, match="knows no photograph 'nobody'"):
        lineage(tiny_run.folder, "nobody")


def test_nothing_of_a_fresh_run_is_garbage(run):
    assert find_garbage(run) == []


def test_older_outputs_and_leftovers_go_and_nothing_else(tiny_run, run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and ".locks" not in path.parts}
    older = next(folder for folder in stage_folders(run) if folder.name.startswith("evaluate-"))
    outdated = shutil.copytree(older, older.with_name("evaluate-0123456789abcdef"))
    half = run / ".work-fit_photos-0123456789abcdef"
    half.mkdir()
    (half / "fits-00000.parquet").write_bytes(b"x" * 100)
    stray = older / ".face.json.abc.tmp"
    stray.write_bytes(b"half a file")
    (run / "notes.txt").write_text("mine")
    (run / "my-folder").mkdir()
    planned = find_garbage(run)
    assert {found.path for found in planned} == {outdated, half, stray}
    assert next(found for found in planned if found.path == half).bytes == 100
    assert collect_garbage(run) == planned
    assert find_garbage(run) == []
    assert (run / "notes.txt").read_text() == "mine"
    assert (run / "my-folder").is_dir()
    assert all(path.read_bytes() == data for path, data in before.items())
    assert verify_run(run) == []
    assert {outcome.status for outcome in tiny_run.pipeline(run_dir=run).execute()} == {"cached"}


def test_what_a_stage_was_made_from_is_kept(tiny_run, run):
    """After another configuration of one stage, the outputs that the record's stages came from stay."""
    tiny_run.pipeline(run_dir=run, sections={"controllers": {"n_faces": 150}}, only=["fit_controllers"]).execute()
    names = {found.path.name.rpartition("-")[0] for found in find_garbage(run)}
    assert names == set()  # the older map still made the newest fits
    with pytest.raises(UserError, match="is not a run folder"):
        find_garbage(run / "my-folder-that-is-none")


def test_a_stage_in_the_making_is_no_garbage(run):
    work = run / ".work-evaluate-0123456789abcdef"
    work.mkdir()
    with FileLock(run / ".locks" / "evaluate-0123456789abcdef.lock"):
        assert find_garbage(run) == []
    assert [found.path for found in find_garbage(run)] == [work]


def test_from_makes_a_stage_and_all_that_depend_on_it_again(tiny_run, run):
    plan = tiny_run.pipeline(run_dir=run, begin="fit_photos").plan()
    again = {stage.name for stage in plan if stage.status != "cached"}
    assert again == {"fit_photos", "compare_edits", "evaluate"}
    outcomes = tiny_run.pipeline(run_dir=run, begin="evaluate").execute()
    assert [outcome.name for outcome in outcomes if outcome.status == "ran"] == ["evaluate"]
    with pytest.raises(UserError, match="there is no stage 'fit'"):
        tiny_run.pipeline(run_dir=run, begin="fit")


def test_the_commands_print_what_they_found(tiny_run, run):
    invoke = CliRunner().invoke
    shown = invoke(cli.app, ["inspect", str(run)]).output
    assert "train_segments" in shown
    assert "segmodel" in shown
    photo = face_ids(tiny_run, "validation")[0]
    assert "mean IoU" in invoke(cli.app, ["inspect", str(run), "--photo", photo]).output
    (run / ".old-evaluate-0123456789abcdef").mkdir()
    assert "0.0 MB to be freed" in invoke(cli.app, ["gc", "--dry-run", str(run)]).output
    assert (run / ".old-evaluate-0123456789abcdef").exists()
    assert "0.0 MB freed" in invoke(cli.app, ["gc", str(run)]).output
    assert not (run / ".old-evaluate-0123456789abcdef").exists()
