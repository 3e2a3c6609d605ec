"""`solve_converged`: a fixed point of the alternation, with the gradient of the fixed point."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from arap_diff import ArapSolver

ENERGIES = ["bilaplacian", "edges"]
HANDLES = [0, 3, 15, 8]


@pytest.fixture
def pose(bumpy_grid: Callable, generator: torch.Generator) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Two rest poses (2, 16, 3), faces, handle positions (2, 4, 3)."""
    vertices, faces = bumpy_grid(4, 4)
    rest = torch.from_numpy(vertices) + 0.1 * torch.randn(2, 16, 3, generator=generator, dtype=torch.float64)
    return rest, faces, rest[:, HANDLES] + 0.5 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("energy", ENERGIES)
def test_gradcheck(bumpy_grid: Callable, generator: torch.Generator, tier: str, energy: str) -> None:
    vertices, faces = bumpy_grid(3, 3)
    handles = [0, 2, 6, 5]
    solver = ArapSolver(faces, handles, 9, energy=energy, backend=tier)
    rest = torch.from_numpy(vertices) + 0.1 * torch.randn(3, 9, 3, generator=generator, dtype=torch.float64)
    moved = rest[:, handles] + 0.3 * torch.randn(3, 4, 3, generator=generator, dtype=torch.float64)

    def converged(p: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return solver.solve_converged(p, h, 1e-11)

    inputs = rest.requires_grad_(), moved.requires_grad_()
    assert torch.autograd.gradcheck(converged, inputs, fast_mode=True)
    if tier == "numpy":
        assert torch.autograd.gradcheck(converged, [points[0] for points in inputs])


@pytest.mark.parametrize("energy", ENERGIES)
def test_equals_many_solves_in_value_and_gradient(pose: tuple, tier: str, energy: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, energy=energy, backend=tier)
    p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
    results = []
    for x in (solver.solve(p, h, 250), solver.solve_converged(p, h, 1e-12)):
        results.append((x, *torch.autograd.grad(x.sin().sum(), (p, h))))
    for unrolled, implicit in zip(*results, strict=True):
        torch.testing.assert_close(implicit, unrolled, rtol=1e-8, atol=1e-8)


def test_a_minimum_of_the_edges_energy(pose: tuple) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, energy="edges")
    x = solver.solve_converged(rest, moved, 1e-12).requires_grad_()
    (slope,) = torch.autograd.grad(solver.energy(x, rest).sum(), x)
    free = np.setdiff1d(np.arange(16), HANDLES)
    assert slope[:, free].abs().max() < 1e-10 * slope[:, HANDLES].abs().max()


def test_tol_bounds_the_last_move_in_the_length_unit_of_the_mesh(pose: tuple) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16)
    exact = solver.solve_converged(rest[0], moved[0], 1e-12)
    error = [(solver.solve_converged(rest[0], moved[0], tol) - exact).norm(dim=-1).max() for tol in (1e-3, 1e-6)]
    assert 1e-5 < error[0] < 1e-2
    assert error[1] < 1e-5
    scaled = solver.solve_converged(1e3 * rest[0], 1e3 * moved[0], 1.0)
    torch.testing.assert_close(scaled, 1e3 * solver.solve_converged(rest[0], moved[0], 1e-3), rtol=0, atol=1e-9)


def test_deformations_of_a_batch_do_not_depend_on_each_other(pose: tuple, tier: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, backend=tier)
    easy = torch.stack([moved[0], rest[0, HANDLES], moved[1]])
    together = solver.solve_converged(rest[0], easy, 1e-4)
    for k in range(3):
        torch.testing.assert_close(together[k], solver.solve_converged(rest[0], easy[k], 1e-4), rtol=0, atol=1e-8)


def test_too_few_solves_is_an_error_that_says_how_far(pose: tuple, tier: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, backend=tier)
    with pytest.raises(
        ArithmeticError, match=r"still moves by 0\.\d+ after 3 solves, tol is 1e-12: raise max_solves or tol"
    ):
        solver.solve_converged(rest, moved, 1e-12, max_solves=3)


def test_fixed_points_that_are_not_isolated_have_no_gradient(pose: tuple) -> None:
    rest, faces, _ = pose
    h = rest[:1, [5]].clone().requires_grad_()
    x = ArapSolver(faces, [5], 16, energy="edges").solve_converged(rest[:1], h + 1, 1e-9)
    torch.testing.assert_close(x, rest[:1] + 1)
    with pytest.raises(ArithmeticError, match=r"no gradient at this fixed point .* may not be isolated; hold more"):
        x[..., 0].square().sum().backward()


def test_second_derivative_is_refused(pose: tuple) -> None:
    rest, faces, moved = pose
    h = moved.clone().requires_grad_()
    x = ArapSolver(faces, HANDLES, 16).solve_converged(rest, h, 1e-6)
    (gradient,) = torch.autograd.grad(x.square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match=r"ArapSolver\.solve_converged can be differentiated once"):
        gradient.sum().backward()


def test_no_gradient_where_the_loss_has_none(pose: tuple) -> None:
    rest, faces, moved = pose
    h = moved.clone().requires_grad_()
    x = ArapSolver(faces, HANDLES, 16).solve_converged(rest, h, 1e-6)
    (x[0].sum() + 0 * x[1].sum()).backward()
    assert h.grad[0].abs().max() > 0
    assert not h.grad[1].any()
