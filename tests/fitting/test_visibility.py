import math

import pytest
import torch

from fitting import LABEL_IDS, PARTS, Camera, apply_pose, visible_parts


def turned(face, yaw, shift=(0.0, 0.0, 0.0)):
    angles = torch.tensor([[0.0, math.radians(yaw), 0.0]])
    return apply_pose(face.vertices[None], angles, torch.tensor([shift]))


def shares(face, vertices):
    result = visible_parts(vertices, face.labels, face.camera, face.faces, backend="cpu")
    assert result.shape == (len(vertices), 5)
    return dict(zip(PARTS, result[0].tolist(), strict=True))


def test_everything_is_seen_from_the_front(face):
    assert set(shares(face, turned(face, 0)).values()) == {1.0}


def test_turning_hides_the_far_side(face):
    """The dome hides the far brow and eye; its middle stays in sight up to the profile."""
    slightly, strongly = shares(face, turned(face, 45)), shares(face, turned(face, 80))
    assert slightly["nose"] == 1
    assert 0.9 < slightly["eyebrows"] <= 1
    for part in ("eyebrows", "eyes"):
        assert strongly[part] < min(0.85, slightly[part])
    from_behind = shares(face, turned(face, 180))
    assert set(from_behind.values()) == {1.0}, "an open surface is seen from behind as well"


def test_a_plate_hides_what_is_behind_it(face):
    """A plate 40 mm before the mouth covers the lower lip and the lower half of the upper one."""
    plate = torch.tensor([(-40.0, -60, 100), (40, -60, 100), (40, -30, 100), (-40, -30, 100)])
    start = len(face.vertices)
    faces = torch.cat([face.faces, torch.tensor([[0, 1, 2], [0, 2, 3]]) + start])
    labels = torch.cat([face.labels, torch.full((4,), LABEL_IDS["rest"])])
    vertices = torch.cat([face.vertices, plate])[None]
    seen = dict(zip(PARTS, visible_parts(vertices, labels, face.camera, faces, backend="cpu")[0].tolist(), strict=True))
    assert seen["lower_lip"] == 0
    assert 0.2 < seen["upper_lip"] < 0.8
    assert seen["eyes"] == seen["eyebrows"] == seen["nose"] == 1


def test_what_lies_outside_of_the_image_is_not_seen(face):
    camera = Camera.deep3d(96)
    half = (camera.distance - 58) / camera.fx * 48  # brings the middle of the nose, 58 mm high, to the border
    seen = shares(face, turned(face, 0, (half, 0.0, 0.0)))
    assert seen["nose"] == pytest.approx(0.5, abs=0.06)
    assert seen["eyes"] == pytest.approx(0.5, abs=0.02)
    assert set(shares(face, turned(face, 0, (0.0, 500.0, 0.0))).values()) == {0.0}


def test_photos_of_a_batch_and_missing_parts(face):
    both = torch.cat([turned(face, 0), turned(face, 80)])
    result = visible_parts(both, face.labels, face.camera, face.faces, backend="cpu")
    torch.testing.assert_close(result[1], visible_parts(both[1:], face.labels, face.camera, face.faces)[0])
    without_nose = torch.where(face.labels == LABEL_IDS["nose"], LABEL_IDS["rest"], face.labels)
    assert visible_parts(both, without_nose, face.camera, face.faces)[:, PARTS.index("nose")].tolist() == [0, 0]


def test_a_face_behind_the_camera_is_refused(face):
    with pytest.raises(ValueError, match="vertices are not in front of the camera"):
        visible_parts(turned(face, 0, (0.0, 0.0, 990.0)), face.labels, face.camera, face.faces)
