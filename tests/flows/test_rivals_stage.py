"""The stage that treats the part models' rivals as ours are treated, and the tables it makes."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fitting import part_iou
from flows.comparison.label_images import label_images
from flows.comparison.rival_fit import RivalFitter
from flows.comparison.shape_error import shape_error_columns, shape_errors
from flows.config import parse_config
from flows.global_fit import GlobalFitter
from flows.methods import ESTIMATE, FINE_TUNED, FITTED, GLOBAL_3DMM, MASK, OURS_WITHOUT_MODES, PRE_TRAINED, TRUTH
from flows.pipeline import PlainRunner, StageContext
from flows.run_data import load_faces, validation_faces
from flows.run_model import load_part_face_model
from flows.settings import FitConfig
from flows.stages import rivals
from flows.tables import read_table
from segmodel import ImageRegressors, LinearShapes, load_baseline, train_baseline

SECTIONS = {
    "baselines": {"models": ["global-pca", "part-pca"]},
    "fine_tune": {"epochs": 2, "lr": 3e-3},
    "fit": {"variables": "latents", "modes": True, "offsets": "xyz", "expression": True, "iterations": 6},
}
STEPS = (PRE_TRAINED, FINE_TUNED, FITTED)
METHODS = {
    "global-pca": [("global PCA", step) for step in STEPS],
    "part-pca": [("part PCA (PB-3DMM)", step) for step in STEPS],
    "global-3dmm": [(GLOBAL_3DMM, FITTED)],
    "global-3dmm-modes": [("global 3DMM with modes", FITTED)],
    "neo3df-no-modes": [(OURS_WITHOUT_MODES, FITTED)],
}
COUNTS = ("intersection", "union", "predicted_area", "target_area")


@pytest.fixture(scope="module")
def with_rivals(tiny_run, tmp_path_factory):
    """{stage: output folder} of the tiny run with two baselines, compared."""
    folder = tmp_path_factory.mktemp("rivals") / "run"
    shutil.copytree(tiny_run.folder, folder)
    outcomes = tiny_run.pipeline(folder, SECTIONS, only=["compare_rivals"]).execute(PlainRunner)
    return {outcome.name: outcome.folder for outcome in outcomes}


@pytest.fixture(scope="module")
def faces(tiny_run):
    return validation_faces(load_faces(tiny_run.output("build_dataset")))


@pytest.fixture(scope="module")
def model(tiny_run):
    stages = ("build_dataset", "train_segments", "learn_modes")
    return load_part_face_model({stage: tiny_run.output(stage) for stage in stages})


@pytest.fixture(scope="module")
def global_pca(model):
    """With more components than the face model has."""
    face_model = model.face_model
    shapes = LinearShapes(face_model.mean, face_model.id_basis, face_model.sample(400, 0))
    return train_baseline("global-pca", model.segments.layout, shapes)[0]


def context_of(tiny_run, inputs, out, sections=SECTIONS):
    values = {**tiny_run.values, **{name: {**tiny_run.values.get(name, {}), **v} for name, v in sections.items()}}
    return StageContext(parse_config({**values, "run_dir": tiny_run.folder}), inputs, out, tiny_run.folder)


def test_nothing_is_compared_unless_baselines_are_named(tiny_run, tmp_path):
    nobody, only = {"baselines": {"models": []}}, ["compare_rivals"]
    (outcome,) = tiny_run.pipeline(tmp_path, nobody, only=only).execute(PlainRunner)
    assert sorted(path.name for path in outcome.folder.iterdir()) == ["manifest.json", "metrics.parquet"]
    assert len(read_table(outcome.folder / "metrics.parquet", "metrics")["value"]) == 0
    otherwise = {**nobody, "fit": {"iterations": 3}, "regressors": {"epochs": 7}}
    (plan,) = tiny_run.pipeline(tmp_path, otherwise, only=only).plan()
    assert plan.key == outcome.key, "without a rival it depends on nothing"


@pytest.mark.parametrize("shard", METHODS)
def test_every_method_has_a_finite_row_for_every_face(with_rivals, faces, shard):
    folder, methods = with_rivals["compare_rivals"], METHODS[shard]
    wanted = [(face, model, step) for model, step in methods for face in faces.face_id]
    tables = {name: read_table(folder / f"{name}-{shard}.parquet", name) for name in ("overlaps", "shape_errors")}
    tables["drawn_labels"] = read_table(folder / f"drawn_labels-{shard}.parquet", "drawn_labels")
    for table in tables.values():
        assert list(zip(table["face_id"], table["model"], table["step"], strict=True)) == wanted
    assert set(tables["overlaps"]["reference"]) == {MASK}
    assert set(tables["shape_errors"]["reference"]) == {TRUTH}
    assert tables["overlaps"]["person"] == list(faces.person) * len(methods)
    errors = tables["shape_errors"]
    assert errors["rms"].shape == (len(wanted), 6)
    for values in (errors["rms"], errors["rms_face"]):
        assert np.isfinite(values).all()
        assert (values > 0.01).all()
        assert (values < 20).all()
    drawn, masks = tables["drawn_labels"]["labels"], np.concatenate([faces.masks()[0]] * len(methods))
    overlap = part_iou(drawn, masks)
    for key in COUNTS:
        assert np.array_equal(tables["overlaps"][key], getattr(overlap, key))
    assert overlap.summary()["mean_of_parts"] > 0.2


def test_no_other_rival_is_compared(with_rivals):
    found = {path.name for path in with_rivals["compare_rivals"].glob("overlaps-*.parquet")}
    assert found == {f"overlaps-{shard}.parquet" for shard in METHODS}


def test_modes_are_compared_only_where_there_are_modes(tiny_run, with_rivals, tmp_path):
    def names(models, modes, inputs):
        sections = {"baselines": {"models": models}, "fit": {"modes": modes}}
        return rivals.shards(context_of(tiny_run, inputs, tmp_path, sections))

    without = {**with_rivals, "learn_modes": tmp_path}
    assert names(["ld-vae", "ld-vae"], False, with_rivals) == ["ld-vae", "global-3dmm"]
    assert names(["ld-vae"], True, without) == ["ld-vae", "global-3dmm", "neo3df-no-modes"]
    assert names([], True, with_rivals) == []


@pytest.mark.parametrize("shard", ["global-pca", "part-pca"])
def test_fine_tuning_changes_the_network_and_what_it_answers(with_rivals, shard):
    folder = with_rivals["compare_rivals"]
    before, after = (
        ImageRegressors.load(folder / f"regressors-{shard}-{step}.safetensors") for step in (PRE_TRAINED, FINE_TUNED)
    )
    rival = load_baseline(shard, with_rivals["train_baselines"] / shard)
    code = torch.randn(2, before.encoding_dim, generator=torch.Generator().manual_seed(0))
    assert {name: z.shape[1] for name, z in before(code).items()} == rival.latent_dims
    assert not all(torch.equal(z, after(code)[name]) for name, z in before(code).items())
    errors = read_table(folder / f"shape_errors-{shard}.parquet", "shape_errors")
    faces = len(errors["face_id"]) // 3
    assert not np.array_equal(errors["rms"][:faces], errors["rms"][faces : 2 * faces])


def test_losses_and_realism_are_kept(with_rivals):
    metrics = read_table(with_rivals["compare_rivals"] / "metrics.parquet", "metrics")
    rows = {(m, metric): v for m, metric, v in zip(metrics["method"], metrics["metric"], metrics["value"], strict=True)}
    for shard in METHODS:
        title = METHODS[shard][0][0]
        assert rows[title, "set_aside"] == 0
        assert 0 <= rows[title, "flipped_fraction"] < 0.1
        assert 0 < rows[title, "moved_mean"] < 20
        assert 0 < rows[title, "latent_rms"] < 4
        own = read_table(with_rivals["compare_rivals"] / f"metrics-{shard}.parquet", "metrics")
        assert set(own["metric"]) <= set(metrics["metric"])
    for shard in SECTIONS["baselines"]["models"]:
        title = METHODS[shard][0][0]
        assert rows[f"{title}, fine-tuned", "total"] < rows[f"{title}, pre-trained", "total"]
        assert 0 < rows[f"{title}, pre-trained", "rms_mm"] < 20


def test_the_same_bytes_when_it_is_made_again(tiny_run, with_rivals, tmp_path):
    shard = "global-pca"
    rivals.run_shard(context_of(tiny_run, with_rivals, tmp_path), shard)
    made = sorted(path.name for path in tmp_path.iterdir())
    kept = [path.name for path in with_rivals["compare_rivals"].glob(f"*-{shard}*")]
    assert made == sorted(kept)
    assert len(made) == 6
    for name in made:
        assert (tmp_path / name).read_bytes() == (with_rivals["compare_rivals"] / name).read_bytes()


def started(model, faces, rival, settings):
    """The faces fitted by a rival from the landmark estimate on."""
    with torch.no_grad():
        latents = rival.encode(torch.from_numpy(model.face_model.shape(faces.identity)))
    return RivalFitter(model, rival, settings).fit(latents, faces.pose, *faces.masks())


def test_a_rival_that_knows_every_shape_begins_as_the_estimate_and_improves(model, faces, global_pca):
    settings = FitConfig(variables="latents", modes=False, expression=True, iterations=8)
    fitted = started(model, faces, global_pca, settings)
    shapes = torch.from_numpy(model.face_model.shape(faces.identity))
    estimate = part_iou(label_images(model, shapes, faces.pose), faces.masks()[0], faces.masks()[1])
    np.testing.assert_allclose(fitted.result.overlap_before.iou(), estimate.iou(), atol=0.005)
    before, after = (
        overlap.summary()["mean_of_parts"] for overlap in (fitted.result.overlap_before, fitted.result.overlap_after)
    )
    assert after > before + 0.01
    again = label_images(model, fitted.neutral, fitted.pose)
    assert np.array_equal(again, fitted.result.labels_after)


def test_a_rival_in_the_basis_of_the_face_model_fits_as_the_global_fitter_does(model, faces, global_pca):
    """Latents and identity span the same faces, so that one fit is a rotation of the other's unknowns."""
    settings = FitConfig(variables="latents", modes=False, iterations=8, prior=1e-4)
    by_latents = started(model, faces, global_pca, settings).result
    whole = GlobalFitter(model, None, 0, settings)
    by_identity = whole.fit(torch.from_numpy(faces.identity.copy()), faces.pose, *faces.masks()).result
    gains = [r.overlap_after.iou() - r.overlap_before.iou() for r in (by_latents, by_identity)]
    assert np.abs(np.nanmean(gains[0]) - np.nanmean(gains[1])) < 0.03


