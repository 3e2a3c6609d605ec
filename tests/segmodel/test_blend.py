import numpy as np
import pytest
import torch

from segmodel import LABEL_IDS, SeamBlender


@pytest.fixture(scope="module")
def blender(layout, face):
    return SeamBlender(layout, face.mean, radius_mm=30.0)


@pytest.fixture
def rest(face):
    return torch.from_numpy(face.mean).double()[None]


def with_part_moved(layout, rest, part, shift):
    composed = rest.clone()
    composed[:, layout.core(part)] += torch.tensor(shift, dtype=rest.dtype)
    return composed


def first_free_ring(layout, part):
    core = set(layout.core(part).tolist())
    ring = {v for t in layout.faces.tolist() if core & set(t) for v in t} - core
    return sorted(v for v in ring if layout.labels[v] == LABEL_IDS["rest"])


def test_parts_that_fit_the_rest_move_nothing(blender, rest):
    assert (blender(rest, rest) - rest).abs().max() < 1e-9


def test_moving_the_nose_up_takes_its_first_ring_along(blender, layout, rest):
    """Sign and size: beside the nose, far from other parts, the first ring one edge (3 mm) away follows by over 0.9."""
    moved = blender(with_part_moved(layout, rest, "nose", (0.0, 1.0, 0.0)), rest) - rest
    ring = np.array(first_free_ring(layout, "nose"))
    assert (moved[0, ring, 1] > 0.5).all()
    beside = ring[(np.abs(rest[0, ring, 1].numpy()) < 7) & (np.abs(rest[0, ring, 0].numpy()) > 10)]
    assert len(beside) >= 8
    assert (moved[0, beside, 1] - 0.93).abs().max() < 0.05
    assert moved.norm(dim=-1).max() < 1.3


def test_only_free_transition_vertices_change_and_all_else_is_bit_identical(blender, layout, rest):
    composed = with_part_moved(layout, rest.float(), "nose", (0.0, 2.0, 1.0))
    result = blender(composed, rest.float())
    assert result.dtype == torch.float32
    changed = np.flatnonzero((result != composed).any(-1)[0].numpy())
    assert len(changed) > 50
    assert set(changed) <= set(blender.area.vertex_ids[blender.area.free])
    outside = np.setdiff1d(np.arange(layout.n_vertices), blender.area.vertex_ids[blender.area.free])
    assert torch.equal(result[:, outside], composed[:, outside])


def test_seam_edges_are_repaired(blender, layout, rest):
    composed = with_part_moved(layout, rest, "nose", (0.0, 2.0, 1.0))
    ring, skin = set(layout.ring("nose").tolist()), set(first_free_ring(layout, "nose"))
    edges = [(a, b) for t in layout.faces.tolist() for a in t for b in t if a in ring and b in skin]
    i, j = torch.tensor(edges).T

    def stretch(vertices):
        return ((vertices[0, i] - vertices[0, j]).norm(dim=-1) - (rest[0, i] - rest[0, j]).norm(dim=-1)).abs().mean()

    assert stretch(blender(composed, rest)) < 0.2 * stretch(composed)


def test_rest_pose_curvature_is_kept_not_the_composed_one(blender, layout, rest):
    """A translation of every part and of the skin's own prediction of the rings must leave the skin as predicted."""
    bumpy = rest.clone()
    bumpy[:, blender.area.vertex_ids, 2] += torch.from_numpy(np.sin(np.arange(len(blender.area.vertex_ids))))
    assert (blender(bumpy, bumpy) - bumpy).abs().max() < 1e-8


def test_rigid_motion_in_rigid_motion_out(blender, layout, rest):
    composed = with_part_moved(layout, rest, "lower_lip", (0.0, -2.0, 1.0))
    axis = torch.tensor([[0.0, -0.3, 0.2], [0.3, 0.0, -0.5], [-0.2, 0.5, 0.0]], dtype=torch.float64)
    rotation, shift = torch.linalg.matrix_exp(axis), torch.tensor([5.0, -3.0, 8.0], dtype=torch.float64)
    # the first solve keeps all rotations at the identity, so equivariance is exact for a rotated rest pose too
    moved = blender(composed @ rotation.T + shift, rest @ rotation.T + shift)
    torch.testing.assert_close(moved, blender(composed, rest) @ rotation.T + shift, atol=1e-7, rtol=0)


def test_batch_equals_one_by_one(blender, layout, rest):
    one = with_part_moved(layout, rest, "nose", (0.0, 1.0, 0.0))
    two = with_part_moved(layout, rest, "eyes", (0.0, 0.0, 2.0))
    both = blender(torch.cat([one, two]), torch.cat([rest, rest]))
    torch.testing.assert_close(both, torch.cat([blender(one, rest), blender(two, rest)]), atol=1e-9, rtol=0)
    torch.testing.assert_close(both[0], blender(one[0], rest[0]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("n_solves", [1, 3])
def test_gradients_are_finite_differences_in_both_arguments(blender, layout, rest, n_solves, generator):
    few = blender.with_solves(n_solves)
    composed = with_part_moved(layout, rest, "nose", (0.0, 2.0, 1.0))
    weight = torch.randn(rest.shape, generator=generator, dtype=torch.float64)
    leaves = [composed.clone().requires_grad_(), rest.clone().requires_grad_()]
    gradients = torch.autograd.grad((few(*leaves) * weight).sum(), leaves)
    ids = blender.area.vertex_ids
    probes = [*blender.area.handles[:4], *blender.area.free[:4]]
    for which, gradient in enumerate(gradients):
        for n, probe in enumerate(probes):
            index = (0, int(ids[probe]), n % 3)
            values = []
            for sign in (1, -1):
                arguments = [composed.clone(), rest.clone()]
                arguments[which][index] += sign * 1e-4
                values.append((few(*arguments) * weight).sum())
            assert gradient[index] == pytest.approx(float(values[0] - values[1]) / 2e-4, rel=1e-4, abs=1e-6)


def test_with_solves_shares_the_factor_and_changes_the_result(blender, layout, rest):
    one = blender.with_solves(1)
    assert one._solver is blender._solver
    assert (one.n_solves, blender.n_solves) == (1, 3)
    composed = with_part_moved(layout, rest, "nose", (0.0, 6.0, 4.0))
    assert (one(composed, rest) - blender(composed, rest)).abs().max() > 1e-3


def test_one_solve_is_linear_in_the_handles(blender, layout, rest):
    one = blender.with_solves(1)
    step = one(with_part_moved(layout, rest, "nose", (0.0, 1.0, 0.0)), rest) - rest
    triple = one(with_part_moved(layout, rest, "nose", (0.0, 3.0, 0.0)), rest) - rest
    torch.testing.assert_close(triple, 3 * step, atol=1e-8, rtol=0)


def test_bad_arguments_are_named(blender, layout, face, rest):
    with pytest.raises(ValueError, match="composed has shape"):
        blender(rest[:, :5], rest)
    with pytest.raises(ValueError, match="rest has shape"):
        blender(rest, rest[:, :5])
    with pytest.raises(ValueError, match="n_solves is 0"):
        blender.with_solves(0)
    with pytest.raises(ValueError, match="n_solves is 0"):
        SeamBlender(layout, face.mean, n_solves=0)
