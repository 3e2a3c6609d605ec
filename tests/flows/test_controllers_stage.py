"""What fit_controllers promises: controls that respond as asked, symmetric edits, measures free of vertex numbers."""

import numpy as np
import pytest
import torch

from dataset_builder import load_face_model
from editing import CONTROLLERS, MeasurementLandmarks, measure, measurement_values
from flows.config import parse_config
from flows.contracts import REGIONS
from flows.errors import UserError
from flows.run_model import load_controllers, load_part_face_model
from flows.stages.controllers import faces_of, measure_decoded, symmetric_faces_of
from flows.tables import read_table


@pytest.fixture(scope="module")
def metrics(tiny_run):
    rows = read_table(tiny_run.output("fit_controllers") / "metrics.parquet", "metrics")
    return {(part, name): value for part, name, value in zip(rows["part"], rows["metric"], rows["value"], strict=True)}


@pytest.fixture(scope="module")
def inputs(tiny_run):
    return {stage: tiny_run.output(stage) for stage in ("build_dataset", "train_segments", "fit_controllers")}


def test_every_control_responds_as_asked_at_both_ends(metrics):
    for controller in CONTROLLERS:
        for end in ("up", "down"):
            assert 0.9 <= metrics[controller.region, f"response_{end}.{controller.name}"] <= 1.1, controller.key


def test_metrics_tell_the_extremes_the_cross_response_and_the_length(metrics):
    for region in REGIONS:
        own = [
            metrics[region, f"response_{e}.{c.name}"] for c in CONTROLLERS if c.region == region for e in ("up", "down")
        ]
        assert metrics[region, "least_response"] == pytest.approx(min(own))
        assert metrics[region, "greatest_response"] == pytest.approx(max(own))
        assert 0 < metrics[region, "cross_response"] < 0.4
        assert 1 < metrics[region, "longest"] <= 2.1


def test_stored_metrics_are_those_of_the_stored_map(inputs, metrics):
    model = load_part_face_model({k: inputs[k] for k in ("build_dataset", "train_segments")})
    controllers, points = load_controllers(inputs, model)
    base = controllers.base_latents()
    edited = controllers.apply(base, {"nose": 3.0 * np.eye(6)[3]})
    before, after = (measure_decoded(model, points, {r: z[None] for r, z in face.items()}) for face in (base, edited))
    moved = (after["nose"] - before["nose"])[0, 3] / (3 * controllers.region("nose").sigma[3])
    assert moved == pytest.approx(metrics["nose", "response_up.width"], abs=1e-3)


@torch.no_grad()
def test_no_control_makes_the_mean_face_lopsided(inputs):
    model = load_part_face_model({k: inputs[k] for k in ("build_dataset", "train_segments")})
    controllers, mirror = load_controllers(inputs, model)[0], model.face_model.mirror
    base = {r: torch.from_numpy(z[None].astype(np.float32)) for r, z in controllers.base_latents().items()}
    before = model.segments.compose(base)[0]
    for region in REGIONS:
        rows = torch.from_numpy(controllers.rows(region).astype(np.float32))
        for row in rows:
            moved = (model.segments.compose({**base, region: base[region] + 3 * row})[0] - before)[0].numpy()
            odd = (moved - moved[mirror] * (-1, 1, 1)) / 2
            assert np.linalg.norm(odd) < 0.1 * np.linalg.norm(moved)


def test_symmetric_faces_are_their_own_mirror_images_and_keep_what_both_sides_share():
    model = load_face_model("synthetic-3k")
    identity = model.sample(5, 3)
    plain, symmetric = (make(model, identity) for make in (faces_of, symmetric_faces_of))
    shapes = model.shape(identity)
    averaged = (shapes + shapes[:, model.mirror] * (-1, 1, 1)) / 2
    rebuilt = symmetric.mean.numpy() + np.einsum("vci,ni->nvc", symmetric.basis.numpy(), identity)
    np.testing.assert_allclose(rebuilt, averaged, atol=1e-3)
    np.testing.assert_array_equal(plain.basis, model.id_basis)


def test_least_squares_is_still_to_be_had_and_refused_where_it_is_misspelt():
    values = parse_config({"controllers": {"mode": "least_squares", "ridge": 0.02}})
    assert values.controllers.mode == "least_squares"
    with pytest.raises(UserError, match=r"controllers\.mode"):
        parse_config({"controllers": {"mode": "conditional"}})
    with pytest.raises(UserError, match=r"controllers\.longest"):
        parse_config({"controllers": {"longest": 0.5}})


@pytest.mark.parametrize("name", ["synthetic-3k", "synthetic"])
def test_measures_of_a_face_model_do_not_depend_on_its_vertex_numbers(name):
    model = load_face_model(name)
    order = np.random.default_rng(1).permutation(model.n_vertices)
    number = np.argsort(order)
    points = MeasurementLandmarks.from_template(model.mean, model.labels, model.landmarks68)
    renumbered = MeasurementLandmarks.from_template(model.mean[order], model.labels[order], number[model.landmarks68])
    faces = model.shape(model.sample(3, 5))
    before, after = measure(faces, points), measure(faces[:, order], renumbered)
    for region in REGIONS:
        np.testing.assert_array_equal(after[region], before[region])


def test_one_face_has_the_same_measures_on_meshes_of_different_fineness():
    coarse, fine = (
        measurement_values(measure(m.mean, MeasurementLandmarks.from_template(m.mean, m.labels, m.landmarks68)))
        for m in map(load_face_model, ("synthetic-3k", "synthetic"))
    )
    # measuring points are vertices, 3.2 and 2.3 mm apart
    assert {key: abs(coarse[key] - fine[key]) for key in coarse} == pytest.approx(dict.fromkeys(coarse, 0.0), abs=1.6)
