import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import flows.stages
from flows import cli, dask_cluster, environment, store
from flows.errors import UserError
from flows.pipeline import PlainRunner, StageContext
from flows.prefect_runner import PrefectRunner, _await_mark, _run_shard, _ShardWork
from flows.prefect_server import temporary_server

SECONDS = 60


@pytest.fixture(scope="module")
def surroundings():
    """The environment of scheduler and workers, who import the fake stages."""
    pytest.importorskip("prefect_dask", reason="prefect-dask is not installed (pip install neo3df[dask])")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return {**kept, "PYTHONPATH": paths}


@pytest.fixture(scope="module")
def scheduler(surroundings, tmp_path_factory):
    """Address of a scheduler in a process of its own."""
    folder = tmp_path_factory.mktemp("scheduler")
    note = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", note]
    with (folder / "log").open("w") as log:
        process = dask("scheduler", *options, env=surroundings, log=log)
        await_that(note.exists)
        yield json.loads(note.read_text())["address"]
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def workers(surroundings, scheduler, tmp_path_factory):
    """Two worker processes, of which a test may kill one, and the file they print to."""
    folder = tmp_path_factory.mktemp("workers")
    path = folder / "log"
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder]
    with path.open("w") as log:
        processes = [dask("worker", scheduler, *options, env=surroundings, log=log) for _ in range(2)]
        await_that(lambda: path.read_text().count("Registered to:") == 2)
        yield processes, path
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def api(workers, tmp_path_factory):
    """A Prefect server that this process uses, and the workers through it; it starts while they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.delenv("PREFECT_API_URL", raising=False)
        environment.prepare()
        with temporary_server() as url:
            from prefect.events.worker import EventsWorker
            from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

            with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                yield
                EventsWorker.drain_all(timeout=10)


def dask(*arguments, env, log):
    return subprocess.Popen([sys.executable, "-m", "dask", *map(str, arguments)], env=env, stdout=log, stderr=log)


def await_that(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def output_files(folder):
    """Key of every stage of a run, and name, digest, size and rows of each of its files."""
    manifests = [store.load_manifest(found) for found in store.latest_outputs(folder).values()]
    return {manifest.stage: (manifest.key, manifest.files) for manifest in manifests}


def done(folder):
    return {path.name for path in folder.glob(".work-build_dataset-*/.done/0*")}


def free_address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_killed_worker_loses_nothing_and_the_bytes_are_those_of_threads(fake, scheduler, workers, api, tmp_path):
    folder, finished = tmp_path / "run", set()
    run = fake.pipeline(folder, ["dataset.count=8"])
    (folder / "slow").touch()

    def kill():
        await_that(lambda: len(done(folder)) >= 2)
        finished.update(done(folder))
        workers[0][0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    assert [outcome.status for outcome in run.execute(PrefectRunner(scheduler))] == ["ran"] * 3
    killer.join()
    assert workers[0][0].wait() == -signal.SIGKILL
    assert 2 <= len(finished) < 8
    fake.pipeline(tmp_path / "threads", ["dataset.count=8"]).execute(PrefectRunner("thread"))
    made = output_files(folder)
    assert made == output_files(tmp_path / "threads")
    assert [entry.rows for entry in made["build_dataset"][1]] == [1] * 8
    bodies = Counter(fake.bodies(folder))
    assert set(bodies) == {*(f"shard-{i:05d}" for i in range(8)), "build_dataset", "transfer_labels", "train_segments"}
    redone = {name for name, times in bodies.items() if times > 1}
    assert sum(bodies.values()) <= 8 + 3 + 1
    assert redone.isdisjoint(f"shard-{name}" for name in finished)


def test_a_shard_that_fails_is_tried_again_by_the_worker(fake, scheduler, workers, api, tmp_path, monkeypatch):
    monkeypatch.setenv(dask_cluster.SCHEDULER, scheduler)
    run = fake.pipeline(tmp_path / "run", ["dataset.count=1"])
    (tmp_path / "run" / "fail").write_text("disk")
    assert [outcome.status for outcome in run.execute(PrefectRunner("dask"))] == ["ran"] * 3
    assert fake.bodies(tmp_path / "run").count("shard-00000") == 2
    assert "build_dataset: shard 00000 failed: the disk hiccuped" in workers[1].read_text()


def test_workers_that_do_not_reach_prefect_are_named(scheduler, workers):
    nowhere = free_address().replace("tcp", "http") + "/api"
    with pytest.raises(UserError, match=rf"Dask worker tcp://.* does not reach the Prefect API {nowhere}; start"):
        dask_cluster.require_workers(scheduler, nowhere)
    with pytest.raises(UserError, match=r"Dask worker tcp://.* does not reach the Prefect API \(none set\); start"):
        dask_cluster.require_workers(scheduler, None)


def test_a_scheduler_without_workers_is_said(capsys):
    distributed = pytest.importorskip("distributed", reason="prefect-dask is not installed")
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp"
    ) as cluster:
        address = cluster.scheduler_address
        dask_cluster.require_workers(address, "http://127.0.0.1:1/api")
    assert capsys.readouterr().err == f"dask: {address} has no workers yet; shards wait for one\n"


def test_a_scheduler_that_does_not_answer_is_one_line(fake, surroundings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flows.stages, "STAGES", fake.STAGES)
    monkeypatch.setattr("flows.config.RunConfig", fake.FakeConfig)
    monkeypatch.setattr("flows.config.parse_config.__defaults__", ((), "configuration", fake.FakeConfig))
    monkeypatch.setattr(dask_cluster, "ANSWER_SECONDS", 0.5)
    (tmp_path / "small.yaml").write_text(f"run_dir: {tmp_path / 'run'}\n")
    address = free_address()
    command = ["neo3df", "run", "-c", str(tmp_path / "small.yaml"), "--scheduler", address]
    for arguments, message in (
        (["--runner", "dask"], f"neo3df: no Dask scheduler answers at {address}; start one with `dask scheduler` and"),
        (["--runner", "thread"], f"neo3df: --scheduler {address} needs --runner dask"),
    ):
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        with pytest.raises(SystemExit, match="2"):
            cli.main()
        err = capsys.readouterr().err
        assert err.startswith(message)
        assert err.count("\n") == 1
    assert not done(tmp_path / "run")


@pytest.mark.parametrize("tasks", ["dask", "tcp://127.0.0.1:8786"])
def test_without_prefect_dask_the_user_is_told_what_to_install(tasks, monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_dask", None)
    with pytest.raises(UserError, match=r"^--runner dask needs prefect-dask: pip install prefect-dask$"):
        PrefectRunner(tasks)


def work(fake, tmp_path, out):
    config = fake.FakeConfig(run_dir=tmp_path)
    return _ShardWork(fake.STAGES[0], StageContext(config, {}, out, tmp_path))


def test_a_worker_that_does_not_see_the_run_folder_refuses(fake, tmp_path):
    with pytest.raises(UserError, match=r"does not see .*elsewhere; share the run folder at this path"):
        _run_shard(work(fake, tmp_path, tmp_path / "elsewhere"), "00000")
    assert not (tmp_path / "elsewhere").exists()


def test_a_worker_with_other_packages_refuses(fake, tmp_path):
    shard = work(fake, tmp_path, tmp_path)
    shard.versions["dataset_builder"] = "99.0"
    with pytest.raises(UserError, match=r"has dataset_builder .*, the run 99\.0; install the same version"):
        _run_shard(shard, "00000")
    assert fake.bodies(tmp_path) == []


def test_a_shard_that_does_not_arrive_here_is_an_error(fake, tmp_path):
    with pytest.raises(UserError, match=r"shard 00000 was made, but not in .*is the run folder shared"):
        _await_mark(tmp_path, "00000", seconds=0)
    next(PlainRunner().shards(fake.STAGES[0], work(fake, tmp_path, tmp_path).context, ["00000"]))
    _await_mark(tmp_path, "00000", seconds=0)


def test_shards_that_dask_gave_up_are_explained():
    distributed = pytest.importorskip("distributed", reason="prefect-dask is not installed")
    killed = dask_cluster.explained(distributed.KilledWorker("shard", None, 3))
    assert str(killed).startswith("a shard was given up: 4 Dask workers died while making it")
    assert "scheduler went away" in str(dask_cluster.explained(distributed.CancelledError("shard")))
    other = OSError("disk")
    assert dask_cluster.explained(other) is other
