"""The whole chain, position to averaged image and back, against the float64 twin."""

import numpy as np
import pytest
import torch

from fitting import (
    Camera,
    EdgeTerm,
    PartRenderer,
    Renderer,
    apply_pose,
    clip_positions,
    mask_targets,
    region_loss,
    render_labels,
    render_parts,
)

SIZE = 40


@pytest.fixture(scope="module")
def scene(face):
    """Vertices (V, 3), faces, labels: every fourth row of the dome, a nose plate before it and lips that overlap."""
    grid = torch.arange(len(face.vertices)).reshape(49, 45)[::4, ::4]
    rows, columns = grid.shape
    ids = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
    plates = [(4, -14, 14, -8, 30, 95.0), (5, -24, 24, -40, -25, 90.0), (6, -20, 20, -55, -35, 88.0)]
    vertices, labels = [face.vertices[grid.ravel()]], [face.labels[grid.ravel()]]
    faces = [np.stack([a, b, c], 1), np.stack([b, d, c], 1)]
    for label, left, right, bottom, top, z in plates:
        start = sum(map(len, vertices))
        vertices.append(torch.tensor([(left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)]))
        labels.append(torch.full((4,), label))
        faces.append(np.array([[0, 1, 2], [0, 2, 3]]) + start)
    return torch.cat(vertices), torch.from_numpy(np.concatenate(faces)), torch.cat(labels)


def posed_clip(scene, camera, yaw):
    angles = torch.tensor([[0.1, yaw, 0.05]])
    posed = apply_pose(scene[0][None], angles, torch.tensor([[3.0, 2.0, 10.0]]))
    return posed, clip_positions(posed, camera)


