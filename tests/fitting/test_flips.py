import numpy as np
import pytest
import torch

from fitting import LABEL_IDS, PARTS, Camera, Realism, Variable, fit_controls, render_labels
from fitting.flips import MARGIN, Orientation


def slow_normals(vertices, faces):
    a, b, c = vertices[:, faces].unbind(2)
    return torch.linalg.cross(b - a, c - a)


def slow_penalty(start, vertices, faces):
    n0, n = slow_normals(start, faces), slow_normals(vertices, faces)
    size = n0.norm(dim=-1)
    along = (n * n0).sum(-1) / size
    return (torch.relu(MARGIN * size - along) / size.mean(1, keepdim=True)).sum(1)


@pytest.fixture
def crumpled(face):
    """The dome's start and a copy with half of its triangles folded, for two photos, float64."""
    start = face.vertices.double().expand(2, -1, -1)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return start, start + 3 * noise


def test_share_of_flipped_triangles_equals_the_normals(face, crumpled):
    start, vertices = crumpled
    turned = (slow_normals(start, face.faces) * slow_normals(vertices, face.faces)).sum(-1) < 0
    share = Orientation(start, face.faces).flipped(vertices)
    np.testing.assert_allclose(share, turned.double().mean(1))
    assert 0.05 < float(share[0]) < 0.95


def test_penalty_and_its_gradient_equal_the_formula(face, crumpled):
    start, vertices = crumpled
    ours, theirs = vertices.clone().requires_grad_(), vertices.clone().requires_grad_()
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    penalty, expected = Orientation(start, face.faces).penalty(ours), slow_penalty(start, theirs, face.faces)
    torch.testing.assert_close(penalty, expected)
    (penalty * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    single = Orientation(start.float(), face.faces).penalty(vertices.float())
    torch.testing.assert_close(single, expected.detach().float(), rtol=1e-4, atol=1e-3)


def test_penalty_passes_gradcheck():
    start = torch.tensor([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [5, 5, 1], [9, 1, 0]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [1, 4, 3]])
    moved = start.clone()
    moved[0, 1] = torch.tensor([-3.0, -2.0, 1.0])
    orientation = Orientation(start, faces)
    assert float(orientation.penalty(moved)) > 0.5
    assert torch.autograd.gradcheck(orientation.penalty, (moved.requires_grad_(),))


def test_a_rest_shape_costs_nothing_wherever_it_is_moved(face):
    orientation = Orientation(face.vertices[None], face.faces)
    moved = (face.vertices[None] * 1.3 + torch.tensor([5.0, -3.0, 40.0])).requires_grad_()
    penalty = orientation.penalty(moved)
    penalty.sum().backward()
    assert penalty.tolist() == [0]
    assert float(moved.grad.abs().max()) == 0


def test_triangles_without_area_at_the_start_count_for_nothing():
    start = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 2, 0]]])
    orientation = Orientation(start, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    moved = start.clone()
    moved[0, 1, 1] = -5
    assert float(orientation.penalty(moved)) == 0
    assert float(orientation.flipped(moved)) == 0
    assert float(Orientation(start, torch.zeros(0, 3, dtype=torch.int64)).flipped(moved)) == 0


def squeezed_fit(face, flip_penalty):
    """The nose is asked to go 14 mm down, which only works by folding the strip of skin below it."""
    view = Camera.deep3d(160)
    masks = render_labels(face.shape({"nose": torch.tensor([[0.0, -14.0]])}), face.labels, view, face.faces)
    return fit_controls(
        face.shape,
        {"nose": Variable(torch.zeros(1, 2))},
        masks,
        view,
        faces=face.faces,
        labels=face.labels,
        iterations=40,
        learning_rate=0.5,
        prior=0.0,
        flip_penalty=flip_penalty,
    )


def test_flip_penalty_keeps_a_fit_from_folding_the_skin(face):
    free, held = squeezed_fit(face, 0.0), squeezed_fit(face, 0.1)
    assert free.realism.flipped[0] > 0.003
    assert held.realism.flipped[0] < 0.2 * free.realism.flipped[0]
    assert held.overlap_after.mean_of_parts()[0] > held.overlap_before.mean_of_parts()[0]


def test_realism_of_known_motion(face):
    """A nose that moves by 3, 4 mm and variables at known distances from their centres."""
    before = face.vertices[None].repeat(2, 1, 1)
    after = before.clone()
    nose = face.labels == LABEL_IDS["nose"]
    after[0, nose] += torch.tensor([3.0, 4.0, 0.0])
    after[1] += torch.tensor([0.0, 2.0, 0.0])
    values = {"z": torch.tensor([[1.0, -2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]), "none": torch.zeros(2, 0)}
    realism = Realism.of(before, after, Orientation(before, face.faces), face.labels.numpy(), values)
    share, parts = float(nose.double().mean()), face.labels > 1
    among_parts = float(nose[parts].double().mean())
    np.testing.assert_allclose(realism.moved_mean, [5 * share, 2], rtol=1e-6)
    np.testing.assert_allclose(realism.moved_rms, [5 * share**0.5, 2], rtol=1e-6)
    np.testing.assert_allclose(realism.parts_rms, [5 * among_parts**0.5, 2], rtol=1e-6)
    np.testing.assert_allclose(realism.parts_p99, [5, 2], rtol=1e-6)
    np.testing.assert_allclose(realism.moved_p99, [5 if share > 0.01 else 0, 2], rtol=1e-6)
    np.testing.assert_allclose(realism.unit_rms["z"], [(30 / 4) ** 0.5, 0])
    np.testing.assert_allclose(realism.far["z"], [0.25, 0])
    np.testing.assert_array_equal(realism.unit_rms["none"], [0, 0])


def test_flipped_triangles_are_reported(face):
    """Scaling x by s < 0 turns the normal n over where n_x^2 < -s (n_y^2 + n_z^2)."""

    def mirror(values):
        return face.vertices[None] * torch.cat([1 - values["x"], torch.ones(1, 2)], 1)[:, None]

    view = Camera.deep3d(160)
    masks = render_labels(face.vertices[None], face.labels, view, face.faces)
    start = {"x": Variable(torch.zeros(1, 1), prior_weight=1e4, prior_center=1.4)}
    options = {"faces": face.faces, "labels": face.labels, "iterations": 25}
    result = fit_controls(mirror, start, masks, view, **options)
    scale = 1 - float(result.values["x"])
    assert scale < 0
    squares = slow_normals(face.vertices.double()[None], face.faces)[0].square()
    expected = (squares[:, 0] < -scale * squares[:, 1:].sum(1)).double().mean()
    assert result.flipped[0] == pytest.approx(float(expected), abs=2e-3)
    assert result.realism.unit_rms["x"][0] == pytest.approx(abs(float(result.values["x"]) - 1.4), abs=1e-5)
    assert len(PARTS) == result.overlap_after.iou().shape[1]
