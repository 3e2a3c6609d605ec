"""The hand-written adjoint against finite differences and against automatic differentiation of a dense solve."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch.func import grad, vmap

from arap_diff import ArapSolver, laplacian, mesh_edges
from arap_diff._tiers import CpuTier

ENERGIES = ["bilaplacian", "edges"]
HANDLES = [0, 3, 15, 8]
FAN = [[0, 1, 2], [0, 2, 3], [0, 3, 1], [3, 2, 4], [5, 6, 7], [5, 7, 8]]


@pytest.fixture
def pose(bumpy_grid: Callable, generator: torch.Generator) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    """Two rest poses (2, 16, 3), faces, handle positions (2, 4, 3)."""
    vertices, faces = bumpy_grid(4, 4)
    rest = torch.from_numpy(vertices) + 0.1 * torch.randn(2, 16, 3, generator=generator, dtype=torch.float64)
    moved = rest[:, HANDLES] + 0.5 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    return rest, faces, moved


@pytest.mark.parametrize("n_solves", [1, 3])
@pytest.mark.parametrize("energy", ENERGIES)
def test_gradcheck(pose: tuple, tier: str, energy: str, n_solves: int) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, energy=energy, backend=tier)
    p, h = rest[0].clone().requires_grad_(), moved[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, h: solver.solve(p, h, n_solves), (p, h))


@pytest.mark.parametrize("energy", ENERGIES)
def test_gradcheck_of_a_batch_of_three(
    bumpy_grid: Callable, generator: torch.Generator, tier: str, energy: str
) -> None:
    vertices, faces = bumpy_grid(3, 3)
    rest = torch.from_numpy(vertices) + 0.1 * torch.randn(3, 9, 3, generator=generator, dtype=torch.float64)
    moved = rest[:, [1, 6, 5]] + 0.5 * torch.randn(3, 3, 3, generator=generator, dtype=torch.float64)
    solver = ArapSolver(faces, [1, 6, 5], 9, energy=energy, backend=tier)
    inputs = rest.requires_grad_(), moved.requires_grad_()
    assert torch.autograd.gradcheck(solver.solve, inputs, fast_mode=True)
    gradients = torch.autograd.grad(solver.solve(*inputs).sin().sum(), inputs)
    for k in range(3):
        alone = torch.autograd.grad(solver.solve(rest[k], moved[k]).sin().sum(), inputs)
        for together, single in zip(gradients, alone, strict=True):
            torch.testing.assert_close(single[k], together[k], rtol=0, atol=1e-11)


@pytest.mark.parametrize("n_solves", [2, 3])
@pytest.mark.parametrize("energy", ENERGIES)
def test_gradcheck_where_most_neighbourhoods_are_reflected(
    bumpy_grid: Callable, tier: str, energy: str, n_solves: int
) -> None:
    vertices, faces = bumpy_grid(4, 4)
    handles = np.arange(0, 16, 2)
    rest = torch.from_numpy(vertices)
    moved = rest[handles] * torch.tensor([1.0, 1.0, -1.2])
    solver = ArapSolver(faces, handles, 16, energy=energy, backend=tier)
    first = solver.solve(rest, moved, 1)
    edges = torch.from_numpy(mesh_edges(faces, 16))
    outer = torch.einsum("ea,eb->eab", *(points[edges[:, 0]] - points[edges[:, 1]] for points in (first, rest)))
    covariance = torch.zeros(16, 3, 3, dtype=torch.float64)
    covariance.index_add_(0, edges[:, 0], outer).index_add_(0, edges[:, 1], outer)
    assert (torch.linalg.det(covariance) < 0).sum() >= 5
    inputs = rest.requires_grad_(), moved.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, h: solver.solve(p, h, n_solves), inputs)


@pytest.mark.parametrize("energy", ENERGIES)
def test_gradcheck_on_flat_neighbourhoods_and_vertices_of_one_face(
    generator: torch.Generator, tier: str, energy: str
) -> None:
    """Vertices 1, 4, 6 and 8 are boundary vertices of few edges; the second piece is flat and stays so."""
    rest = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    rest[5:, 2] = 0
    handles = [0, 4, 5, 7]
    moved = rest[handles] + 0.3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    moved[2:, 2] = 0
    solver = ArapSolver(FAN, handles, 9, energy=energy, backend=tier)
    inputs = rest.requires_grad_(), moved.requires_grad_()
    assert torch.autograd.gradcheck(solver.solve, inputs)


def test_gradcheck_with_shared_rest_and_cotangent_weights(pose: tuple) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, rest=rest[0], weights="cotangent")
    inputs = rest[0].clone().requires_grad_(), moved.clone().requires_grad_()
    assert torch.autograd.gradcheck(solver.solve, inputs)


@pytest.mark.parametrize("energy", ENERGIES)
def test_gradcheck_of_energy_and_rotations(pose: tuple, energy: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, energy=energy)
    inputs = solver.solve(rest, moved).requires_grad_(), rest.clone().requires_grad_()
    assert torch.autograd.gradcheck(solver.energy, inputs)
    assert torch.autograd.gradcheck(solver.rotations, inputs)


@pytest.mark.parametrize("energy", ENERGIES)
def test_adjoint_equals_autograd_through_a_dense_solve(pose: tuple, tier: str, energy: str) -> None:
    rest, faces, moved = pose
    free = [v for v in range(16) if v not in HANDLES]
    lap = torch.from_numpy(laplacian(faces, 16).toarray())
    smoothing = lap if energy == "bilaplacian" else torch.eye(16, dtype=torch.float64)
    matrix = smoothing @ lap
    off = lap - torch.diag(torch.diagonal(lap))

    def dense(p: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        rotation = torch.eye(3, dtype=torch.float64).expand(16, 3, 3)
        edge = p[:, None] - p[None]
        for _ in range(3):
            mean = (rotation[:, None] + rotation[None]) / 2
            d = -(off[..., None] * (mean @ edge[..., None])[..., 0]).sum(1)
            right = (smoothing @ d)[free] - matrix[free][:, HANDLES] @ h
            x = torch.zeros_like(p).index_put((torch.tensor(HANDLES),), h)
            x = x.index_put((torch.tensor(free),), torch.linalg.solve(matrix[free][:, free], right))
            covariance = -torch.einsum("ij,ija,ijb->iab", off, x[:, None] - x[None], edge)
            u, _, vt = torch.linalg.svd(covariance)
            flip = torch.ones(16, 3, dtype=torch.float64)
            flip[:, 2] = torch.linalg.det(u @ vt).detach()
            rotation = (u * flip[:, None]) @ vt
        return x

    p, h = rest[0].clone().requires_grad_(), moved[0].clone().requires_grad_()
    expected = torch.autograd.grad(dense(p, h).sin().sum(), (p, h))
    x = ArapSolver(faces, HANDLES, 16, energy=energy, backend=tier).solve(p, h)
    for mine, reference in zip(torch.autograd.grad(x.sin().sum(), (p, h)), expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-9)


def test_gradient_is_finite_on_flat_collinear_and_repeated_points(tier: str) -> None:
    faces = [[0, 1, 2], [2, 1, 3], [3, 1, 4], [4, 5, 3]]
    rest = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [3, 0, 0], [4, 0, 0]], dtype=torch.float64, requires_grad=True
    )
    handles = torch.tensor([[0, 0, 0], [0, 5.0, 0]], dtype=torch.float64, requires_grad=True)
    x = ArapSolver(faces, [0, 5], 6, backend=tier).solve(rest, handles)
    x.square().sum().backward()
    assert torch.isfinite(x).all()
    assert torch.isfinite(rest.grad).all()
    assert torch.isfinite(handles.grad).all()


def test_nothing_flows_through_a_rotation_that_is_not_determined(tier: str) -> None:
    """All edges lie on one line, so that the spin about it is free: the gradient must not see it."""
    rest = torch.tensor([[k, 0.0, 0.0] for k in range(5)], dtype=torch.float64)
    moved = torch.tensor([[0.0, 0, 0], [0, 3, 0]], dtype=torch.float64, requires_grad=True)
    solver = ArapSolver([[0, 1, 2], [1, 2, 3], [2, 3, 4]], [0, 4], 5, backend=tier)
    x = solver.solve(rest, moved)
    (gradient,) = torch.autograd.grad(x[:, 0].sum() + 2 * x[:, 1].sum(), moved)
    assert gradient.abs().max() < 100
    assert gradient[:, 2].abs().max() < 1e-6


@pytest.mark.parametrize("energy", ENERGIES)
def test_gradient_of_either_argument_alone_is_the_one_of_both(pose: tuple, tier: str, energy: str) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16, energy=energy, backend=tier)
    converge = partial(solver.solve_converged, tol=1e-11)
    for solve, error in ((solver.solve, 0), (partial(solver.solve, n_solves=1), 0), (converge, 1e-12)):
        p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
        p_bar, h_bar = torch.autograd.grad(solve(p, h).sin().sum(), (p, h))
        (alone,) = torch.autograd.grad(solve(rest, h).sin().sum(), h)
        torch.testing.assert_close(alone, h_bar, rtol=0, atol=error)
        (alone,) = torch.autograd.grad(solve(p, moved).sin().sum(), p)
        torch.testing.assert_close(alone, p_bar, rtol=0, atol=error)


def test_rest_gradient_is_not_computed_unless_asked_for(pose: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    rest, faces, moved = pose
    wanted = []
    adjoint = CpuTier.unrolled_adjoint

    def spy(*arguments: object) -> tuple:
        wanted.append(arguments[-1])
        return adjoint(*arguments)

    monkeypatch.setattr(CpuTier, "unrolled_adjoint", spy)
    solver = ArapSolver(faces, HANDLES, 16)

    def loss(p: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return solver.solve(p, h).sin().sum()

    p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
    torch.autograd.grad(loss(p, h), (p, h))
    loss(rest, h).backward()
    grad(loss, argnums=1)(rest, moved)
    vmap(grad(loss, argnums=1))(rest, moved)
    vmap(grad(loss, argnums=(0, 1)))(rest, moved)
    assert wanted == [True, False, False, False, True]


def test_gradient_reaches_only_what_asks_for_it(pose: tuple) -> None:
    rest, faces, moved = pose
    solver = ArapSolver(faces, HANDLES, 16)
    handles = moved.float().requires_grad_()
    solver.solve(rest.float(), handles).sum().backward()
    assert handles.grad.dtype == torch.float32
    assert handles.grad.shape == (2, 4, 3)


def test_moving_everything_moves_everything(pose: tuple, tier: str) -> None:
    """A shift of the handles shifts the result, and a shift of the rest pose does not: so their gradients must sum."""
    rest, faces, moved = pose
    p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
    weight = torch.linspace(-1, 2, 96, dtype=torch.float64).reshape(2, 16, 3)
    (ArapSolver(faces, HANDLES, 16, backend=tier).solve(p, h) * weight).sum().backward()
    torch.testing.assert_close(h.grad.sum(1), weight.sum(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(p.grad.sum(1), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-10)


def test_second_derivative_is_refused(pose: tuple) -> None:
    rest, faces, moved = pose
    h = moved.clone().requires_grad_()
    x = ArapSolver(faces, HANDLES, 16).solve(rest, h)
    (gradient,) = torch.autograd.grad(x.square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match=r"ArapSolver\.solve can be differentiated once"):
        gradient.sum().backward()
