import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_builder.detection import Detection, FaceDetector, anchor_boxes, detect_faces, largest_face
from dataset_builder.photos import Photo, Rejected
from dataset_builder.torchvision_compat import ensure_torchvision


def need_facexlib():
    if find_spec("facexlib") is None:
        pytest.skip("the extra [photos] is not installed")


@pytest.fixture(scope="module")
def data():
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no detector weights")
    need_facexlib()
    return Path(os.environ["NEO3DF_ASSETS"])


@pytest.fixture(scope="module")
def detector(data):
    return FaceDetector()


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("size", [(320, 320), (213, 320), (37, 81)])
def test_anchors_equal_facexlibs(size):
    need_facexlib()
    ensure_torchvision()
    from facexlib.detection.retinaface import generate_config
    from facexlib.detection.retinaface_utils import PriorBox

    expected = PriorBox(generate_config("mobile0.25"), image_size=size).forward().numpy()
    np.testing.assert_allclose(anchor_boxes(*size), expected, rtol=1e-6)


def test_decoding_equals_facexlibs(data, detector):
    image = read(data / "celebamask_maskgan" / "0.jpg")[::4, ::4]
    theirs = detector._network.forward  # the network is facexlib's; its decoding needs compiled operators
    from facexlib.detection.retinaface_utils import decode, decode_landm

    pixels = image[..., ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    with torch.inference_mode():
        offsets, _, point_offsets = theirs(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        anchors = torch.from_numpy(anchor_boxes(*image.shape[:2]))
        boxes = decode(offsets[0], anchors, [0.1, 0.2]).numpy()
        points = decode_landm(point_offsets[0], anchors, [0.1, 0.2]).numpy()
    ours_boxes, _, ours_points = detector._run(image)
    np.testing.assert_allclose(ours_boxes, boxes, atol=1e-5)
    np.testing.assert_allclose(ours_points.reshape(-1, 10), points, atol=1e-5)


def test_five_points_agree_with_the_recorded_ones(data, detector, recorded_five_points):
    for file in ("celebamask_maskgan/0.jpg", "photos/deep3d/000055.jpg", "photos/deep3d/vd006.png"):
        (face,) = detector.detect(read(data / file))
        expected = recorded_five_points[file]
        eye_distance = np.linalg.norm(expected[1] - expected[0])
        assert np.abs(face.five_points - expected).mean() < 0.03 * eye_distance
        assert face.score > 0.9
        x0, y0, x1, y1 = face.box
        assert ((face.five_points > [x0, y0]) & (face.five_points < [x1, y1])).all()


def test_faces_come_largest_first_in_photo_pixels(data, detector):
    face = read(data / "celebamask_maskgan" / "0.jpg")
    scene = np.zeros((1100, 1700, 3), np.uint8)
    scene[40:1064, 660:1684] = face
    scene[300:812, 60:572] = face[::2, ::2]
    large, small = detector.detect(scene)
    assert large.area > 3 * small.area
    assert large.area == pytest.approx(4 * small.area, rel=0.15)
    (alone,) = detector.detect(face)
    np.testing.assert_allclose(large.five_points, alone.five_points + np.array([660, 40]), atol=16)


def test_small_faces_are_found_and_measured_at_a_larger_size(data, detector):
    face = read(data / "celebamask_maskgan" / "0.jpg")
    truth = detector.detect(face)[0].five_points
    coarse = FaceDetector(max_sides=(320,))
    for side, seen_at_once in ((80, False), (150, True)):
        scene = np.full((1200, 1600, 3), 120, np.uint8)
        scene[500 : 500 + side, 700 : 700 + side] = np.asarray(Image.fromarray(face).resize((side, side)))
        expected = truth * side / 1024 + np.array([700, 500])
        assert bool(coarse.detect(scene)) == seen_at_once
        (found,) = detector.detect(scene)
        assert np.abs(found.five_points - expected).mean() < 0.01 * side


def test_no_face_is_an_empty_list_and_a_rejection(detector):
    blank = np.full((200, 300, 3), 90, np.uint8)
    assert detector.detect(blank) == []
    result = largest_face(Photo("a", Path("x/a.jpg"), blank, None, None, ""), detector)
    assert isinstance(result, Rejected)
    assert (result.code, result.detail) == ("no_face", "a.jpg: no face found")


def test_largest_face_and_the_shared_detector(data, detector):
    path = data / "celebamask_maskgan" / "2.jpg"
    face = largest_face(Photo("2", path, read(path), None, None, ""), detector)
    assert isinstance(face, Detection)
    (other,) = detect_faces(read(path))
    np.testing.assert_array_equal(face.box, other.box)


def test_bad_image_is_refused(detector):
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \(10, 10\) of float64"):
        detector.detect(np.zeros((10, 10)))
