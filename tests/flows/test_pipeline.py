import signal
import subprocess
import sys
import time

import pytest

from flows import store
from flows.errors import UserError
from flows.pipeline import Stage, in_order
from flows.tables import read_table

SHARDS = [f"shard-{i:05d}" for i in range(4)]
ALL = sorted([*SHARDS, "build_dataset", "transfer_labels", "train_segments"])


def statuses(outcomes):
    return {outcome.name: outcome.status for outcome in outcomes}


def start(fake, run_dir, *overrides):
    run_dir.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, fake.__file__, str(run_dir), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_first_run_makes_everything_and_the_second_nothing(fake, tmp_path):
    first = fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == ALL
    assert set(statuses(first).values()) == {"ran"}
    assert [outcome.rows for outcome in first] == [4, 0, 1]
    second = fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == []
    assert set(statuses(second).values()) == {"cached"}
    assert [outcome.folder for outcome in first] == [outcome.folder for outcome in second]


def test_cached_run_asks_for_no_runner_and_imports_neither_torch_nor_prefect(fake, tmp_path):
    fake.pipeline(tmp_path).execute()

    def refuse():
        raise AssertionError("a cached run must not make a runner")

    fake.pipeline(tmp_path).execute(refuse)
    output, _ = start(fake, tmp_path).communicate(timeout=60)
    assert output.split() == ["cached", "cached", "cached"]


def test_a_changed_setting_reruns_its_stage_and_the_dependants_only(fake, tmp_path):
    fake.pipeline(tmp_path).execute()
    fake.bodies(tmp_path)
    outcomes = fake.pipeline(tmp_path, ["epochs=2"]).execute()
    assert fake.bodies(tmp_path) == ["train_segments"]
    assert read_table(outcomes[-1].folder, "metrics")["value"][0] == 8.0
    fake.pipeline(tmp_path, ["seed=1"]).execute()
    assert fake.bodies(tmp_path) == ["train_segments", "transfer_labels"]


def test_going_back_to_an_older_setting_finds_its_output(fake, tmp_path):
    first = fake.pipeline(tmp_path).execute()
    fake.pipeline(tmp_path, ["epochs=2"]).execute()
    fake.bodies(tmp_path)
    again = fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == []
    assert store.latest_outputs(tmp_path)["train_segments"] == again[-1].folder == first[-1].folder


def test_refresh_with_equal_bytes_stops_there(fake, tmp_path):
    fake.pipeline(tmp_path).execute()
    fake.bodies(tmp_path)
    outcomes = fake.pipeline(tmp_path, refresh=["build_dataset"]).execute()
    assert fake.bodies(tmp_path) == sorted([*SHARDS, "build_dataset"])
    assert statuses(outcomes) == {"build_dataset": "ran", "transfer_labels": "cached", "train_segments": "cached"}


def test_refresh_with_other_bytes_reruns_what_reads_them(fake, tmp_path):
    first = fake.pipeline(tmp_path).execute()
    fake.bodies(tmp_path)
    (tmp_path / "salt").write_text("xx")
    outcomes = fake.pipeline(tmp_path, refresh=["build_dataset"]).execute()
    assert fake.bodies(tmp_path) == sorted([*SHARDS, "build_dataset", "train_segments"])
    assert outcomes[0].folder == first[0].folder
    assert outcomes[2].folder != first[2].folder
    assert read_table(outcomes[2].folder, "metrics")["value"][0] == 12.0


def test_a_changed_upstream_package_version_reruns(fake, tmp_path, monkeypatch):
    fake.pipeline(tmp_path).execute()
    fake.bodies(tmp_path)
    real = store.package_version
    monkeypatch.setattr(store, "package_version", lambda name: "99.0.0" if name == "segmodel" else real(name))
    fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == ["train_segments"]


def test_only_runs_the_stage_and_what_it_needs(fake, tmp_path):
    outcomes = fake.pipeline(tmp_path, only=["build_dataset"]).execute()
    assert statuses(outcomes) == {"build_dataset": "ran"}


