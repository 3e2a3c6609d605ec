"""torchrun: one process keeps the run, all of them train; run as a script by torchrun, this file is one of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from flows import cli
from flows.config import parse_config
from flows.errors import AnotherFailed
from flows.pipeline import Stage, StageContext
from flows.tables import read_table
from flows.torchrun import joined

TRAINED = ("train_segments", "train_regressors", "fine_tune")


def torchrun(*command, cwd):
    """Two processes on this machine, with a Prefect server of their own; what they print and their exit status."""
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, command)],
        cwd=cwd,
        env={**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def trained_by_two(tiny_run, tmp_path_factory):
    """(run folder, what was printed) of the tiny run with all its networks trained again, by two processes."""
    folder = tmp_path_factory.mktemp("torchrun")
    kept = [tiny_run.output(stage) for stage in ("build_dataset", "transfer_labels")]
    for output in kept:
        shutil.copytree(output, folder / "run" / output.name)
    (folder / "run.yaml").write_text(yaml.safe_dump({**tiny_run.values, "run_dir": str(folder / "run")}))
    finished = torchrun("-m", "flows.cli", "run", "-c", folder / "run.yaml", "--only", "fine_tune", cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return folder / "run", finished


def output(folder, stage):
    (found,) = folder.glob(f"{stage}-*")
    return found


def weights(folder):
    """Everything the three stages train, by stage, file and tensor."""
    found = {}
    for stage, file in (
        ("train_segments", "model/model.safetensors"),
        ("train_regressors", "regressors.safetensors"),
        ("fine_tune", "regressors.safetensors"),
    ):
        tensors = load_file(output(folder, stage) / file)
        found |= {f"{stage}/{name}": tensor for name, tensor in tensors.items()}
    for file in ("offsets.pt", "encoder.pt"):
        state = torch.load(output(folder, "fine_tune") / file, weights_only=True)
        found |= {f"fine_tune/{file}/{k}": v for k, v in state.items() if isinstance(v, torch.Tensor)}
    return found


def test_two_processes_train_what_one_does(trained_by_two, tiny_run):
    folder, _ = trained_by_two
    ours, expected = weights(folder), weights(tiny_run.folder)
    assert ours.keys() == expected.keys()
    assert len({name.split("/")[0] for name in ours}) == len(TRAINED)
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_the_tables_are_those_of_one_process(trained_by_two, tiny_run):
    folder, _ = trained_by_two
    for stage, contract in (*((stage, "metrics") for stage in TRAINED), ("fine_tune", "history")):
        ours, expected = (
            read_table(output(run, stage) / f"{contract}.parquet", contract) for run in (folder, tiny_run.folder)
        )
        np.testing.assert_allclose(ours["value"], expected["value"], rtol=1e-4, atol=1e-5)


def test_only_the_first_process_writes_and_speaks(trained_by_two, tiny_run):
    folder, finished = trained_by_two
    for stage in TRAINED:
        ours, expected = (sorted(p.name for p in output(run, stage).rglob("*")) for run in (folder, tiny_run.folder))
        assert ours == expected
        assert finished.stderr.count(f"{stage}: started") == 1
    assert not list(folder.glob(".work-*"))
    assert finished.stdout.count("3 ran, 2 cached") == 1


def act(context):
    """What the stages of the script do."""
    name, rank = context.config.seed, torch.distributed.get_rank()
    (context.out / f"{name}-{rank}").touch()
    torch.distributed.barrier()


def fail_everywhere(context):
    raise ValueError("bad batch")


def fail_in_the_second(context):
    if torch.distributed.get_rank() == 1:
        raise OSError("disk full")
    torch.distributed.barrier()


STAGES = [
    Stage("acts", lambda config: {}, run=act, together=True),
    Stage("fails", lambda config: {}, run=fail_everywhere, together=True),
    Stage("breaks", lambda config: {}, run=fail_in_the_second, together=True),
    Stage("alone", lambda config: {}, run=lambda context: print(torch.distributed.is_initialized())),
]


def be_a_worker(folder):
    """Lead, or follow until sent home; write what was raised."""
    team, config, raised = joined(), parse_config({}), []

    def noting(call):
        try:
            call()
        except Exception as error:
            raised.append([type(error).__name__, str(error)])
            return False
        return True

    if team.rank == 0:
        (folder / "out").mkdir()
        context = StageContext(config, {}, folder / "out", folder)
        with team.leading(STAGES) as stages:
            for stage in stages:
                noting(lambda stage=stage: stage.run(context))
    else:
        while not noting(lambda: team.follow(STAGES, config)):
            pass
    (folder / f"raised-{team.rank}.json").write_text(json.dumps(raised))


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    finished = torchrun(__file__, folder, cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return folder, finished, [json.loads((folder / f"raised-{rank}.json").read_text()) for rank in range(2)]


def test_others_write_nothing_and_stages_of_the_first_alone_have_no_group(script):
    folder, finished, _ = script
    assert [path.name for path in (folder / "out").iterdir()] == ["0-0"]
    assert finished.stdout.splitlines() == ["False"]


def test_a_failure_is_told_once_by_the_process_that_failed_first(script):
    _, _, raised = script
    everywhere, second = zip(*raised, strict=True)
    assert sorted(kind for kind, _ in everywhere)[0] == "AnotherFailed"
    assert sum(kind == "AnotherFailed" for kind, _ in everywhere) == 1
    assert any("bad batch" in words for _, words in everywhere)
    assert second == (
        ["AnotherFailed", "breaks: process 1 of 2 failed"],
        ["UserError", "breaks: process 1 of 2 failed: disk full"],
    )


def test_a_process_whose_companion_failed_ends_without_a_word(monkeypatch, capsys):
    def app(**arguments):
        raise AnotherFailed("train_segments: process 1 of 2 failed")

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["neo3df"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "values", [{}, {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "1"}, {"RANK": "1", "WORLD_SIZE": "2"}]
)
def test_there_is_no_team_without_torchrun_or_with_one_process(monkeypatch, values):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert joined() is None


if __name__ == "__main__":
    be_a_worker(Path(sys.argv[1]))
