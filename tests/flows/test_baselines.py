"""The stage that trains the part models' rivals: one word in the configuration each, nothing without one."""

import shutil

import numpy as np
import pytest

from flows.config import parse_config
from flows.errors import UserError
from flows.pipeline import Pipeline, PlainRunner
from flows.run_data import load_faces
from flows.stages import STAGES
from flows.tables import read_table
from segmodel import REGIONS, SegmentModel, load_baseline

SECTION = {"models": ["part-pca", "global-pca", "global-vae", "ld-vae"], "epochs": 2, "steps": 20}


@pytest.fixture(scope="module")
def with_baselines(tiny_run, tmp_path_factory):
    """(outcomes, output folder) of the tiny run with all baselines."""
    folder = tmp_path_factory.mktemp("baselines") / "run"
    shutil.copytree(tiny_run.folder, folder)
    config = parse_config({**tiny_run.values, "run_dir": folder, "baselines": SECTION})
    outcomes = Pipeline(STAGES, config, only=["train_baselines"]).execute(PlainRunner)
    return outcomes, outcomes[-1].folder


def test_nothing_is_trained_unless_named(tiny_run, tmp_path):
    nobody, only = {"baselines": {"models": []}}, ["train_baselines"]
    (outcome,) = tiny_run.pipeline(tmp_path, nobody, only=only).execute(PlainRunner)
    assert sorted(path.name for path in outcome.folder.iterdir()) == ["manifest.json", "metrics.parquet"]
    assert len(read_table(outcome.folder / "metrics.parquet", "metrics")["value"]) == 0
    (plan,) = tiny_run.pipeline(tmp_path, {**nobody, "segments": {"epochs": 3}}, only=only).plan()
    assert plan.key == outcome.key, "without a model it depends on nothing"


def test_only_the_baselines_run_when_they_are_added(with_baselines):
    outcomes, _ = with_baselines
    assert {outcome.name for outcome in outcomes if outcome.status == "ran"} == {"train_baselines"}


def test_every_model_is_kept_with_its_latents_and_errors(with_baselines, tiny_run):
    _, folder = with_baselines
    segments = SegmentModel.load(tiny_run.output("train_segments") / "model")
    faces = load_faces(tiny_run.output("build_dataset"))
    metrics = read_table(folder / "metrics.parquet", "metrics")
    rows = list(zip(metrics["method"], metrics["part"], metrics["metric"], metrics["value"], strict=True))
    for name in SECTION["models"]:
        model = load_baseline(name, folder / name, segments.layout.topology_hash)
        assert sum(model.latent_dims.values()) == sum(segments.latent_dims.values())
        contract = "face_latents" if name.startswith("global") else "latents"
        table = read_table(folder / f"latents-{name}.parquet", contract, topology_hash=segments.layout.topology_hash)
        assert table["face_id"] == faces.face_id
        for key, dim in model.latent_dims.items():
            assert table[f"z_{key}"].shape == (len(faces.face_id), dim)
        errors = {part: value for method, part, metric, value in rows if (method, metric) == (name, "rms")}
        assert set(errors) == {*REGIONS, "all"}
        assert 0 < errors["all"] < 20


def test_histories_are_kept(with_baselines):
    _, folder = with_baselines
    history = read_table(sorted(folder.glob("history-*.parquet")), "history")
    assert set(history["model"]) == {"global-vae", "ld-vae"}
    assert np.isfinite(history["value"]).all()
    assert {"loss", "reconstruction", "kl", "consistency", "laplacian", "held_out_rms_mm"} == {
        metric for model, metric in zip(history["model"], history["metric"], strict=True) if model == "ld-vae"
    }
    steps = [e for m, e in zip(history["model"], history["epoch"], strict=True) if m == "ld-vae"]
    assert max(steps) == 20


def test_an_unknown_baseline_is_named():
    with pytest.raises(UserError, match=r"baselines\.models.*"):
        parse_config({"baselines": {"models": ["pca"]}})