def test_a_stage_alone_runs_itself_and_nothing_else(fake, tmp_path):
    with pytest.raises(UserError, match=r"stage build_dataset is not finished in .*--only build_dataset first"):
        fake.pipeline(tmp_path, only=["train_segments"], refresh=["train_segments"], alone=True).execute()
    assert fake.bodies(tmp_path) == []
    fake.pipeline(tmp_path).execute()
    fake.bodies(tmp_path)
    fake.pipeline(tmp_path, only=["train_segments"], refresh=["train_segments"], alone=True).execute()
    assert fake.bodies(tmp_path) == ["train_segments"]


def test_plan_says_what_would_run_and_runs_nothing(fake, tmp_path):
    planned = fake.pipeline(tmp_path).plan()
    assert [stage.status for stage in planned] == ["run", "run", "unknown"]
    assert fake.bodies(tmp_path) == []
    fake.pipeline(tmp_path).execute()
    assert [stage.status for stage in fake.pipeline(tmp_path, ["epochs=3"]).plan()] == ["cached", "cached", "run"]


def test_an_unknown_stage_is_named_with_the_known_ones(fake, tmp_path):
    with pytest.raises(UserError, match="no stage 'train'; stages are build_dataset, transfer_labels, train_segments"):
        fake.pipeline(tmp_path, only=["train"])


def test_a_lost_or_cut_output_file_is_made_again(fake, tmp_path):
    outcomes = fake.pipeline(tmp_path).execute()
    fake.bodies(tmp_path)
    (outcomes[0].folder / "history-00002.parquet").unlink()
    fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == sorted([*SHARDS, "build_dataset"])
    with (outcomes[1].folder / "labels.txt").open("a") as stream:
        stream.write("more")
    fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == ["transfer_labels"]


def test_a_failing_shard_keeps_the_finished_ones(fake, tmp_path):
    (tmp_path / "fail").write_text("user")
    with pytest.raises(UserError, match="upside down"):
        fake.pipeline(tmp_path).execute()
    assert fake.bodies(tmp_path) == ["shard-00000"]
    fake.pipeline(tmp_path, only=["build_dataset"]).execute()
    assert fake.bodies(tmp_path) == sorted([*SHARDS, "build_dataset"])


def test_sigkill_in_the_middle_keeps_finished_shards(fake, tmp_path):
    (tmp_path / "slow").touch()
    process = start(fake, tmp_path)
    deadline = time.monotonic() + 60
    while len(done := list(tmp_path.glob(".work-build_dataset-*/.done/0*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {f"shard-{path.name}" for path in tmp_path.glob(".work-build_dataset-*/.done/0*")}
    assert 2 <= len(done) <= len(finished) < 4
    assert not list(tmp_path.glob("build_dataset-*"))
    (tmp_path / "slow").unlink()
    fake.bodies(tmp_path)
    outcomes = fake.pipeline(tmp_path, only=["build_dataset"]).execute()
    assert fake.bodies(tmp_path) == sorted([*(set(SHARDS) - finished), "build_dataset"])
    assert sorted(path.name for path in outcomes[0].folder.iterdir()) == [
        *(f"history-{i:05d}.parquet" for i in range(4)),
        "manifest.json",
    ]


def test_two_processes_at_once_run_each_body_once(fake, tmp_path):
    (tmp_path / "slow").touch()
    processes = [start(fake, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert fake.bodies(tmp_path) == ALL
    assert sorted(output[0] for output in outputs) == ["cached", "ran"]


def test_stages_are_sorted_by_need_and_cycles_refused():
    def stage(name, *needs):
        return Stage(name, lambda config: {}, run=lambda context: None, needs=needs)

    ordered = in_order([stage("c", "b"), stage("a"), stage("b", "a")])
    assert [found.name for found in ordered] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="stages a, b need each other"):
        in_order([stage("a", "b"), stage("b", "a")])
    with pytest.raises(ValueError, match="shards and run_shard go together"):
        Stage("x", lambda config: {}, shards=lambda context: [])
    with pytest.raises(ValueError, match="nothing to run"):
        Stage("x", lambda config: {})
