import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builder.landmark_networks import LandmarkDetector, map_98_to_68, resample_square
from dataset_builder.masks import labels_from_index_mask
from dataset_builder.parts import LABEL_IDS

MASKGAN_BOX = np.array([285.0, 270.0, 745.0, 880.0])  # the face of celebamask_maskgan/0.jpg


@pytest.fixture(scope="module")
def data():
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no landmark networks")
    pytest.importorskip("onnxruntime", reason="the extra [photos] is not installed")
    return Path(os.environ["NEO3DF_ASSETS"])


@pytest.fixture(scope="module")
def detector(data):
    return LandmarkDetector()


@pytest.fixture(scope="module")
def image(data):
    return np.asarray(Image.open(data / "celebamask_maskgan" / "0.jpg").convert("RGB"))


def test_map_takes_and_interpolates_the_right_points():
    wflw = np.stack([np.arange(98.0), -np.arange(98.0)], 1)
    ours = map_98_to_68(np.stack([wflw, wflw + 1]))
    assert ours.shape == (2, 68, 2)
    x = ours[0, :, 0]
    np.testing.assert_allclose(x[:17], np.arange(0, 33, 2))
    np.testing.assert_allclose(x[17:27], [33, 34, 35, 36, 37, 42, 43, 44, 45, 46])
    np.testing.assert_allclose(x[27:36], np.arange(51, 60))
    third = 1 / 3
    np.testing.assert_allclose(x[36:42], [60, 61 + third, 63 - third, 64, 65 + third, 67 - third])
    np.testing.assert_allclose(x[42:48], x[36:42] + 8)
    np.testing.assert_allclose(x[48:], np.arange(76, 96))
    np.testing.assert_allclose(ours[1], ours[0] + 1)


def test_map_refuses_another_count():
    with pytest.raises(ValueError, match=r"WFLW landmarks must be \(\.\.\., 98, 2\), got \(68, 2\)"):
        map_98_to_68(np.zeros((68, 2)))


def test_resample_square_inside_and_outside():
    image = np.random.default_rng(0).integers(1, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resample_square(image, np.array([7.0, 5.0]), 16.0, 16), image[5:21, 7:23])
    partly = resample_square(image, np.array([-8.0, -4.0]), 16.0, 16)
    np.testing.assert_array_equal(partly[4:, 8:], image[:12, :8])
    assert not partly[:4].any()
    assert not partly[:, :8].any()
    assert not resample_square(image, np.array([200.0, 200.0]), 9.5, 8).any()


def test_landmarks_lie_on_their_parts(data, detector, image):
    labels, _ = labels_from_index_mask(np.asarray(Image.open(data / "celebamask_maskgan" / "0.png")))
    landmarks = detector.detect(image, MASKGAN_BOX)
    assert landmarks.shape == (68, 2)
    for part, points in (("eyes", landmarks[[36, 39, 42, 45]]), ("nose", landmarks[30:31])):
        rows, columns = np.nonzero(labels == LABEL_IDS[part])
        pixels = np.stack([columns, rows], 1) * 2 + 1
        distance = np.linalg.norm(points[:, None] - pixels, axis=-1).min(1)
        assert distance.max() < 15, part  # the eyes are 250 px apart
    eyes = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    assert eyes[0][0] < 512 < eyes[1][0], "low numbers are at image left"
    assert landmarks[8, 1] > landmarks[57, 1] > landmarks[33, 1] > landmarks[27, 1]


def test_mean_of_both_networks_which_agree(detector, image):
    pfld, slim = detector.detect_pfld(image, MASKGAN_BOX), detector.detect_slim(image, MASKGAN_BOX)
    np.testing.assert_allclose(detector.detect(image, MASKGAN_BOX), (pfld + slim) / 2)
    outer_corners = np.linalg.norm(slim[36] - slim[45])
    assert np.linalg.norm(pfld - slim, axis=1).mean() / outer_corners < 0.06


def test_landmarks_follow_a_moved_and_scaled_photo(detector, image):
    landmarks = detector.detect(image, MASKGAN_BOX)
    half = np.asarray(Image.fromarray(image).reduce(2))
    moved = np.zeros((600, 700, 3), np.uint8)
    moved[20:532, 100:612] = half
    shift = np.array([100, 20])
    box = (MASKGAN_BOX.reshape(2, 2) / 2 + shift).ravel()
    error = np.abs(detector.detect(moved, box) - (landmarks / 2 + shift))
    assert error.mean() < 1.0


@pytest.mark.parametrize("box", [np.zeros(4), np.array([0, 0, np.nan, 5]), np.zeros(3)])
def test_bad_box_is_refused(detector, image, box):
    with pytest.raises(ValueError, match="a box is x0, y0, x1, y1"):
        detector.detect(image, box)
