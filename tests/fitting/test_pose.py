import pytest
import torch

from fitting import apply_pose, rotation_matrix
from fitting._pose import is_fast


def inputs(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 40, 3), (3, 3), (3, 3))
    return [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_compiled_pose_equals_the_matrix_product_and_so_do_its_gradients(dtype, tolerance):
    vertices, angles, translation = inputs(dtype)
    assert is_fast(vertices, rotation_matrix(angles), translation)
    fast = apply_pose(vertices, angles, translation)
    slow = vertices @ rotation_matrix(angles).mT + translation[:, None]
    torch.testing.assert_close(fast, slow, atol=tolerance, rtol=tolerance)
    weight = torch.sin(torch.arange(fast.numel(), dtype=dtype)).view_as(fast).masked_fill(fast > 1, 0)
    gradients = [torch.autograd.grad((moved * weight).sum(), (vertices, angles, translation)) for moved in (fast, slow)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=10 * tolerance, rtol=10 * tolerance)


def test_pose_passes_gradcheck():
    assert torch.autograd.gradcheck(apply_pose, inputs(torch.float64))


def test_one_pose_of_many_faces_and_one_face_in_many_poses():
    vertices, angles, translation = (tensor.detach() for tensor in inputs(torch.float64))
    together = apply_pose(vertices, angles, translation)
    for face in range(3):
        torch.testing.assert_close(apply_pose(vertices[face], angles[face], translation[face]), together[face])
    one = apply_pose(vertices, angles[:1], translation[:1])
    torch.testing.assert_close(one[1], apply_pose(vertices[1], angles[0], translation[0]))
    turned = apply_pose(vertices[0], angles, translation)
    torch.testing.assert_close(turned[2], apply_pose(vertices[0], angles[2], translation[2]))


def test_constant_vertices_get_no_gradient():
    vertices, angles, translation = inputs(torch.float64)
    moved = apply_pose(vertices.detach(), angles, translation)
    moved.sum().backward()
    torch.testing.assert_close(translation.grad, torch.full((3, 3), 40.0, dtype=torch.float64))
