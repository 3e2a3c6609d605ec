"""`torch.func` over the solver: vmap, grad, vjp, jacrev and their nestings; and the refusal of what has no formula."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from arap_diff import ArapSolver, fit_rotations

HANDLES = [0, 3, 15, 8]
Solve = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture
def pose(bumpy_grid: Callable, generator: torch.Generator) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Three rest poses (3, 16, 3), faces, handle positions (3, 4, 3)."""
    vertices, faces = bumpy_grid(4, 4)
    rest = torch.from_numpy(vertices) + 0.1 * torch.randn(3, 16, 3, generator=generator, dtype=torch.float64)
    return rest, faces, rest[:, HANDLES] + 0.2 * torch.randn(3, 4, 3, generator=generator, dtype=torch.float64)


@pytest.fixture
def solve(pose: tuple, tier: str) -> Solve:
    return ArapSolver(pose[1], HANDLES, 16, backend=tier).solve


@pytest.fixture
def converge(pose: tuple) -> Solve:
    solver = ArapSolver(pose[1], HANDLES, 16)
    return lambda p, h: solver.solve_converged(p, h, 1e-11)


def close(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=1e-8)


def loss(solve: Solve) -> Solve:
    return lambda p, h: solve(p, h).sin().sum()


def autograd(solve: Solve, rest: torch.Tensor, moved: torch.Tensor) -> tuple[torch.Tensor, ...]:
    p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
    return torch.autograd.grad(loss(solve)(p, h), (p, h))


def test_vmap_is_the_batch(pose: tuple, solve: Solve) -> None:
    rest, _, moved = pose
    close(vmap(solve)(rest, moved), solve(rest, moved))
    close(vmap(solve, in_dims=(None, 0))(rest[0], moved), solve(rest[0], moved))
    close(vmap(solve, in_dims=(0, None))(rest, moved[0]), solve(rest, moved[0]))
    close(
        vmap(solve, in_dims=(1, 1), out_dims=1)(rest.movedim(0, 1), moved.movedim(0, 1)),
        solve(rest, moved).movedim(0, 1),
    )
    pairs = vmap(vmap(solve, in_dims=(None, 0)), in_dims=(0, None))(rest, moved)
    close(pairs, solve(rest[:, None], moved))
    inner_batch = vmap(solve, in_dims=(None, 0))(rest, moved)
    close(inner_batch, solve(rest, moved[:, None]))


def test_grad_inside_and_outside_of_vmap(pose: tuple, solve: Solve) -> None:
    rest, _, moved = pose
    expected = autograd(solve, rest, moved)
    each = vmap(grad(loss(solve), argnums=(0, 1)))(rest, moved)
    total = grad(lambda p, h: vmap(loss(solve))(p, h).sum(), argnums=(0, 1))(rest, moved)
    for k in range(2):
        close(each[k], expected[k])
        close(total[k], expected[k])
    with torch.no_grad():
        close(grad(loss(solve))(rest, moved), expected[0])


def test_handle_gradients_alone_are_those_of_both(pose: tuple, solve: Solve) -> None:
    rest, _, moved = pose
    expected = autograd(solve, rest, moved)[1]
    close(vmap(grad(loss(solve), argnums=1))(rest, moved), expected)
    close(grad(lambda h: vmap(loss(solve))(rest, h).sum())(moved), expected)
    jacobian = vmap(jacrev(solve, argnums=1))(rest, moved)
    close(torch.einsum("nvakb,nva->nkb", jacobian, solve(rest, moved).cos()), expected)


def test_ordinary_backward_through_vmap(pose: tuple, solve: Solve) -> None:
    rest, _, moved = pose
    expected = autograd(solve, rest, moved)
    p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
    vmap(solve)(p, h).sin().sum().backward()
    close(p.grad, expected[0])
    close(h.grad, expected[1])


def test_one_handle_gradient_per_sample_of_a_shared_rest(pose: tuple, solve: Solve) -> None:
    rest, _, moved = pose
    by_rest, by_handles = vmap(grad(loss(solve), argnums=(0, 1)), in_dims=(None, 0))(rest[0], moved)
    for k in range(3):
        expected = autograd(solve, rest[0], moved[k])
        close(by_rest[k], expected[0])
        close(by_handles[k], expected[1])