def relative(ours, theirs):
    return float((ours.double() - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("yaw", [0.0, 0.7])
def test_image_and_gradients_equal_the_twin(face, scene, twin, yaw, supersample):
    generator = torch.Generator().manual_seed(0)
    camera = face.camera.resized(SIZE / 96)
    _, clip = posed_clip(scene, camera, yaw)
    colours = torch.randn(1, len(scene[0]), 2, generator=generator)
    weight = torch.randn(1, SIZE, SIZE, 2, generator=generator)

    clip32, colours32 = clip.clone().requires_grad_(), colours.clone().requires_grad_()
    image, raster = Renderer(scene[1], SIZE, "cpu", supersample=supersample)(clip32, colours32)
    assert raster.shape == (1, supersample * SIZE, supersample * SIZE, 4)
    (image * weight).sum().backward()

    fine = supersample * SIZE
    expected_raster = torch.from_numpy(twin.rasterise(clip[0].numpy(), scene[1].numpy(), fine, fine))[None]
    assert torch.equal(raster[..., 3].double(), expected_raster[..., 3])
    clip64, colours64 = clip.double().requires_grad_(), colours.double().requires_grad_()
    plain = twin.interpolate(clip64, colours64, scene[1], expected_raster)
    soft = twin.antialias(plain[0], expected_raster[0], clip64[0], scene[1])[None]
    expected = twin.area_average(soft, supersample)
    (expected * weight).sum().backward()

    assert float((soft - plain).detach().abs().max()) > 0.1
    assert float((image - expected).detach().abs().max()) < 1e-4
    # not less: where snapped coverage leaves the triangle, the gradient of the clamped weights is approximate
    assert relative(clip32.grad, clip64.grad) < 1e-2
    assert relative(colours32.grad, colours64.grad) < 1e-5


def depths(twin, clip, faces, raster):
    corners, share = twin.weights(clip, faces, raster[..., 3].long())
    return (clip[corners][..., 3] * share).sum(-1)


def crossed(twin, ids, depth, lips):
    """Pairs of pixels that the edge term counts, from the definition."""
    pairs = []
    for p, q, axis in twin.neighbours(*ids.shape):
        covered = int(ids[p] > 0) + int(ids[q] > 0)
        contact = lips and {int(ids[p]), int(ids[q])} == {5, 6}
        if covered == 1 or (covered == 2 and (abs(depth[p] - depth[q]) > 10 or contact)):
            pairs.append((p, q, axis))
    return pairs


@pytest.mark.parametrize("lips", [True, False])
@pytest.mark.parametrize("supersample", [1, 2])
def test_gradient_of_the_edge_term_equals_the_twin(face, scene, twin, supersample, lips):
    camera = face.camera.resized(SIZE / 96)
    posed, clip = posed_clip(scene, camera, 0.7)
    _, faces, labels = scene
    weight = torch.randn(1, SIZE, SIZE, 5, generator=torch.Generator().manual_seed(1))
    moving = posed.clone().requires_grad_()
    renderer = PartRenderer(
        faces, labels, camera, gradient="edge", backend="cpu", supersample=supersample, edge_term=EdgeTerm(10.0, lips)
    )
    image = renderer.parts(moving)
    (image * weight).sum().backward()

    fine = supersample * SIZE
    raster = torch.from_numpy(twin.rasterise(clip[0].numpy(), faces.numpy(), fine, fine))
    position = posed.double().requires_grad_()
    clip64 = clip_positions(position, camera)
    one_hot = torch.nn.functional.one_hot(labels, 7)[None].double()
    plain = twin.interpolate(clip64, one_hot, faces, raster[None])
    soft = twin.antialias(plain[0, ..., 2:], raster, clip64[0], faces)
    expected = twin.area_average(soft[None], supersample)
    loss = (expected * weight).sum()
    grad = torch.autograd.grad(loss, plain, retain_graph=True)[0][0, ..., 2:]
    depth = depths(twin, clip64[0].detach(), faces, raster)
    ids = torch.where(raster[..., 3] > 0, plain[0].detach().argmax(-1), 0)
    pairs = crossed(twin, ids, depth, lips)
    assert 100 < len(pairs) < 700
    force = twin.border_gradient(clip64[0], faces, raster, plain[0, ..., 2:].detach(), grad, pairs)
    through_image = torch.autograd.grad(loss, position, retain_graph=True)[0]
    through_edges = torch.autograd.grad(clip64, position, force[None])[0]
    assert float((image - expected).detach().abs().max()) < 1e-4
    assert float(through_edges.norm()) > float(through_image.norm()) / 10
    assert relative(moving.grad, through_image + through_edges) < 1e-2


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("gradient", ["label-edge", "label-edge-shared"])
def test_label_edge_force_equals_the_twin(face, scene, twin, gradient, supersample):
    camera = face.camera.resized(SIZE / 96)
    posed, clip = posed_clip(scene, camera, 0.7)
    _, faces, labels = scene
    weight = torch.randn(1, SIZE, SIZE, 5, generator=torch.Generator().manual_seed(2))
    moving = posed.clone().requires_grad_()
    renderer = PartRenderer(faces, labels, camera, gradient=gradient, backend="cpu", supersample=supersample)
    image = renderer.parts(moving)
    (image * weight).sum().backward()

    fine = supersample * SIZE
    raster = torch.from_numpy(twin.rasterise(clip[0].numpy(), faces.numpy(), fine, fine))
    one_hot = torch.nn.functional.one_hot(labels, 7)[None].double()
    soft = twin.interpolate(clip.double(), one_hot, faces, raster[None])[0]
    ids = torch.where(raster[..., 3] > 0, soft.argmax(-1), 0)
    colours = torch.nn.functional.one_hot(ids, 7)[..., 2:].double()
    expected = twin.area_average(colours[None], supersample)
    assert torch.equal(image.detach().double(), expected)
    grad = weight[0].double().repeat_interleave(supersample, 0).repeat_interleave(supersample, 1) / supersample**2
    pairs = [pair for pair in twin.neighbours(fine, fine) if ids[pair[0]] != ids[pair[1]]]
    occluded = set(crossed(twin, ids, depths(twin, clip[0].double(), faces, raster), True))
    shared = set() if gradient == "label-edge" else set(pairs) - occluded
    assert len(shared) > 20 or gradient == "label-edge"
    force = twin.border_gradient(clip[0].double(), faces, raster, colours, grad, pairs, shared)
    position = posed.double().requires_grad_()
    clip_positions(position, camera).backward(force[None])
    assert relative(moving.grad, position.grad) < 1e-3


def test_edge_term_matches_finite_differences_on_a_mesh_finer_than_the_pixels():
    """A nose plate of triangles of a seventh of a pixel before a plane: all of its slope is occlusion."""
    camera, finer = Camera.deep3d(64), 8
    x, y = np.meshgrid(np.linspace(-22, 22, 91), np.linspace(-17, 17, 71))
    turn = np.array([[0.92, -0.39], [0.39, 0.92]])
    plate = np.c_[np.stack([x, y], -1).reshape(-1, 2) @ turn, np.full(x.size, 40.0)]
    ids = np.arange(x.size).reshape(x.shape)
    a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
    back = np.array([(-70.0, -70, 0), (70, -70, 0), (70, 70, 0), (-70, 70, 0)])
    vertices = torch.from_numpy(np.concatenate([plate, back])).float()[None]
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1), np.array([[0, 1, 2], [0, 2, 3]]) + x.size])
    labels = np.where(np.arange(x.size + 4) < x.size, 4, 1)
    front = torch.from_numpy(labels == 4)[:, None] * torch.tensor([0.8, -0.6, 0.0])
    mask = render_labels(vertices + 7 * front, labels, camera, faces)
    targets = mask_targets(mask, 0.0)
    fine_targets = mask_targets(mask.repeat_interleave(finer, 1).repeat_interleave(finer, 2), 0.0)
    exact = PartRenderer(faces, labels, camera.resized(finer), gradient="interpolation")
    numeric, slopes = 0.0, {"interpolation": 0.0, "edge": 0.0}
    for index in range(6):  # starts that differ by fractions of a pixel of 3.4 mm
        start = vertices + 3.4 * torch.tensor([(0.7549 * index) % 1, (0.5698 * index) % 1, 0.0])
        ahead, behind = (region_loss(exact.parts(start + step * front), fine_targets) for step in (1.7, -1.7))
        numeric += float(ahead - behind) / 3.4
        for gradient in slopes:
            moving = start.clone().requires_grad_()
            region_loss(render_parts(moving, labels, camera, faces, gradient=gradient), targets).backward()
            slopes[gradient] += float((moving.grad[0] * front).sum())
    assert slopes["interpolation"] == pytest.approx(0, abs=1e-6)
    assert slopes["edge"] == pytest.approx(numeric, rel=0.05)


