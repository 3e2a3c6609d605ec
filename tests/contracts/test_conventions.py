"""What every package has to agree on without knowing the others: parts, camera, pose, crop, topology."""

import numpy as np
import pytest
import torch

import dataset_builder
import editing
import fitting
import flows.contracts
import segmodel


@pytest.fixture(scope="module")
def face_model():
    return dataset_builder.load_face_model("synthetic-3k")


@pytest.mark.parametrize("package", [editing, fitting, segmodel, flows.contracts], ids=lambda m: m.__name__)
def test_parts_are_the_same_everywhere_in_the_same_order(package):
    assert tuple(package.PARTS) == ("eyebrows", "eyes", "nose", "upper_lip", "lower_lip")
    assert tuple(package.PARTS) == tuple(dataset_builder.PARTS)
    assert tuple(package.REGIONS) == tuple(dataset_builder.REGIONS) == (*dataset_builder.PARTS, "rest")


@pytest.mark.parametrize("package", [dataset_builder, editing, fitting, segmodel], ids=lambda m: m.__name__)
def test_label_ids_are_the_same_everywhere(package):
    assert list(package.LABEL_IDS.items()) == [
        ("background", 0),
        ("rest", 1),
        ("eyebrows", 2),
        ("eyes", 3),
        ("nose", 4),
        ("upper_lip", 5),
        ("lower_lip", 6),
    ]


def poses(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-np.pi, np.pi, (n, 3)), rng.uniform(-80, 80, (n, 3)), rng.uniform(-100, 100, (n, 7, 3))


def test_rotation_is_rz_ry_rx_in_both_packages():
    angles, _, _ = poses()
    ours = dataset_builder.rotation_matrix(angles)
    np.testing.assert_allclose(ours, fitting.rotation_matrix(torch.from_numpy(angles)).numpy(), atol=1e-14)

    def about(axis, angle):
        turn, (a, b) = np.eye(3), np.delete(np.arange(3), axis)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        return turn.T if axis == 1 else turn

    for (pitch, yaw, roll), found in zip(angles[:20], ours, strict=False):
        np.testing.assert_allclose(found, about(2, roll) @ about(1, yaw) @ about(0, pitch), atol=1e-14)


@pytest.mark.parametrize("size", [224, 512])
def test_both_cameras_put_a_posed_point_on_the_same_pixel(size):
    angles, translation, points = poses()
    ours = dataset_builder.CropCamera.of_size(size).project(dataset_builder.apply_pose(points, angles, translation))
    posed = fitting.apply_pose(*(torch.from_numpy(x) for x in (points, angles, translation)))
    theirs, _ = fitting.project(posed, fitting.Camera.deep3d(size))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_a_point_one_centimetre_up_and_to_the_subjects_left_is_up_and_right_in_the_image():
    pixels, depth = fitting.project(torch.tensor([[10.0, 10.0, 0.0]]), fitting.Camera.deep3d())
    np.testing.assert_allclose(pixels[0], [112 + 10.15, 112 - 10.15], rtol=1e-6)
    assert depth[0] == 1000


def test_the_photo_camera_undoes_the_crop():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    five = np.array([[250.0, 200], [330, 205], [290, 250], [258, 300], [325, 302]])
    crop = dataset_builder.align_face(image, five).transform
    points = torch.from_numpy(rng.uniform(-70, 70, (50, 3)))
    camera = fitting.Camera.deep3d()
    in_crop, _ = fitting.project(points, camera)
    in_photo, _ = fitting.project(points, camera.to_photo(crop.scale, crop.offset, 640, 480))
    np.testing.assert_allclose(in_photo, crop.to_photo(in_crop.numpy()), atol=1e-9)
    np.testing.assert_allclose(crop.to_crop(in_photo.numpy()), in_crop, atol=1e-9)


def test_face_model_and_part_layout_give_one_topology_hash(face_model):
    layout = segmodel.PartLayout.from_labels(face_model.labels, face_model.faces, face_model.mean)
    assert layout.topology_hash == face_model.topology_hash()
    assert layout.topology_hash != dataset_builder.load_face_model("synthetic").topology_hash()


def test_left_is_the_subjects_and_up_is_up(face_model):
    marks = face_model.mean[face_model.landmarks68]
    assert marks[45, 0] > marks[36, 0], "landmark 45 is the outer corner of the subject's left eye, at +x"
    assert marks[27, 1] > marks[8, 1], "the bridge of the nose lies above the chin"
    assert marks[30, 2] > marks[36, 2], "the tip of the nose lies in front of the eyes"


def test_rendered_labels_cover_the_mask_of_a_synthetic_photo_part_by_part(face_model):
    (photo,) = dataset_builder.make_photos(face_model, 1, 5)
    pose = (torch.from_numpy(np.asarray(x, np.float32)[None]) for x in (photo.angles, photo.translation))
    shape = torch.from_numpy(face_model.shape(photo.identity, photo.expression))[None]
    labels = torch.from_numpy(face_model.labels)
    posed = fitting.apply_pose(shape, *pose)
    drawn = fitting.render_labels(posed, labels, fitting.Camera.deep3d(), torch.from_numpy(face_model.faces))
    overlap = fitting.part_iou(drawn, photo.mask[None])
    assert (overlap.target_area > 100).all()
    assert (overlap.intersection > 0.95 * overlap.target_area).all()
    assert (overlap.predicted_area < 1.5 * overlap.target_area).all(), "labels of vertices on an outline are the part's"