def test_vjp_and_the_whole_jacobian(pose: tuple, tier: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, backend=tier)
    jacobian = jacrev(solver.solve, argnums=1)(rest[0], moved[0])
    assert jacobian.shape == (16, 3, 4, 3)
    step = 1e-6 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    difference = solver.solve(rest[0], moved[0] + step) - solver.solve(rest[0], moved[0] - step)
    torch.testing.assert_close(torch.einsum("vakb,kb->va", jacobian, step), difference / 2, rtol=1e-5, atol=1e-12)
    x, pull = vjp(solver.solve, rest[0], moved[0])
    close(pull(torch.ones_like(x))[1], jacobian.sum((0, 1)))


def test_vmap_of_rotations_energy_and_fit(pose: tuple, tier: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, backend=tier)
    x = solver.solve(rest, moved)
    close(vmap(solver.rotations)(x, rest), solver.rotations(x, rest))
    close(vmap(solver.energy)(x, rest), solver.energy(x, rest))
    expected = grad(lambda x: solver.energy(x, rest).sum())(x)
    close(vmap(grad(solver.energy))(x, rest), expected)
    covariance = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(vmap(fit_rotations, in_dims=1)(covariance), fit_rotations(covariance).movedim(1, 0))


def test_values_are_checked_inside_vmap(pose: tuple, tier: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, backend=tier)
    rest = rest.index_fill(1, torch.tensor([5]), torch.nan)
    for function in (solver.solve, lambda p, h: grad(loss(solver.solve))(p, h)):
        with pytest.raises(ValueError, match="rest has a value that is not finite, first at row 5"):
            vmap(function)(rest, moved)


def test_transforms_of_the_converged_solve(pose: tuple, converge: Solve) -> None:
    rest, _, moved = pose
    close(vmap(converge, in_dims=(None, 0))(rest[0], moved), converge(rest[0], moved))
    expected = autograd(converge, rest, moved)
    each = vmap(grad(loss(converge), argnums=(0, 1)))(rest, moved)
    total = grad(lambda p, h: vmap(loss(converge))(p, h).sum(), argnums=(0, 1))(rest, moved)
    for k in range(2):
        close(each[k], expected[k])
        close(total[k], expected[k])


def test_second_derivatives_are_refused(pose: tuple, solve: Solve, converge: Solve) -> None:
    rest, _, moved = pose
    for function, name in ((solve, "solve"), (converge, "solve_converged")):
        for second in (jacrev(grad(loss(function))), grad(lambda p, h: grad(loss(function))(p, h).sum())):  # noqa: B023
            with pytest.raises(RuntimeError, match=rf"ArapSolver\.{name} can be differentiated once"):
                second(rest[0], moved[0])


@pytest.mark.parametrize("name", ["solve", "solve_converged"])
def test_forward_mode_is_refused(pose: tuple, name: str) -> None:
    solver = ArapSolver(pose[1], HANDLES, 16)
    solve = solver.solve if name == "solve" else lambda p, h: solver.solve_converged(p, h, 1e-6)
    rest, _, moved = pose
    message = "arap_diff has no forward-mode derivatives: use backward, torch.func.grad, vjp or jacrev"
    with pytest.raises(RuntimeError, match=message):
        jvp(solve, (rest, moved), (rest, moved))
    with pytest.raises(RuntimeError, match=message):
        jacfwd(solve)(rest[0], moved[0])
    with pytest.raises(RuntimeError, match=message):
        hessian(loss(solve))(rest[0], moved[0])
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match=message):
        solve(rest, torch.autograd.forward_ad.make_dual(moved, moved))


def test_no_grad_and_inference_mode_give_the_same_values(pose: tuple, solve: Solve) -> None:
    rest, _, moved = pose
    expected = solve(rest.clone().requires_grad_(), moved)
    with torch.no_grad():
        assert torch.equal(solve(rest.clone().requires_grad_(), moved), expected)
    with torch.inference_mode():
        x = solve(rest, moved)
    assert x.is_inference()
    assert torch.equal(x, expected)
    assert not solve(rest, moved).requires_grad
