from typing import get_args

import numpy as np
import pytest
import torch

from fitting import (
    LABEL_IDS,
    PARTS,
    Camera,
    LabelCosts,
    PartRenderer,
    apply_pose,
    clip_positions,
    mask_targets,
    region_loss,
    render_labels,
    render_parts,
    soften,
)
from fitting.label_edge import dominant_labels, label_edge_image
from fitting.part_images import Gradient
from fitting.region_cost import label_cost
from fitting.renderer import Renderer


def one_hot(labels):
    return torch.nn.functional.one_hot(torch.as_tensor(labels).long(), 7)[..., 2:]


def test_label_map_is_the_argmax_of_interpolated_one_hot(face):
    posed = apply_pose(face.vertices[None], torch.tensor([[0.1, 0.7, 0.0]]), torch.zeros(1, 3))
    colours = torch.nn.functional.one_hot(face.labels, 7).float()
    soft, _ = Renderer(face.faces, 96, "cpu", antialias=False)(clip_positions(posed, face.camera), colours)
    labels = render_labels(posed, face.labels, face.camera, face.faces)
    assert labels.dtype == torch.uint8
    ordered = soft.sort(-1).values
    clear = ordered[..., -1] - ordered[..., -2] > 1e-6
    assert torch.equal(labels[clear].long(), soft.argmax(-1)[clear])
    assert float(clear.float().mean()) > 0.4
    assert set(labels.unique().tolist()) == set(range(7))


def test_part_image_is_the_one_hot_label_map(face):
    image = render_parts(face.vertices[None], face.labels, face.camera, face.faces)
    labels = render_labels(face.vertices[None], face.labels, face.camera, face.faces)
    assert image.dtype == torch.float32
    assert torch.equal(image, one_hot(labels).float())


@pytest.mark.parametrize("shared_within", [0.0, 10.0])
def test_numba_and_torch_forms_agree(face, shared_within):
    """The torch form in float64 is the slow twin: labels by one-hot sums, forces by shifted images, J by autograd."""
    generator = torch.Generator().manual_seed(0)
    posed = apply_pose(
        face.vertices.repeat(2, 1, 1), torch.tensor([[0.1, 0.6, 0.2], [0.0, 0.0, 0.0]]), torch.zeros(2, 3)
    )
    clip = clip_positions(posed, face.camera)
    faces, labels = face.faces.int(), face.labels.to(torch.uint8)
    raster = Renderer(faces, 96, "cpu").rasterise(clip)
    grad = torch.randn(2, 96, 96, 5, generator=generator)
    fast, slow = clip.clone().requires_grad_(), clip.double().requires_grad_()
    image, ids = label_edge_image(fast, raster, labels, faces, shared_within)
    image.backward(grad)
    image64, ids64 = label_edge_image(slow, raster.double(), labels, faces, shared_within)
    image64.backward(grad.double())
    assert torch.equal(ids, ids64)
    assert torch.equal(ids, dominant_labels(raster.double(), labels, faces))
    assert torch.equal(image.detach().double(), image64.detach())
    assert float((fast.grad - slow.grad).norm() / slow.grad.norm()) < 1e-3


def two_half_planes():
    """8 x 8 px image, eyebrows on the left half and nose on the right, as separate planes with w = 1."""
    corners = np.array([(0, 0), (4, 0), (4, 8), (0, 8), (8, 0), (8, 8), (4, 0), (4, 8)], float)
    clip = torch.ones(1, 8, 4)
    clip[0, :, :2] = torch.from_numpy(2 * corners / 8 - 1)
    clip[0, :, 2] = 0.0
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [6, 4, 5], [6, 5, 7]], dtype=torch.int32)
    labels = torch.tensor([2, 2, 2, 2, 4, 4, 4, 4], dtype=torch.uint8)
    return clip, faces, labels, Renderer(faces, 8, "cpu").rasterise(clip)


def cost_of_label(label, target, weight):
    return float((weight * (one_hot(label).double() - target) ** 2).sum())


