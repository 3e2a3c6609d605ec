import subprocess
import sys

import pytest

import flows.stages
from dataset_builder import load_face_model
from flows import cli
from flows.console import print_headline, print_stages
from flows.pipeline import PlainRunner
from flows.tables import write_table


def run(monkeypatch, capsys, *arguments):
    """Exit status, standard output and standard error of one command, in this process."""
    monkeypatch.setattr(sys, "argv", ["neo3df", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    return caught.value.code or 0, printed.out, printed.err


@pytest.fixture
def configuration(fake, tmp_path, monkeypatch):
    """A configuration file for the fake stages, which take the place of the real ones; Prefect stays out."""
    monkeypatch.setattr(flows.stages, "STAGES", fake.STAGES)
    monkeypatch.setattr("flows.prefect_runner.PrefectRunner", lambda runner, workers: PlainRunner())
    monkeypatch.setattr("flows.config.RunConfig", fake.FakeConfig)
    monkeypatch.setattr("flows.config.parse_config.__defaults__", ((), "configuration", fake.FakeConfig))
    (tmp_path / "run").mkdir()
    path = tmp_path / "small.yaml"
    path.write_text(f"run_dir: {tmp_path / 'run'}\n")
    return path


def test_starting_the_command_line_imports_nothing_heavy():
    code = "import flows.cli, sys; print([m for m in ('torch', 'prefect', 'pyarrow', 'numpy') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert output.stdout.strip() == "[]"


def test_help_names_every_command(monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "--help")
    assert status == 0
    for command in ("demo", "run", "stage", "reconstruct", "report", "export", "assets"):
        assert command in out


def test_run_prints_the_stage_table(configuration, fake, tmp_path, monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "run", "-c", configuration)
    assert status == 0
    assert "3 ran, 0 cached" in out
    status, out, _ = run(monkeypatch, capsys, "run", "-c", configuration, "--set", "epochs=2")
    assert "1 ran, 2 cached" in out
    fake.bodies(tmp_path / "run")
    status, out, _ = run(monkeypatch, capsys, "stage", "transfer_labels", "-c", configuration)
    assert status == 0
    assert fake.bodies(tmp_path / "run") == ["transfer_labels"]


def test_dry_run_runs_nothing(configuration, fake, tmp_path, monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "run", "-c", configuration, "--dry-run", "--only", "build_dataset")
    assert status == 0
    assert "would run" in out
    assert fake.bodies(tmp_path / "run") == []


def test_run_dir_replaces_the_configured_folder(configuration, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    status, _, _ = run(monkeypatch, capsys, "run", "-c", configuration, "--run-dir", tmp_path / "other")
    assert status == 0
    assert (tmp_path / "other" / "run.json").exists()
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-c", "absent.yaml"], "neo3df: there is no configuration file absent.yaml\n"),
        (["run", "--set", "sead=1"], "neo3df: --set: unknown key 'sead'; did you mean 'seed'?\n"),
        (["run", "--only", "train"], "neo3df: there is no stage 'train'; stages are build_dataset, transfer_labels"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(arguments, message, configuration, monkeypatch, capsys):
    if "-c" not in arguments:
        arguments = [*arguments, "-c", str(configuration)]
    status, out, err = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert err.startswith(message.rstrip("\n"))
    assert err.count("\n") == 1
    assert out == ""


def test_a_mistake_inside_a_stage_is_one_line_too(configuration, tmp_path, monkeypatch, capsys):
    (tmp_path / "run" / "fail").write_text("user")
    status, _, err = run(monkeypatch, capsys, "run", "-c", configuration)
    assert status == 2
    assert err.splitlines()[-1] == "neo3df: the photo is upside down"


def test_a_face_model_is_described(monkeypatch, capsys):
    status, out, _ = run(monkeypatch, capsys, "model", "synthetic-3k")
    assert not status
    assert "mm" in out
    assert str(len(load_face_model("synthetic-3k").mean)) in out.replace(",", "")
    status, _, err = run(monkeypatch, capsys, "model", "nobody")
    assert status == 2
    assert "nobody" in err
    assert len(err.splitlines()) == 1


def test_debug_shows_where_it_happened(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "CRITICAL")
    monkeypatch.setattr(sys, "argv", ["neo3df", "run", "-c", str(tmp_path / "absent.yaml"), "--debug"])
    with pytest.raises(cli.UserError):
        cli.main()


def test_the_stage_and_headline_tables_hold_the_numbers(fake, tmp_path, capsys):
    outcomes = fake.pipeline(tmp_path).execute()
    print_stages(outcomes, 200.0)
    out = capsys.readouterr().out
    assert "3 ran, 0 cached, 3 min 20 s in all" in out
    assert "train_segments" in out
    metrics = {
        "method": ["pca", "pca", "ours", "ours"],
        "part": ["nose", "all", "nose", "eyes"],
        "metric": ["iou", "mean_of_five", "iou", "iou"],
        "value": [0.5, 0.25, 0.75, float("nan")],
        "n": [1, 1, 1, 1],
    }
    write_table(tmp_path / "evaluate" / "metrics.parquet", "metrics", metrics)
    print_headline(tmp_path / "evaluate")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["IoU", "eyes", "nose", "mean", "of", "five"]
    assert lines[1].split() == ["pca", "0.500", "0.250"]
    assert lines[2].split() == ["ours", "0.750"]
    print_headline(tmp_path / "nowhere")
    assert capsys.readouterr().out == ""