def test_supersampling_averages_the_finer_image(face):
    colours = torch.rand(len(face.vertices), 3, generator=torch.Generator().manual_seed(0))
    clip = clip_positions(face.vertices[None], face.camera)
    fine, _ = Renderer(face.faces, (192, 192), "cpu")(clip, colours)
    image, raster = Renderer(face.faces, (96, 96), "cpu", supersample=2)(clip, colours)
    blocks = (fine[:, ::2, ::2] + fine[:, 1::2, ::2] + fine[:, ::2, 1::2] + fine[:, 1::2, 1::2]) / 4
    torch.testing.assert_close(image, blocks)
    assert raster.shape == (1, 192, 192, 4)
    with pytest.raises(ValueError, match="supersample is 3; expected 1, 2 or 4"):
        Renderer(face.faces, 96, "cpu", supersample=3)


def test_supersampled_part_image_holds_areas_and_labels_keep_sampling_centres(face):
    once, four = (PartRenderer(face.faces, face.labels, face.camera, backend="cpu", supersample=n) for n in (1, 4))
    vertices = face.vertices[None]
    image = four.parts(vertices)
    assert image.shape == (1, 96, 96, 5)
    assert set((16 * image).unique().tolist()) == set(range(17))
    assert torch.equal(four.labels(vertices), once.labels(vertices))
    whole = PartRenderer(face.faces, face.labels, face.camera.resized(4), backend="cpu").parts(vertices)
    torch.testing.assert_close(image.sum((1, 2)), whole.sum((1, 2)) / 16)


def test_depth_step_must_be_positive():
    with pytest.raises(ValueError, match=r"depth_step is 0 mm; it must be positive"):
        EdgeTerm(depth_step=0)
