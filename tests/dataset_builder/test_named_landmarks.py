import os

import numpy as np
import pytest

from dataset_builder.bfm_h5 import NAMED_LANDMARKS
from dataset_builder.models import load_face_model
from dataset_builder.named_landmarks import landmarks_from_named_points


@pytest.fixture(scope="module")
def face():
    return load_face_model("synthetic-3k")


NAMED = tuple(NAMED_LANDMARKS.values())


def named_points(model, vertices, names=NAMED):
    return {number: vertices[model.landmarks68[number]] for number in names}


def test_named_points_of_a_turned_and_stretched_face_give_its_landmarks(face):
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    vertices = face.mean @ (turn * [1.2, 0.9, 1.1]).T + [30, -20, 5]
    ids = landmarks_from_named_points(named_points(face, vertices), vertices, "made up")
    np.testing.assert_allclose(vertices[ids], vertices[face.landmarks68], atol=0.1)


def test_named_points_of_another_face_give_its_landmarks_nearly(face):
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no ICT face")
    ict = load_face_model("ict")
    ids = landmarks_from_named_points(named_points(ict, ict.mean), ict.mean, "ict")
    apart = np.linalg.norm(ict.mean[ids] - ict.mean[ict.landmarks68], axis=1)
    for part, mean_mm in ((slice(27, 36), 1.5), (slice(36, 48), 1.8), (slice(48, 68), 2.0), (slice(17, 27), 4.5)):
        assert apart[part].mean() < mean_mm
    assert apart[:17].mean() < 12


def test_points_that_do_not_fix_a_face_are_refused(face):
    points = named_points(face, face.mean, (8, 30, 36, 45, 48, 54))
    assert landmarks_from_named_points(points, face.mean, "six").shape == (68,)
    with pytest.raises(ValueError, match=r"five: only 5 of the 68 landmarks are named, at least 6 needed"):
        landmarks_from_named_points({k: points[k] for k in list(points)[:5]}, face.mean, "five")
    far = {k: point * 30 for k, point in points.items()}
    with pytest.raises(ValueError, match=r"far: the named landmarks put others \d+ mm from the surface"):
        landmarks_from_named_points(far, face.mean, "far")
    middle = named_points(face, face.mean, (8, 27, 28, 29, 30, 33, 51, 57))
    with pytest.raises(ValueError, match="middle: the named landmarks do not fix a face, they lie nearly in a"):
        landmarks_from_named_points(middle, face.mean, "middle")
