import os
from pathlib import Path

import numpy as np
import pytest

from dataset_builder.camera import CropCamera, apply_pose
from dataset_builder.face_model import FaceModel
from dataset_builder.ict import load_ict
from dataset_builder.landmark_fit import LandmarkEstimator

ANGLES = np.radians([[0, 0, 0], [8, -20, 5], [-12, 25, -10], [15, 3, 30]])
TRANSLATION = np.array([[0, 0, 0], [4, -6, 40], [-8, 3, -60], [2, 2, 15]], np.float64)


def random_model(n_identity=5, n_expression=3, seed=0):
    """68 points on a bulging face-sized patch with small random modes."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-60, -60, 0], [60, 60, 1], (68, 3))
    points[:, 2] = 60 - (points[:, 0] ** 2 + points[:, 1] ** 2) / 60 + rng.normal(0, 4, 68)
    return FaceModel(
        name="random",
        licence="none",
        mean=points.astype(np.float32),
        id_basis=rng.normal(0, 2, (68, 3, n_identity)).astype(np.float32),
        ex_basis=rng.normal(0, 3, (68, 3, n_expression)).astype(np.float32),
        faces=np.array([[0, 1, 2]], np.int64),
        landmarks68=np.arange(68),
        ex_names=tuple(f"e{i}" for i in range(n_expression)),
        ex_range=np.tile(np.array([0, 1], np.float32), (n_expression, 1)),
    )


def project(model, identity, expression, angles=ANGLES, translation=TRANSLATION, size=224):
    shape = model.shape(identity, expression).astype(np.float64)
    return CropCamera.of_size(size).project(apply_pose(shape, angles, translation))


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def truth(model):
    rng = np.random.default_rng(3)
    return rng.normal(0, 1, (4, 5)).astype(np.float32), rng.uniform(0, 1, (4, 3)).astype(np.float32)


def test_noise_free_landmarks_give_back_pose_and_coefficients(model, truth):
    identity, expression = truth
    estimator = LandmarkEstimator(model, identity_weight=0, expression_weight=0)
    found = estimator.estimate(project(model, identity, expression))
    assert np.degrees(np.abs(found.angles - ANGLES)).max() < 0.2
    assert np.abs(found.translation - TRANSLATION).max() < 0.1
    np.testing.assert_allclose(found.identity, identity, atol=0.02)
    np.testing.assert_allclose(found.expression, expression, atol=0.02)
    assert found.residual.max() < 0.01


def test_pose_alone_is_exact_for_the_mean_face(model):
    landmarks = project(model, np.zeros((4, 5)), np.zeros((4, 3)))
    found = LandmarkEstimator(model).estimate(landmarks, fit_identity=False, fit_expression=False)
    assert np.degrees(np.abs(found.angles - ANGLES)).max() < 0.01
    assert np.abs(found.translation - TRANSLATION).max() < 0.05
    assert not found.identity.any()
    assert not found.expression.any()


def test_posed_vertices_project_onto_the_landmarks(model, truth):
    landmarks = project(model, *truth)
    found = LandmarkEstimator(model, identity_weight=0, expression_weight=0).estimate(landmarks)
    np.testing.assert_allclose(CropCamera().project(found.posed(model, 1)), landmarks[1], atol=0.05)


def test_image_size_only_rescales(model, truth):
    estimator = LandmarkEstimator(model)
    small = estimator.estimate(project(model, *truth))
    large = estimator.estimate(project(model, *truth, size=448), image_size=448)
    np.testing.assert_allclose(large.translation, small.translation, atol=1e-2)
    np.testing.assert_allclose(large.residual, 2 * small.residual, atol=1e-3)


def test_batch_and_single_estimates_agree(model, truth):
    landmarks = project(model, *truth)
    estimator = LandmarkEstimator(model)
    many = estimator.estimate(np.tile(landmarks, (12, 1, 1)))
    one = estimator.estimate(landmarks[2:3])
    np.testing.assert_allclose(many.identity[46], one.identity[0], atol=1e-4)
    assert len(many) == 48
    assert len(many[np.array([2, 5])]) == 2


def test_analytic_normal_equations_match_finite_differences(model, truth):
    estimator = LandmarkEstimator(model)
    points = project(model, *truth)
    state = np.concatenate([ANGLES + 0.05, TRANSLATION + 1, np.full((4, 5), 0.2), np.full((4, 3), 0.3)], 1)
    columns = np.arange(14)
    prior = np.concatenate([np.zeros(6), estimator._prior])
    gradient, _ = estimator._normal_equations(points, state, columns, prior)
    for column in columns:
        step = np.zeros(14)
        step[column] = 1e-5
        slope = (estimator._cost(points, state + step) - estimator._cost(points, state - step)) / 2e-5
        np.testing.assert_allclose(2 * gradient[:, column], slope, rtol=1e-4, atol=1e-3)


def test_expressions_stay_in_their_range_where_the_optimum_lies_outside(model, truth):
    identity, _ = truth
    outside = np.tile(np.array([1.6, -0.5, 0.5], np.float32), (4, 1))
    estimator = LandmarkEstimator(model, identity_weight=0, expression_weight=0)
    found = estimator.estimate(project(model, identity, outside))
    assert found.expression.min() >= 0
    assert found.expression.max() <= 1
    assert (found.expression[:, 0] > 0.99).all()
    assert (found.expression[:, 1] < 0.01).all()


def test_priors_pull_towards_the_mean(model, truth):
    landmarks = project(model, *truth)
    loose = LandmarkEstimator(model, identity_weight=1).estimate(landmarks)
    tight = LandmarkEstimator(model, identity_weight=1000).estimate(landmarks)
    assert np.square(tight.identity).sum() < 0.3 * np.square(loose.identity).sum()


def test_a_wild_landmark_hardly_moves_the_face(model):
    landmarks = project(model, np.zeros((4, 5)), np.zeros((4, 3)))
    wild = landmarks.copy()
    wild[:, 50] += [60, 40]
    found = LandmarkEstimator(model).estimate(wild, fit_expression=False)
    assert np.degrees(np.abs(found.angles - ANGLES)).max() < 3
    assert np.median(np.delete(found.residual, 50, axis=1)) < 1
    assert found.residual[:, 50].min() > 50


def test_noise_and_large_yaw_still_converge(model):
    rng = np.random.default_rng(5)
    angles = np.radians([[0, 45, 0], [10, -45, 20], [-20, 0, 60]])
    translation = np.zeros((3, 3))
    landmarks = project(model, np.zeros((3, 5)), np.zeros((3, 3)), angles, translation)
    noisy = landmarks + rng.normal(0, 1.5, landmarks.shape)
    found = LandmarkEstimator(model).estimate(noisy)
    assert np.degrees(np.abs(found.angles - angles)).max() < 6


def test_faces_of_the_ict_model_are_fitted_to_a_fraction_of_a_pixel():
    folder = os.environ.get("NEO3DF_ASSETS")
    if not folder or not (Path(folder) / "ict_face.npz").is_file():
        pytest.skip("set NEO3DF_ASSETS to a folder with ict_face.npz")
    ict = load_ict(Path(folder) / "ict_face.npz", subdivisions=0)
    shapes = ict.shape(ict.sample(4, seed=0))[:, ict.landmarks68]
    landmarks = CropCamera().project(apply_pose(shapes, ANGLES, TRANSLATION))
    found = LandmarkEstimator(ict).estimate(landmarks)
    assert found.residual[:, 17:].mean() < 0.5
    assert np.degrees(np.abs(found.angles - ANGLES)).max() < 6


@pytest.mark.parametrize("shape", [(68, 2), (1, 67, 2), (1, 68, 3), (0, 68, 2)])
def test_wrong_landmark_shapes_are_named(model, shape):
    with pytest.raises(ValueError, match=r"landmarks must be \(N, 68, 2\) crop pixels"):
        LandmarkEstimator(model).estimate(np.zeros(shape))


def test_landmarks_that_are_not_finite_are_named(model, truth):
    landmarks = project(model, *truth)
    landmarks[2, 5, 0] = np.nan
    with pytest.raises(ValueError, match="landmarks of face 2 are not finite"):
        LandmarkEstimator(model).estimate(landmarks)


def test_collapsed_landmarks_are_named(model, truth):
    landmarks = project(model, *truth)
    landmarks[1] = 112
    with pytest.raises(ValueError, match="landmarks of face 1 lie on a line or a point"):
        LandmarkEstimator(model).estimate(landmarks)


def test_bad_settings_are_named(model):
    with pytest.raises(ValueError, match="identity_weight and expression_weight must be 0 or more"):
        LandmarkEstimator(model, identity_weight=-1)
    found = LandmarkEstimator(model).estimate(project(model, np.zeros((4, 5)), np.zeros((4, 3))))
    with pytest.raises(TypeError, match="slice or an array, got int"):
        found[0]
