import numpy as np
import pytest
import torch

from fitting import Renderer, apply_pose, clip_positions


@pytest.mark.parametrize("yaw", [0.0, 0.6])
def test_image_and_gradients_equal_float64_autograd(face, twin, yaw):
    generator = torch.Generator().manual_seed(0)
    posed = apply_pose(face.vertices[None], torch.tensor([[0.1, yaw, 0.05]]), torch.tensor([[3.0, 2.0, 10.0]]))
    clip = clip_positions(posed, face.camera).repeat(2, 1, 1)
    clip[1, :, 0] += 20.0
    attributes = torch.randn(2, len(face.vertices), 3, generator=generator)
    weight = torch.randn(2, 96, 96, 3, generator=generator)

    clip32, attributes32 = clip.clone().requires_grad_(), attributes.clone().requires_grad_()
    image, raster = Renderer(face.faces, 96, "cpu", antialias=False)(clip32, attributes32)
    raster = raster.detach()
    # at silhouettes the snapped coverage may lie outside the triangle, where the weights are clamped
    unclamped = (raster[..., :2].min(-1).values > 0) & (raster[..., :2].sum(-1) < 1)
    assert float(unclamped.float().mean()) > 0.3
    weight = weight * unclamped[..., None]
    (image * weight).sum().backward()

    clip64, attributes64 = clip.double().requires_grad_(), attributes.double().requires_grad_()
    expected = twin.interpolate(clip64, attributes64, face.faces, raster)
    (expected * weight).sum().backward()

    assert float((image - expected).detach().abs()[unclamped].max()) < 1e-4
    for ours, theirs in ((clip32, clip64), (attributes32, attributes64)):
        difference = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert float(difference) < 1e-5


def test_shared_attributes_collect_the_gradient_of_every_image(face):
    clip = clip_positions(face.vertices[None], face.camera).repeat(2, 1, 1)
    renderer = Renderer(face.faces, 96, "cpu", antialias=False)
    shared = torch.ones(len(face.vertices), 2, requires_grad=True)
    image, raster = renderer(clip, shared)
    image.sum().backward()
    seen = raster[..., 3] > 0
    torch.testing.assert_close(image[seen], torch.ones_like(image[seen]))
    assert float(image.detach()[~seen].abs().max()) == 0
    assert float(shared.grad.sum()) == pytest.approx(2 * int(seen.sum()), rel=1e-5)


def edge_at(x, size=16):
    """One big triangle pair whose right border is the vertical line at pixel x."""
    corners = np.array([(-40, -40), (x, -40), (x, 60), (-40, 60)], float)
    clip = np.ones((1, 4, 4), np.float32)
    clip[0, :, :2] = 2 * corners / size - 1
    clip[0, :, 2] = 0
    return torch.from_numpy(clip)


@pytest.mark.parametrize("x", [6.1, 6.4, 6.75, 7.3])
def test_antialiased_border_has_the_exact_area_and_its_derivative(x):
    renderer = Renderer(np.array([[0, 1, 2], [0, 2, 3]]), 16, "cpu")
    clip = edge_at(x).requires_grad_()
    image, _ = renderer(clip, torch.ones(4, 1))
    assert float(image.detach().sum()) == pytest.approx(16 * x, abs=1e-3)
    image.sum().backward()
    moving_right = clip.grad[0, 1:3, 0].sum() * 2 / 16  # d ndc / d pixel
    assert float(moving_right) == pytest.approx(16, abs=1e-3)


def test_antialias_gradient_matches_finite_differences_for_large_overlapping_triangles():
    generator = torch.Generator().manual_seed(3)
    pixels = torch.tensor([(3.2, 4.1), (25.7, 8.3), (9.4, 27.9), (6.3, 2.2), (29.1, 20.6), (14.8, 29.3)])
    clip = torch.ones(1, 6, 4)
    clip[0, :, :2] = 2 * pixels / 32 - 1
    clip[0, :, 2] = torch.tensor([0.5, 0.5, 0.5, 0.1, 0.1, 0.1])
    clip = clip * torch.tensor([0.8, 1.2, 1.0, 1.1, 0.9, 1.3])[:, None]
    colours = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    target = torch.rand(1, 32, 32, 2, generator=generator)
    target = torch.nn.functional.avg_pool2d(target.movedim(-1, 1), 9, 1, 4).movedim(1, -1)
    fine = torch.nn.functional.interpolate(target.movedim(-1, 1), scale_factor=16).movedim(1, -1)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    soft, sharp = Renderer(faces, 32, "cpu"), Renderer(faces, 512, "cpu", antialias=False)

    def area_loss(position):
        image = sharp(position, colours)[0]
        return float((image * (image - 2 * fine)).sum(dtype=torch.float64)) / 256

    position = clip.clone().requires_grad_()
    image, _ = soft(position, colours)
    # the linear form of the squared loss for 0/1 colours, so that the area average is exact
    (image * (1 - 2 * target)).sum().backward()
    numeric, analytic = [], []
    for vertex in range(6):
        for axis in range(2):
            step = torch.zeros_like(clip)
            step[0, vertex, axis] = 0.05
            numeric.append((area_loss(clip + step) - area_loss(clip - step)) / 0.1)
            analytic.append(float(position.grad[0, vertex, axis]))
    cosine = np.dot(numeric, analytic) / np.linalg.norm(numeric) / np.linalg.norm(analytic)
    assert cosine > 0.97
    assert np.linalg.norm(analytic) / np.linalg.norm(numeric) == pytest.approx(1, abs=0.1)


def test_antialias_leaves_the_inside_of_a_surface_alone(face):
    clip = clip_positions(face.vertices[None], face.camera)
    colours = torch.rand(len(face.vertices), 3, generator=torch.Generator().manual_seed(0))
    hard, raster = Renderer(face.faces, 96, "cpu", antialias=False)(clip, colours)
    soft, _ = Renderer(face.faces, 96, "cpu")(clip, colours)
    seen = (raster[..., 3] > 0).float()
    border = -torch.nn.functional.max_pool2d(-seen, 3, 1, 1) < 1
    inside = ~border & (seen > 0)
    assert torch.equal(soft[inside], hard[inside])
    assert not torch.equal(soft, hard)
