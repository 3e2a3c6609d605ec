"""The wiring of the CUDA backend without CUDA: a module with nvdiffrast's calls and checks, over the CPU rasteriser.

What nvdiffrast itself computes is tested in test_nvdiffrast_parity.py, where there is a GPU.
"""

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from fitting import LabelCosts, PartRenderer, Renderer, _nvdiffrast, clip_positions, mask_targets, render_labels
from fitting._borders import surface_points
from fitting._cpu import CpuBackend
from fitting.edge_term import EdgeTerm, add_edge_term
from fitting.label_edge import label_edge_image
from fitting.part_images import Gradient


def check(tensor, dtype, ndim):
    assert tensor.dtype == dtype
    assert tensor.ndim == ndim
    assert tensor.is_contiguous()


class FakeNvdiffrast(ModuleType):
    """nvdiffrast.torch as documented for 0.3 and 0.4: names, order, types and shapes of arguments and results."""

    def __init__(self):
        super().__init__("nvdiffrast.torch")
        self.__spec__ = importlib.machinery.ModuleSpec("nvdiffrast.torch", None)
        self.calls = []

    def RasterizeCudaContext(self, device=None):
        self.calls.append("context")
        return SimpleNamespace(device=device)

    def rasterize(self, glctx, pos, tri, resolution, ranges=None, grad_db=True):
        assert isinstance(glctx, SimpleNamespace)
        assert ranges is None
        assert grad_db is False, "gradients of the pixel derivatives cost time and are not used"
        check(pos, torch.float32, 3)
        check(tri, torch.int32, 2)
        assert [type(pixels) for pixels in resolution] == [int, int]
        self.calls.append("rasterize")
        return CpuBackend(tri).rasterise(pos, resolution), pos.new_empty(*resolution, 0)

    def interpolate(self, attr, rast, tri, rast_db=None, diff_attrs=None):
        check(attr, torch.float32, 3)
        check(rast, torch.float32, 4)
        assert len(attr) in (1, len(rast))
        assert rast_db is None
        self.calls.append("interpolate")
        return CpuBackend(tri).interpolate(attr, rast), rast.new_empty(*rast.shape[:3], 0)

    def antialias_construct_topology_hash(self, tri):
        check(tri, torch.int32, 2)
        self.calls.append("topology")
        return "the hash"

    def antialias(self, color, rast, pos, tri, topology_hash=None, pos_gradient_boost=1.0):
        check(color, torch.float32, 4)
        check(rast, torch.float32, 4)
        check(pos, torch.float32, 3)
        assert topology_hash == "the hash"
        assert pos_gradient_boost == 1
        self.calls.append("antialias")
        return CpuBackend(tri).antialias(color, rast, pos)


@pytest.fixture
def fake(monkeypatch):
    module, package = FakeNvdiffrast(), ModuleType("nvdiffrast")
    package.__spec__ = importlib.machinery.ModuleSpec("nvdiffrast", None)
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_nvdiffrast, "_device", lambda: torch.device("cpu"))
    return module


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("batched", [True, False])
def test_attribute_images_and_gradients(fake, face, batched, supersample):
    generator = torch.Generator().manual_seed(0)
    both = torch.stack([face.vertices, face.vertices + torch.tensor([5.0, -3.0, 20.0])])
    clip = clip_positions(both, face.camera)
    colours = torch.randn(*([2] if batched else []), len(face.vertices), 3, generator=generator)
    results = []
    for backend in ("nvdiffrast", "cpu"):
        moving, painted = clip.clone().requires_grad_(), colours.clone().requires_grad_()
        # not contiguous, and of another integer type: the backend has to bring both in order
        moving_view = moving.transpose(0, 1).contiguous().transpose(0, 1)
        image, raster = Renderer(face.faces, (96, 80), backend, supersample=supersample)(moving_view, painted)
        (image * torch.linspace(-1, 1, image.numel()).view_as(image)).sum().backward()
        results.append((image.detach(), raster.detach(), moving.grad, painted.grad))
    for theirs, ours in zip(*results, strict=True):
        assert torch.equal(theirs, ours)
    assert fake.calls == ["context", "rasterize", "interpolate", "topology", "antialias"]


@pytest.mark.parametrize("gradient", get_args(Gradient))
def test_part_images_and_gradients(fake, face, gradient):
    vertices = torch.stack([face.vertices, face.vertices + torch.tensor([5.0, -3.0, 20.0])])
    masks = render_labels(vertices + torch.tensor([3.0, 2.0, 0.0]), face.labels, face.camera, face.faces, backend="cpu")
    targets = mask_targets(masks)
    results = []
    for backend in ("nvdiffrast", "cpu"):
        moving = vertices.clone().requires_grad_()
        renderer = PartRenderer(face.faces, face.labels, face.camera, gradient=gradient, backend=backend)
        loss = renderer.region_loss(moving, targets, LabelCosts.from_targets(targets))
        loss.sum().backward()
        results.append((loss.detach(), renderer.labels(vertices), moving.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)
    assert fake.calls.count("rasterize") == 2
    assert fake.calls.count("context") == 1


def test_topology_hash_is_built_once(fake, face):
    renderer = Renderer(face.faces, 32, "nvdiffrast")
    clip = clip_positions(face.vertices[None], face.camera)
    for _ in range(3):
        renderer(clip, torch.ones(len(face.vertices), 1))
    assert fake.calls.count("topology") == 1


def test_auto_takes_nvdiffrast_where_it_can(fake, monkeypatch):
    faces = np.array([[0, 1, 2]])
    assert isinstance(Renderer(faces, 8).backend, _nvdiffrast.NvdiffrastBackend)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert isinstance(Renderer(faces, 8).backend, CpuBackend)


def test_positions_that_are_not_finite_are_named(fake, face):
    broken = clip_positions(face.vertices[None], face.camera)
    broken[0, 17, 1] = float("nan")
    with pytest.raises(ValueError, match="vertex 17 of image 0 is NaN or infinite"):
        Renderer(face.faces, 32, "nvdiffrast").rasterise(broken)


def test_missing_nvdiffrast_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", None)
    with pytest.raises(ImportError, match=r"install it from .*research and evaluation only"):
        Renderer(np.array([[0, 1, 2]]), 8, "nvdiffrast")


def test_missing_cuda_device_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", FakeNvdiffrast())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device and none is visible; use backend='cpu'"):
        Renderer(np.array([[0, 1, 2]]), 8, "nvdiffrast")


def test_border_forces_stay_on_the_device_of_the_positions(face):
    """On the meta device, which has shapes but no numbers and refuses to mix with the CPU, as CUDA does."""
    faces, labels = face.faces.int(), face.labels.to(torch.uint8)
    clip = torch.empty(2, len(labels), 4, device="meta", requires_grad=True)
    raster = torch.empty(2, 24, 32, 4, device="meta")
    image, ids = label_edge_image(clip, raster, labels, faces)
    assert image.shape == (2, 24, 32, 5)
    assert {image.device.type, ids.device.type} == {"meta"}
    colours = torch.empty(2, 24, 32, 5, device="meta", requires_grad=True)
    edged = add_edge_term(colours, clip, raster, labels, faces, EdgeTerm())
    grads = torch.autograd.grad((image * edged).sum(), (clip, colours))
    assert [grad.device.type for grad in grads] == ["meta", "meta"]
    assert surface_points(clip, faces.to("meta"), raster)[0].shape == (2, 24, 32, 2)
