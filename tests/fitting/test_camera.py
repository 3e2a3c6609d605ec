import math

import pytest
import torch

from fitting import Camera, apply_pose, clip_positions, project, rotation_matrix
from fitting._cpu import CpuBackend
from fitting.camera import clip_transform


def test_nose_tip_of_the_average_face_lands_where_the_deep3d_camera_puts_it():
    pixels, depth = project(torch.tensor([[0.08, -3.68, 51.76]]), Camera.deep3d())
    assert pixels[0].tolist() == pytest.approx([112.1, 115.9], abs=0.05)
    assert float(depth) == pytest.approx(948.24)


def test_hundred_millimetres_at_a_metre_span_one_and_a_half_more_pixels():
    pixels, _ = project(torch.tensor([[-50.0, 0.0, 0.0], [50.0, 0.0, 0.0]]), Camera.deep3d())
    assert float(pixels[1, 0] - pixels[0, 0]) == pytest.approx(101.5)


def test_clip_positions_agree_with_project():
    camera = Camera(900.0, 950.0, 70.0, 90.0, width=150, height=170)
    vertices = torch.randn(40, 3, dtype=torch.float64) * 60
    clip = clip_positions(vertices, camera)
    pixels, depth = project(vertices, camera)
    ndc = clip[:, :2] / clip[:, 3:]
    torch.testing.assert_close((ndc + 1) / 2 * torch.tensor([150.0, 170.0], dtype=torch.float64), pixels)
    torch.testing.assert_close(clip[:, 3], depth)
    order = depth.argsort()
    assert bool(((clip[:, 2] / clip[:, 3])[order].diff() > 0).all())


def test_clip_depth_runs_from_half_to_one_and_a_half_distances():
    vertices = torch.tensor([[0.0, 0.0, 500.0], [0.0, 0.0, -500.0]], dtype=torch.float64)
    clip = clip_positions(vertices, Camera.deep3d())
    torch.testing.assert_close(clip[:, 2] / clip[:, 3], torch.tensor([-1.0, 1.0], dtype=torch.float64))


def test_each_angle_turns_about_its_axis_and_pitch_comes_first():
    x, y, z = torch.eye(3, dtype=torch.float64)
    quarter = math.pi / 2
    for index, (start, end) in enumerate([(y, z), (z, x), (x, y)]):
        angles = torch.zeros(3, dtype=torch.float64)
        angles[index] = quarter
        torch.testing.assert_close(rotation_matrix(angles) @ start, end)
    single = [rotation_matrix(torch.diag(torch.tensor([0.3, -0.5, 0.7]))[i]) for i in range(3)]
    torch.testing.assert_close(rotation_matrix(torch.tensor([0.3, -0.5, 0.7])), single[2] @ single[1] @ single[0])


def test_pose_is_rigid_and_differentiable():
    vertices = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    translation = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    posed = apply_pose(vertices, angles, translation)
    torch.testing.assert_close(torch.cdist(posed, posed), torch.cdist(vertices, vertices))
    assert torch.autograd.gradcheck(apply_pose, (vertices, angles, translation))


def test_projection_gradient():
    vertices = (torch.randn(5, 3, dtype=torch.float64) * 50).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: project(v, Camera.deep3d()), (vertices,))
    assert torch.autograd.gradcheck(lambda v: clip_positions(v, Camera.deep3d()), (vertices,))


def test_photo_camera_undoes_the_crop():
    crop = Camera.deep3d()
    scale, offset = (0.44, 0.45), (37.5, 12.25)
    photo = crop.to_photo(scale, offset, 1024, 768)
    vertices = torch.randn(20, 3, dtype=torch.float64) * 60
    in_photo, _ = project(vertices, photo)
    in_crop, _ = project(vertices, crop)
    torch.testing.assert_close(in_photo * torch.tensor(scale) - torch.tensor(offset), in_crop, atol=1e-4, rtol=0)
    assert (photo.width, photo.height) == (1024, 768)


def test_resized_camera_scales_pixels():
    vertices = torch.randn(20, 3, dtype=torch.float64) * 60
    small, _ = project(vertices, Camera.deep3d(224))
    large, _ = project(vertices, Camera.deep3d(224).resized(4))
    torch.testing.assert_close(large, 4 * small)
    assert Camera.deep3d(224).resized(2) == Camera.deep3d(448)


def test_bad_cameras_and_vertices_are_named():
    with pytest.raises(ValueError, match="camera fx is 0"):
        Camera(0, 1, 0, 0, 8, 8)
    with pytest.raises(ValueError, match=r"crop scale is \(0.0, 1.0\)"):
        Camera.deep3d().to_photo((0, 1), (0, 0), 10, 10)
    with pytest.raises(ValueError, match="2 vertices are not in front"):
        project(torch.tensor([[0.0, 0, 0], [0, 0, 1000], [0, 0, float("nan")]]), Camera.deep3d())
    with pytest.raises(ValueError, match=r"angles have shape \(2,\)"):
        rotation_matrix(torch.zeros(2))


def test_fast_float32_transform_equals_the_general_one():
    camera = Camera(900.0, 950.0, 70.0, 90.0, width=150, height=170)
    points = torch.randn(2, 30, 3) * 60
    backend = CpuBackend(torch.zeros(0, 3, dtype=torch.int32))
    fast, general = points.clone().requires_grad_(), points.double().requires_grad_()
    grad = torch.randn(2, 30, 4)
    clip = backend.transform(fast, *(tensor.float() for tensor in clip_transform(camera)))
    expected = clip_positions(general, camera)
    torch.testing.assert_close(clip, expected.float(), rtol=1e-5, atol=1e-3)
    clip.backward(grad)
    expected.backward(grad.double())
    torch.testing.assert_close(fast.grad, general.grad.float(), rtol=1e-4, atol=1e-3)
