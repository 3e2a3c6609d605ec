"""Photos on which a fit has little to go on: one batch of all troubles, fitted with every variable."""

import importlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fitting import LABEL_IDS, Camera, FitResult, fit_controls, render_labels

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CAMERA = Camera.deep3d()
TROUBLES = (
    "none",
    "yaw 60",
    "half out of the frame",
    "closed eyes",
    "eyes ignored",
    "no brows",
    "empty mask",
    "everything ignored",
    "behind the camera",
    "out of the frame",
)
AWAY = {
    "half out of the frame": (100.0, 0.0, 0.0),
    "behind the camera": (0.0, 0.0, 1300.0),
    "out of the frame": (0.0, -500.0, 0.0),
}


@dataclass(frozen=True)
class Batch:
    masks: np.ndarray
    result: FitResult
    alone: FitResult

    def mean_iou(self, trouble):
        photo = TROUBLES.index(trouble)
        overlaps = (self.result.overlap_before, self.result.overlap_after)
        return tuple(float(overlap.mean_of_parts()[photo]) for overlap in overlaps)


def fit(faces, start, masks, ignore):
    """Every variable; translation starts at the (B, 3) ``start``."""
    variables = faces.variables()
    variables["translation"] = replace(variables["translation"], initial=start)
    return fit_controls(
        faces.shape_fn(faces.segments.blender.with_solves(1)),
        variables,
        masks,
        CAMERA,
        faces=faces.faces,
        labels=faces.labels,
        iterations=20,
        binary_after=12,
        flip_penalty=0.01,
        patience=8,
        ignore=ignore,
        final_shape_fn=faces.shape_fn(faces.segments.blender),
    )


@pytest.fixture(scope="module")
def batch():
    torch.set_num_threads(1)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        tools = importlib.import_module("fit_faces")
    finally:
        sys.path.remove(str(BENCHMARKS))
    model, segments = tools.train_parts("synthetic-3k", n_shapes=600)
    count = len(TROUBLES)
    truth, start = (tools.sample_faces(model, segments, count, seed) for seed in (3, 4))
    for faces in (truth, start):
        faces.angles[TROUBLES.index("yaw 60"), 1] = np.deg2rad(60)
    moved = torch.tensor([AWAY.get(trouble, (0.0, 0.0, 0.0)) for trouble in TROUBLES])
    in_frame = torch.tensor([AWAY[t] if t == "half out of the frame" else (0.0, 0.0, 0.0) for t in TROUBLES])
    values = {name: variable.initial for name, variable in truth.variables().items()} | {"translation": in_frame}
    masks = render_labels(truth.shape_fn(segments.blender)(values), truth.labels, CAMERA, truth.faces).numpy()
    ignore = np.zeros(masks.shape, bool)
    eyes, brows = LABEL_IDS["eyes"], LABEL_IDS["eyebrows"]
    closed = masks[TROUBLES.index("closed eyes")]
    closed[closed == eyes] = LABEL_IDS["rest"]
    closed[100, 90:100] = eyes
    ignore[TROUBLES.index("eyes ignored")] = masks[TROUBLES.index("eyes ignored")] == eyes
    fringe = masks[TROUBLES.index("no brows")]
    fringe[fringe == brows] = 0
    masks[TROUBLES.index("empty mask")] = 0
    ignore[TROUBLES.index("everything ignored")] = True
    first = slice(0, 1)
    return Batch(
        masks, fit(start, moved, masks, ignore), fit(start.rows(first), moved[first], masks[first], ignore[first])
    )


def test_nothing_breaks_and_nothing_becomes_nan(batch):
    result = batch.result
    gone = "the face is not in the image at the start"
    assert result.reasons == tuple(gone if t in ("behind the camera", "out of the frame") else "" for t in TROUBLES)
    for value in result.values.values():
        assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(result.vertices).all())
    assert np.isfinite(result.loss).all()
    for figure in (result.realism.flipped, result.realism.moved_rms, *result.realism.unit_rms.values()):
        assert np.isfinite(figure).all()
    assert result.realism.far["latents"].max() < 0.2


def test_an_ordinary_photo_does_not_notice_its_neighbours(batch):
    for name, value in batch.alone.values.items():
        torch.testing.assert_close(batch.result.values[name][:1], value, atol=1e-3, rtol=1e-3)
    before, after = batch.mean_iou("none")
    assert after > before + 0.1


@pytest.mark.parametrize("trouble", ["yaw 60", "half out of the frame", "closed eyes", "eyes ignored", "no brows"])
def test_what_can_be_seen_is_fitted(batch, trouble):
    before, after = batch.mean_iou(trouble)
    assert after > before + 0.05
    assert after > 0.8


@pytest.mark.parametrize(("trouble", "part"), [("closed eyes", 1), ("eyes ignored", 1), ("no brows", 0)])
def test_a_missing_part_counts_for_nothing(batch, trouble, part):
    photo = TROUBLES.index(trouble)
    valid = batch.result.overlap_after.valid[photo]
    assert valid.tolist() == [index != part for index in range(5)]


@pytest.mark.parametrize("trouble", ["empty mask", "everything ignored"])
def test_a_photo_without_a_target_keeps_its_start(batch, trouble):
    photo = TROUBLES.index(trouble)
    assert batch.result.best_iteration[photo] == 0
    assert batch.result.realism.moved_rms[photo] == 0
    assert np.isnan(batch.mean_iou(trouble)).all()
    assert batch.result.labels_after[photo].max() > 0


@pytest.mark.parametrize("trouble", ["behind the camera", "out of the frame"])
def test_a_face_that_is_not_in_the_picture_stays_where_it_is(batch, trouble):
    assert batch.mean_iou(trouble) == (0, 0)
    assert batch.result.realism.moved_rms[TROUBLES.index(trouble)] == 0