@pytest.mark.parametrize("ignored_share", [0.0, 0.3])
def test_force_on_the_region_loss_is_the_mean_difference_of_costs(ignored_share):
    """By brute force: over each pair of pixels at the border, the mean of cost(left label) - cost(right label)."""
    clip, faces, labels, raster = two_half_planes()
    generator = torch.Generator().manual_seed(0)
    target, weight = torch.rand(8, 8, 5, generator=generator), torch.rand(5, generator=generator)
    counts = torch.rand(8, 8, generator=generator) >= ignored_share
    expected = 0.0
    for row in range(8):
        for column in (3, 4):
            if counts[row, column]:
                right, left = (cost_of_label(k, target[row, column].double(), weight.double()) for k in (4, 2))
                expected += 0.5 * (left - right)
    shift = 2 / 8  # ndc per pixel

    costs = LabelCosts((weight * (1 - 2 * target) * counts[..., None])[None], torch.zeros(1, dtype=torch.float64))
    moving = clip.clone().requires_grad_()
    label_cost(moving, raster, labels, faces, costs).sum().backward()
    assert float(moving.grad[0, :, 0].sum()) * shift == pytest.approx(expected, rel=1e-5)
    if ignored_share == 0:
        moving = clip.clone().requires_grad_()
        image, ids = label_edge_image(moving, raster, labels, faces)
        (weight * (image[0] - target) ** 2).sum().backward()
        assert (ids[0, :, :4] == 2).all()
        assert (ids[0, :, 4:] == 4).all()
        assert float(moving.grad[0, :, 0].sum()) * shift == pytest.approx(expected, rel=1e-5)


def region(image, target):
    area = target.sum((1, 2)).clamp_min(1)
    return (((image - target) ** 2).sum((1, 2)) / area).sum()


@pytest.mark.parametrize(
    ("gradient", "yaw", "bound"),
    [("label-edge", 0.0, 0.03), ("label-edge", 35.0, 0.03), ("label-edge-shared", 0.0, 0.08)],
)
def test_force_matches_finite_differences_of_the_supersampled_loss(face, gradient, yaw, bound):
    """Slope along one direction for the whole face and for each part: with a soft surround, or alone if shared.

    Against central differences (half a pixel to each side) of the region loss of an image 8 times as fine, both
    summed over four starts that differ by fractions of a pixel, so that the pixel grid averages out.
    """
    camera, finer = Camera.deep3d(224), 8
    pixel = camera.distance / camera.fx
    posed = apply_pose(face.vertices[None], torch.tensor([[0.0, np.radians(yaw), 0.0]]).float(), torch.zeros(1, 3))
    mask = render_labels(posed + pixel * torch.tensor([3.0, -2.0, 0.0]), face.labels, camera, face.faces)
    fine_mask = mask.repeat_interleave(finer, 1).repeat_interleave(finer, 2)
    targets, fine_targets = mask_targets(mask, 0.0), mask_targets(fine_mask, 0.0)
    costs, fine_costs = LabelCosts.from_targets(targets), LabelCosts.from_targets(fine_targets)
    coarse, fine = (PartRenderer(face.faces, face.labels, camera.resized(n), gradient=gradient) for n in (1, finer))
    torn = gradient == "label-edge-shared"
    alone = {part: (face.labels == LABEL_IDS[part]).float()[:, None] for part in PARTS}
    parts = alone if torn else {part: face.reach(part) for part in PARTS}
    shares = {"face": torch.ones(len(face.vertices), 1)} | parts
    steps = {name: 0.5 * pixel * share * torch.tensor([0.83, -0.55, 0.0]) for name, share in shares.items()}
    analytic, numeric = dict.fromkeys(steps, 0.0), dict.fromkeys(steps, 0.0)
    for index in range(4):
        shift = pixel * torch.tensor([(0.5 + 0.7549 * index) % 1, (0.5 + 0.5698 * index) % 1, 0.0])
        moving = (posed + shift).requires_grad_()
        coarse.region_loss(moving, targets, costs).sum().backward()
        for name, step in steps.items():
            with torch.no_grad():
                ahead, behind = (fine.region_loss(moving + s, fine_targets, fine_costs) for s in (step, -step))
            numeric[name] += float(ahead - behind)
            analytic[name] += 2 * float((moving.grad[0] * step).sum())
    for name in steps:
        assert analytic[name] == pytest.approx(numeric[name], rel=bound), name


