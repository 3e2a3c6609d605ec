"""Laws of every tier that `test_solver` does not state: numbering, order, scale, and the fall of the energy."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from arap_diff import ArapSolver, mesh_edges

ENERGIES = ["bilaplacian", "edges"]
HANDLES = np.array([0, 6, 42, 48, 24])


@pytest.fixture
def pose(bumpy_grid: Callable) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    vertices, faces = bumpy_grid(7, 7)
    rest = torch.from_numpy(vertices)
    rng = np.random.default_rng(4)
    return rest, faces, rest[HANDLES] + 0.8 * torch.from_numpy(rng.normal(size=(5, 3)))


@pytest.mark.parametrize("energy", ENERGIES)
def test_handles_at_rest_move_nothing(pose: tuple, tier: str, energy: str) -> None:
    rest, faces, _ = pose
    solver = ArapSolver(faces, HANDLES, 49, rest=rest, energy=energy, weights="cotangent", backend=tier)
    torch.testing.assert_close(solver.solve(rest, rest[HANDLES], 5), rest, rtol=0, atol=1e-10)
    torch.testing.assert_close(solver.solve_converged(rest, rest[HANDLES], 1e-9), rest, rtol=0, atol=1e-10)


@pytest.mark.parametrize("energy", ENERGIES)
def test_rigid_motion_and_scale_of_everything(pose: tuple, rotation_about: Callable, tier: str, energy: str) -> None:
    rest, faces, targets = pose
    solver = ArapSolver(faces, HANDLES, 49, energy=energy, backend=tier)
    q = rotation_about([1, -2, 0.5], 2.0)
    shift = torch.tensor([10.0, -4.0, 3.0], dtype=torch.float64)
    plain = solver.solve(rest, targets)
    moved = solver.solve(1e3 * rest @ q.T - shift, 1e3 * targets @ q.T + shift)
    torch.testing.assert_close(moved, 1e3 * plain @ q.T + shift, rtol=0, atol=1e-9)


@pytest.mark.parametrize("energy", ENERGIES)
def test_numbering_of_vertices_and_order_of_faces_and_handles_do_not_matter(
    pose: tuple, tier: str, energy: str
) -> None:
    rest, faces, targets = pose
    rng = np.random.default_rng(2)
    new_id, handle_order, face_order = rng.permutation(49), rng.permutation(5), rng.permutation(len(faces))
    old_id = np.argsort(new_id)
    weights = rng.uniform(0.5, 2, len(mesh_edges(faces, 49)))
    of_edge = {tuple(edge): w for edge, w in zip(mesh_edges(faces, 49).tolist(), weights, strict=True)}
    new_faces = np.roll(new_id[faces[face_order]], 1, axis=1)
    new_weights = [of_edge[tuple(sorted(old_id[edge].tolist()))] for edge in mesh_edges(new_faces, 49)]
    plain = ArapSolver(faces, HANDLES, 49, energy=energy, weights=weights, backend=tier).solve(rest, targets)
    renumbered = ArapSolver(
        new_faces, new_id[HANDLES][handle_order], 49, energy=energy, weights=new_weights, backend=tier
    ).solve(rest[old_id], targets[handle_order])
    torch.testing.assert_close(renumbered[new_id], plain, rtol=0, atol=1e-10)


def test_only_ratios_of_weights_matter(pose: tuple, tier: str) -> None:
    rest, faces, targets = pose
    weights = np.random.default_rng(2).uniform(0.5, 2, len(mesh_edges(faces, 49)))
    one, two = (
        ArapSolver(faces, HANDLES, 49, weights=w, backend=tier).solve(rest, targets) for w in (weights, 7 * weights)
    )
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def test_heavy_edges_keep_their_length(pose: tuple) -> None:
    rest, faces, targets = pose
    edges = mesh_edges(faces, 49)
    along_row = np.flatnonzero((edges[:, 0] // 7 == 2) & (edges[:, 1] // 7 == 2))
    weights = np.ones(len(edges))
    strain = []
    for weight in (1, 100):
        weights[along_row] = weight
        x = ArapSolver(faces, HANDLES, 49, energy="edges", weights=weights).solve(rest, targets, 50)
        length, rest_length = (
            (points[edges[along_row, 0]] - points[edges[along_row, 1]]).norm(dim=1) for points in (x, rest)
        )
        strain.append((length / rest_length - 1).abs().max().item())
    assert strain[1] < 0.2 * strain[0]


@pytest.mark.parametrize("weights", ["uniform", "cotangent"])
def test_energy_of_the_edges_falls_from_solve_to_solve(pose: tuple, tier: str, weights: str) -> None:
    rest, faces, targets = pose
    solver = ArapSolver(faces, HANDLES, 49, rest=rest, energy="edges", weights=weights, backend=tier)
    shapes = torch.stack([rest, rest * torch.tensor([1, 1, 0.3])])
    energies = torch.stack([solver.energy(solver.solve(shapes, targets, n), shapes) for n in range(1, 15)])
    assert all((later < earlier).all() for earlier, later in itertools.pairwise(energies))


def test_isolated_vertices_pass_through_with_identity_rotation_and_gradient(pose: tuple, tier: str) -> None:
    rest, faces, targets = pose
    lonely = torch.tensor([[50.0, 1.0, 2.0]], dtype=torch.float64)
    p = torch.cat([lonely, rest]).requires_grad_()
    solver = ArapSolver(faces + 1, HANDLES + 1, 50, backend=tier)
    for x in (solver.solve(p, targets), solver.solve_converged(p, targets, 1e-8)):
        assert torch.equal(x[:1], lonely)
        assert torch.equal(solver.rotations(x, p)[0], torch.eye(3, dtype=torch.float64))
        (gradient,) = torch.autograd.grad((x[0] * torch.tensor([1.0, 2, 3])).sum() + x[1:].sum(), p)
        torch.testing.assert_close(gradient[0], torch.tensor([1.0, 2, 3], dtype=torch.float64), rtol=0, atol=1e-12)


def test_every_vertex_a_handle(bumpy_grid: Callable, tier: str) -> None:
    rest, faces = bumpy_grid(3, 3)
    targets = torch.from_numpy(rest + 1).requires_grad_()
    solver = ArapSolver(faces, np.arange(9), 9, backend=tier)
    for x in (
        solver.solve(torch.from_numpy(rest), targets),
        solver.solve_converged(torch.from_numpy(rest), targets, 1e-9),
    ):
        assert torch.equal(x, targets)
        (gradient,) = torch.autograd.grad(x.sum(), targets)
        assert torch.equal(gradient, torch.ones_like(targets))
