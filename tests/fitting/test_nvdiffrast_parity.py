"""nvdiffrast against the CPU rasteriser, with the bounds of what 1/16 px snapping and float32 allow. Needs a GPU."""

import importlib.util
import math
from typing import get_args

import pytest
import torch

from fitting import PartRenderer, Renderer, apply_pose, clip_positions
from fitting.part_images import Gradient

if not torch.cuda.is_available():
    pytest.skip("no CUDA device: nvdiffrast cannot run", allow_module_level=True)
if importlib.util.find_spec("nvdiffrast") is None:
    pytest.skip("nvdiffrast is not installed (optional; research licence)", allow_module_level=True)

SIZE = 224
BACKENDS = ("nvdiffrast", "cpu")


def posed(face, yaw):
    angles = torch.tensor([[0.1, math.radians(yaw), 0.05], [0.0, math.radians(-yaw), 0.0]])
    return apply_pose(face.vertices.repeat(2, 1, 1), angles, torch.tensor([[3.0, 2.0, 10.0], [0.0, 0.0, 0.0]]))


def rendered(face, yaw, supersample=1):
    """Image, raster and gradients in positions and attributes of both backends, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    clip = clip_positions(posed(face, yaw), face.camera)
    colours = torch.randn(2, len(face.vertices), 3, generator=generator)
    weight = torch.randn(2, SIZE, SIZE, 3, generator=generator)
    for backend in BACKENDS:
        moving, painted = clip.clone().requires_grad_(), colours.clone().requires_grad_()
        image, raster = Renderer(face.faces, SIZE, backend, supersample=supersample)(moving, painted)
        (image * weight).sum().backward()
        yield image.detach(), raster.detach(), moving.grad, painted.grad


def assert_parallel(theirs, ours):
    assert float(torch.nn.functional.cosine_similarity(theirs.ravel(), ours.ravel(), 0)) >= 0.999
    assert float((theirs - ours).norm() / ours.norm()) <= 2e-2


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("yaw", [0.0, 35.0, 60.0])
def test_images_and_gradients_agree(face, yaw, supersample):
    (image, raster, grad, colour_grad), (image_cpu, raster_cpu, grad_cpu, colour_grad_cpu) = rendered(
        face, yaw, supersample
    )
    same = raster[..., 3] == raster_cpu[..., 3]
    assert float(same.float().mean()) >= 0.999
    difference = (raster - raster_cpu).abs()[same]
    assert float(difference[:, :2].max()) <= 1e-4
    assert float(difference[:, 2].max()) <= 1e-5
    around = -torch.nn.functional.max_pool2d(-same[:, None].float(), 3, 1, 1)
    settled = -torch.nn.functional.max_pool2d(-around, supersample)[:, 0] == 1
    assert float((image - image_cpu).abs()[settled].max()) <= 2e-4
    assert float((image - image_cpu).abs().mean()) <= 1e-4
    assert_parallel(grad, grad_cpu)
    assert_parallel(colour_grad, colour_grad_cpu)


@pytest.mark.parametrize("gradient", get_args(Gradient))
@pytest.mark.parametrize("yaw", [0.0, 35.0])
def test_part_images_and_labels_agree(face, yaw, gradient):
    vertices = posed(face, yaw)
    weight = torch.randn(2, 96, 96, 5, generator=torch.Generator().manual_seed(1))
    results = []
    for backend in BACKENDS:
        moving = vertices.clone().requires_grad_()
        renderer = PartRenderer(face.faces, face.labels, face.camera, gradient=gradient, backend=backend)
        image = renderer.parts(moving)
        (image * weight).sum().backward()
        results.append((image.detach(), renderer.labels(vertices), moving.grad))
    (image, labels, grad), (image_cpu, labels_cpu, grad_cpu) = results
    assert image.device.type == labels.device.type == grad.device.type == "cpu"
    assert float((labels == labels_cpu).float().mean()) >= 0.999
    assert float((image - image_cpu).abs().mean()) <= 1e-3
    assert_parallel(grad, grad_cpu)


def test_tensors_on_the_gpu_stay_there(face):
    vertices = posed(face, 0.0).cuda().requires_grad_()
    renderer = PartRenderer(face.faces, face.labels, face.camera, backend="nvdiffrast")
    image = renderer.parts(vertices)
    image.square().sum().backward()
    assert image.is_cuda
    assert vertices.grad.is_cuda
    assert renderer.labels(vertices.detach()).is_cuda