def test_force_lets_a_nearer_part_move_over_a_farther_one():
    """A nose-labelled square in front of a lip-labelled plane: only the square feels the border between them."""
    back = [(-60, -60, 0), (60, -60, 0), (60, 60, 0), (-60, 60, 0)]
    front = [(-15, -15, 40), (15, -15, 40), (15, 15, 40), (-15, 15, 40)]
    vertices = torch.tensor(back + front, dtype=torch.float32)[None].requires_grad_()
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    labels = np.array([5] * 4 + [4] * 4)
    camera = Camera.deep3d(64)
    target = render_parts(
        vertices.detach() + torch.tensor([6.0, 0, 0]) * (vertices.detach()[..., 2:] > 20), labels, camera, faces
    )
    region(render_parts(vertices, labels, camera, faces), target).backward()
    assert float(vertices.grad[0, 4:, 0].sum()) < 0
    assert float(vertices.grad[0, :4].abs().max()) == 0
    for gradient in ("interpolation", "antialias", "edge"):
        other = vertices.detach().clone().requires_grad_()
        region(render_parts(other, labels, camera, faces, gradient=gradient), target).backward()
        pull = float(other.grad[0, 4:, 0].sum())
        assert (pull == 0) if gradient == "interpolation" else (pull < 0)


def test_gradient_of_other_losses_points_downhill(face):
    target = soften(
        render_parts(face.shape({"nose": torch.tensor([[4.0, 3.0]])}), face.labels, face.camera, face.faces), 2.0
    )
    for gradient in get_args(Gradient):
        renderer = PartRenderer(face.faces, face.labels, face.camera, gradient=gradient)
        vertices = face.vertices[None].clone().requires_grad_()
        (soften(renderer.parts(vertices), 2.0) - target).square().sum().backward()
        nose = face.labels == LABEL_IDS["nose"]
        push = -vertices.grad[0, nose].sum(0)
        assert push[0] > 0, gradient
        assert push[1] > 0, gradient


def test_bad_input_is_named(face):
    arguments = (face.labels, face.camera, face.faces)
    with pytest.raises(ValueError, match=r"vertices have shape \(2205, 3\); expected \(B, 2205, 3\)"):
        render_labels(face.vertices, *arguments)
    with pytest.raises(ValueError, match="vertex label 7 is not a label id; expected 1 to 6"):
        render_labels(face.vertices[None], face.labels + (face.labels == 6).long(), face.camera, face.faces)
    with pytest.raises(ValueError, match="vertex label 0 is not a label id"):
        render_labels(face.vertices[None], face.labels * 0, face.camera, face.faces)
    with pytest.raises(ValueError, match="faces refer to vertex 2205 but there are 2205 labels"):
        render_labels(face.vertices[None], face.labels, face.camera, face.faces + 1)
    with pytest.raises(ValueError, match="gradient is 'soft'"):
        render_parts(face.vertices[None], *arguments, gradient="soft")
    broken = face.vertices[None].clone()
    broken[0, 17, 1] = float("nan")
    with pytest.raises(ValueError, match="vertex 17 of image 0 is NaN or infinite"):
        render_parts(broken, *arguments)
    assert len(PARTS) == 5


def test_region_loss_without_the_image_equals_the_one_with_it(face):
    camera = face.camera
    vertices = face.vertices + torch.tensor([[[0.0, 0, 0]], [[4.0, -3.0, 10.0]]])
    masks = render_labels(
        face.shape({"nose": torch.tensor([[3.0, 2.0], [-2.0, 3.0]]), "eyes": torch.tensor([[2.0, 2.0], [1.0, -3.0]])}),
        face.labels,
        camera,
        face.faces,
    )
    masks[1][masks[1] == LABEL_IDS["lower_lip"]] = 0
    targets = mask_targets(masks, 4.0)
    renderer = PartRenderer(face.faces, face.labels, camera, backend="cpu")
    with_image, without = vertices.clone().requires_grad_(), vertices.clone().requires_grad_()
    weight = torch.tensor([1.0, 0.7])
    slow = region_loss(renderer.parts(with_image), targets)
    fast = renderer.region_loss(without, targets, LabelCosts.from_targets(targets))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=0)
    (slow * weight).sum().backward()
    (fast * weight).sum().backward()
    assert float((without.grad - with_image.grad).norm() / with_image.grad.norm()) < 1e-4
    ignore = torch.rand(masks.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    ignoring = mask_targets(masks, 4.0, ignore=ignore)
    torch.testing.assert_close(
        renderer.region_loss(vertices, ignoring, LabelCosts.from_targets(ignoring)),
        region_loss(renderer.parts(vertices), ignoring),
        rtol=1e-5,
        atol=0,
    )
    with pytest.raises(ValueError, match=r"targets have shape \(2, 96, 96\); expected \(1, 96, 96\)"):
        renderer.region_loss(vertices[:1], targets, LabelCosts.from_targets(targets))