def test_latents_stay_within_three_sigma_unless_they_start_beyond(model, faces, global_pca):
    settings = FitConfig(variables="latents", modes=False, iterations=6, learning_rate=2.0, prior=0.0)
    mean, std = global_pca.latent_mean["face"], global_pca.latent_std["face"]
    start = (mean + 2.9 * std).repeat(len(faces), 1)
    start[:, 0] = mean[0] - 5 * std[0]
    fitted = RivalFitter(model, global_pca, settings).fit({"face": start}, faces.pose, *faces.masks())
    used = global_pca.network.axis_std > 0
    assert fitted.sigma[:, 1:].abs().max() <= 3 + 1e-4
    assert fitted.sigma[:, 0].min() >= -5 - 1e-4
    assert (fitted.sigma[:, used] - ((start - mean) / std)[:, used]).abs().max() > 0.5


def test_shape_errors_are_those_of_the_region_that_moved(model, faces):
    layout = model.segments.layout
    shapes = model.face_model.shape(faces.true_identity)
    shapes[0, layout.core("nose")] += np.array([0, 0.6, 0.8], np.float32)
    errors = shape_errors(shapes, faces, model.face_model, layout)
    wanted = np.zeros((len(faces), 6))
    wanted[0, 2] = 1
    np.testing.assert_allclose(errors.rms, wanted, atol=1e-4)
    share = len(layout.core("nose")) / layout.n_vertices
    np.testing.assert_allclose(errors.rms_face[0], np.sqrt(share), atol=1e-4)
    assert set(shape_error_columns(faces, {("a", "b"): errors})["reference"]) == {TRUTH}


def test_shape_errors_are_against_the_estimate_where_no_truth_is_known(model, faces):
    unknown, layout = replace(faces, true_identity=None), model.segments.layout
    shapes = model.face_model.shape(faces.identity)
    errors = shape_errors(shapes, unknown, model.face_model, layout)
    assert np.abs(errors.rms).max() < 1e-4
    assert shape_errors(shapes, faces, model.face_model, layout).rms_face.min() > 0.05
    assert set(shape_error_columns(unknown, {("a", "b"): errors})["reference"]) == {ESTIMATE}
    with pytest.raises(ValueError, match="give one neutral shape for each face"):
        shape_errors(shapes[:1], faces, model.face_model, layout)
