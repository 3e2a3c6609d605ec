"""Known controls, offsets and shifts of a procedural face are found again from the masks they make."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def recovery():
    """The module ``benchmarks/recovery.py``."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("recovery")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def parts(recovery):
    """Face model and part models of the small procedural face."""
    torch.set_num_threads(1)
    return recovery.train_parts("synthetic-3k", n_shapes=600)


def test_controls_that_a_mask_shows_are_recovered(recovery, parts):
    directions = recovery.control_directions(*parts, n_measured=400)
    start = recovery.sample_faces(*parts, 3, seed=11)
    found = recovery.recover_controls(start, directions, controls=True, offsets=False, iterations=40)
    seen = found.sensitivity > 0.05
    error, zero = found.control_error.mean(0), found.control_zero
    assert len(found.names) == len(directions) == 22
    assert seen.sum() >= 12
    assert error[seen].mean() < 0.35
    assert error[seen].mean() < 0.5 * zero[seen].mean()
    assert (found.iou_after > found.iou_before + 0.05).all()
    assert found.iou_after.min() > 0.9
    assert np.isnan(found.offset_error).all()


def test_offsets_are_recovered_in_y_and_from_the_side_in_z(recovery, parts):
    """A frontal mask hardly shows depth; at 35 degrees it does."""
    directions = recovery.control_directions(*parts, n_measured=400)
    errors = []
    for yaw in (0.0, 35.0):
        start = recovery.sample_faces(*parts, 3, seed=11, yaw=np.deg2rad(yaw))
        found = recovery.recover_controls(start, directions, controls=False, offsets=True, iterations=40)
        errors.append(found.offset_error.mean((0, 1)))
        assert errors[-1][0] < 0.4
        assert np.isnan(found.control_error).all()
    zero = found.offset_zero.mean(0)
    assert errors[1][1] < 0.5 * zero[1] < errors[0][1]


@pytest.mark.parametrize("yaw", [0.0, 35.0])
@pytest.mark.parametrize("blend", [False, True])
def test_parts_shifted_by_five_pixels_come_back(recovery, parts, yaw, blend):
    faces = recovery.sample_faces(*parts, 3, seed=11, yaw=np.deg2rad(yaw))
    before, after = recovery.recover_shifts(faces, blend=blend)
    assert before.min() > 4.5
    assert after.mean(0).max() < 0.5


def test_the_lips_of_the_shifted_faces_are_closed(recovery, parts):
    """Upper and lower lip touch in most of their columns, so that each hides the other's border."""
    faces = recovery.sample_faces(*parts, 3, seed=11)
    shape = faces.shape_fn(faces.segments.blender)({})
    masks = recovery.render_labels(shape, faces.labels, recovery.CAMERA, faces.faces).numpy()
    upper, lower = (masks == recovery.LABEL_IDS[name] for name in ("upper_lip", "lower_lip"))
    touching = (upper[:, :-1] & lower[:, 1:]).any(1).sum(1)
    assert (touching > 0.8 * lower.any(1).sum(1)).all()
