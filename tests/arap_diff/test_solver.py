"""Laws the deformation obeys: a dense twin, the identity, rigid motions, exact handles, direction, energies."""

import itertools
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from arap_diff import ArapSolver, arap_deform, laplacian
from arap_diff._team import Team

ENERGIES = ["bilaplacian", "edges"]
Grid = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def scene(bumpy_grid: Grid, size: int = 7) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Rest pose, faces, and handles on the border and in the middle."""
    rest, faces = bumpy_grid(size, size)
    ids = np.arange(size * size).reshape(size, size)
    handles = np.unique(np.concatenate([ids[0], ids[-1, ::2], [ids[size // 2, size // 2]]]))
    return torch.from_numpy(rest), faces, np.random.default_rng(0).permutation(handles)


def dense_twin(
    rest: np.ndarray,
    faces: np.ndarray,
    handles: np.ndarray,
    targets: np.ndarray,
    energy: str,
    n_solves: int,
    weights: str,
) -> np.ndarray:
    """The whole method with a KKT matrix, loops over neighbours and textbook SVDs."""
    n, k = len(rest), len(handles)
    lap = laplacian(faces, n, weights=weights, rest=rest).toarray()
    smoothing = lap.T if energy == "bilaplacian" else np.eye(n)
    constraint = np.zeros((k, n))
    constraint[np.arange(k), handles] = 1
    kkt = np.block([[smoothing @ lap, constraint.T], [constraint, np.zeros((k, k))]])
    rotation = np.broadcast_to(np.eye(3), (n, 3, 3)).copy()
    for step in range(n_solves):
        coordinates = np.zeros((n, 3))
        for i in range(n):
            for j in np.flatnonzero(lap[i]):
                coordinates[i] -= (i != j) * lap[i, j] * (rotation[i] + rotation[j]) / 2 @ (rest[i] - rest[j])
        x = np.linalg.solve(kkt, np.vstack([smoothing @ coordinates, targets]))[:n]
        for i in range(n if step < n_solves - 1 else 0):
            covariance = sum(
                -lap[i, j] * np.outer(x[i] - x[j], rest[i] - rest[j]) for j in np.flatnonzero(lap[i]) if j != i
            )
            u, _, vt = np.linalg.svd(covariance)
            rotation[i] = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return x


@pytest.mark.parametrize("weights", ["uniform", "cotangent"])
@pytest.mark.parametrize("n_solves", [1, 2, 4])
@pytest.mark.parametrize("energy", ENERGIES)
def test_equals_the_dense_twin(bumpy_grid: Grid, backend: str, energy: str, n_solves: int, weights: str) -> None:
    rest, faces, handles = scene(bumpy_grid)
    targets = rest[handles] + 0.6 * torch.from_numpy(np.random.default_rng(1).normal(size=(len(handles), 3)))
    solver = ArapSolver(faces, handles, len(rest), rest=rest, energy=energy, weights=weights, backend=backend)
    expected = dense_twin(rest.numpy(), faces, handles, targets.numpy(), energy, n_solves, weights)
    np.testing.assert_allclose(solver.solve(rest, targets, n_solves), expected, atol=1e-9)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.usefixtures("numba")
def test_large_mesh_agrees_between_tiers(bumpy_grid: Grid, energy: str) -> None:
    rest, faces, handles = scene(bumpy_grid, 31)
    shapes = rest + 0.05 * torch.from_numpy(np.random.default_rng(0).normal(size=(2, len(rest), 3)))
    targets = shapes[:, handles] + torch.tensor([0.5, 0.3, 1.0], dtype=torch.float64)
    results = []
    for backend in ("numpy", "numba"):
        solver = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend)
        p, h = shapes.clone().requires_grad_(), targets.clone().requires_grad_()
        x = solver.solve(p, h)
        results.append((x, *torch.autograd.grad(x.sin().sum(), (p, h))))
    for slow, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n_solves", [1, 3])
@pytest.mark.parametrize("energy", ENERGIES)
def test_handles_at_rest_leave_everything_at_rest(bumpy_grid: Grid, backend: str, energy: str, n_solves: int) -> None:
    rest, faces, handles = scene(bumpy_grid, 15)
    solver = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend)
    moved = (solver.solve(rest, rest[handles], n_solves) - rest).abs().max()
    assert moved < 1e-12 * rest.abs().max()


@pytest.mark.parametrize("n_solves", [1, 3])
@pytest.mark.parametrize("energy", ENERGIES)
def test_rotating_rest_and_handles_rotates_the_result(
    bumpy_grid: Grid, rotation_about: Callable, backend: str, energy: str, n_solves: int
) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend)
    q = rotation_about([1, -2, 0.5], 2.0)
    shift = torch.tensor([10.0, -4.0, 3.0], dtype=torch.float64)
    targets = rest[handles] + 0.4 * torch.from_numpy(np.random.default_rng(1).normal(size=(len(handles), 3)))
    plain = solver.solve(rest, targets, n_solves)
    moved = solver.solve(rest @ q.T - shift, targets @ q.T + shift, n_solves)
    torch.testing.assert_close(moved, plain @ q.T + shift, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_solves", [1, 3])
@pytest.mark.parametrize("energy", ENERGIES)
def test_translated_handles_translate_everything(bumpy_grid: Grid, backend: str, energy: str, n_solves: int) -> None:
    rest, faces, handles = scene(bumpy_grid)
    shift = torch.tensor([100.0, -20.0, 3.0], dtype=torch.float64)
    solver = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend)
    torch.testing.assert_close(solver.solve(rest, rest[handles] + shift, n_solves), rest + shift, rtol=0, atol=1e-10)


@pytest.mark.parametrize("energy", ENERGIES)
def test_rotated_handles_rotate_everything_in_the_limit(
    bumpy_grid: Grid, rotation_about: Callable, energy: str
) -> None:
    rest, faces, handles = scene(bumpy_grid)
    q = rotation_about([0.3, 1, 0.2], 0.7)
    solver = ArapSolver(faces, handles, len(rest), energy=energy)
    targets = rest[handles] @ q.T
    error = [(solver.solve(rest, targets, n) - rest @ q.T).abs().max().item() for n in (1, 3, 300)]
    assert error[0] > error[1] > error[2]
    assert error[2] < 1e-6


def test_handles_are_met_to_the_last_bit(bumpy_grid: Grid, backend: str) -> None:
    rest, faces, handles = scene(bumpy_grid)
    for dtype in (torch.float32, torch.float64):
        targets = (rest[handles] + 0.1234567891234).to(dtype)
        x = ArapSolver(faces, handles, len(rest), backend=backend).solve(rest.to(dtype), targets)
        assert x.dtype == dtype
        assert torch.equal(x[handles], targets)


@pytest.mark.parametrize("energy", ENERGIES)
def test_patch_moved_up_takes_its_ring_up(bumpy_grid: Grid, backend: str, energy: str) -> None:
    size = 31
    rest, faces = bumpy_grid(size, size)
    rest[:, 2] = 0.2 * rest[:, 2]
    ids = np.arange(size * size).reshape(size, size)
    patch = ids[12:19, 12:19].ravel()
    border = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    ring = np.setdiff1d(ids[11:20, 11:20].ravel(), patch)
    p = torch.from_numpy(rest)
    lift = torch.ones(1, dtype=torch.float64, requires_grad=True)
    handles = np.concatenate([patch, border])
    up = torch.zeros(len(handles), 3, dtype=torch.float64)
    up[: len(patch), 1] = 1
    x = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend).solve(p, p[handles] + lift * up)
    share = (x - p)[ring, 1].mean()
    (slope,) = torch.autograd.grad(share, lift)
    lowest = 0.9 if energy == "bilaplacian" else 0.6
    assert lowest < share.item() < 1
    assert lowest < slope.item() < 1


def test_bilaplacian_is_smoother_than_edges_at_the_handles(bumpy_grid: Grid) -> None:
    rest, faces, _ = scene(bumpy_grid, 15)
    ids = np.arange(225).reshape(15, 15)
    handles = np.concatenate([ids[0], ids[-1], [ids[7, 7]]])
    targets = rest[handles] + 0
    targets[-1, 2] += 2
    drop = {
        energy: 2 - (ArapSolver(faces, handles, 225, energy=energy).solve(rest, targets) - rest)[ids[7, 6], 2].item()
        for energy in ENERGIES
    }
    assert 0 < drop["bilaplacian"] < 0.5 * drop["edges"]


def test_edges_energy_never_rises_from_solve_to_solve(bumpy_grid: Grid) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest), energy="edges")
    targets = rest[handles] + 0.8 * torch.from_numpy(np.random.default_rng(1).normal(size=(len(handles), 3)))
    energies = [solver.energy(solver.solve(rest, targets, n), rest).item() for n in range(1, 12)]
    assert all(later < earlier for earlier, later in itertools.pairwise(energies))


@pytest.mark.parametrize("energy", ENERGIES)
def test_energy_is_zero_for_rigid_motion_and_is_what_the_solve_minimises(
    bumpy_grid: Grid, rotation_about: Callable, generator: torch.Generator, energy: str
) -> None:
    rest, faces, handles = scene(bumpy_grid)
    q = rotation_about([1, 1, 0], 1.2)
    solver = ArapSolver(faces, handles, len(rest), energy=energy)
    assert solver.energy(rest @ q.T + 5, rest).item() < 1e-20
    torch.testing.assert_close(solver.rotations(rest @ q.T + 5, rest), q.expand(len(rest), 3, 3), rtol=0, atol=1e-9)
    rotated = solver.solve(rest, rest[handles] + torch.rand(len(handles), 3, generator=generator, dtype=torch.float64))
    assert solver.energy(rotated, rest) < solver.energy(solver.solve(rest, rotated[handles], 1), rest)


def test_energy_of_one_stretched_triangle_by_hand() -> None:
    rest = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    x = 2 * rest
    edges = ArapSolver([[0, 1, 2]], [0], 3, energy="edges")
    assert edges.energy(x, rest).item() == pytest.approx(0.5 * (1 + 1 + 2))
    laplace = ArapSolver([[0, 1, 2]], [0], 3, energy="bilaplacian")
    coordinates = 0.5 * np.array([[-1, -1], [2, -1], [-1, 2]])
    assert laplace.energy(x, rest).item() == pytest.approx(0.5 * (coordinates**2).sum())


def test_vertices_in_no_face_pass_through(bumpy_grid: Grid, backend: str) -> None:
    rest, faces, handles = scene(bumpy_grid)
    lonely = torch.tensor([[50.0, 1.0, 2.0], [60.0, 3.0, 4.0]], dtype=torch.float64)
    p = torch.cat([rest, lonely]).requires_grad_()
    with_lonely_handle = np.append(handles, len(rest) + 1)
    targets = (p.detach()[with_lonely_handle] + 1).requires_grad_()
    x = ArapSolver(faces, with_lonely_handle, len(p), backend=backend).solve(p, targets)
    alone = ArapSolver(faces, handles, len(rest), backend=backend).solve(rest, targets[:-1])
    assert torch.equal(x[len(rest)], lonely[0])
    assert torch.equal(x[len(rest) + 1], lonely[1] + 1)
    torch.testing.assert_close(x[: len(rest)], alone, rtol=0, atol=1e-11)
    x.sum().backward()
    assert torch.isfinite(p.grad).all()
    assert torch.equal(p.grad[len(rest) :], torch.tensor([[1.0] * 3, [0.0] * 3], dtype=torch.float64))


def test_all_vertices_handles(bumpy_grid: Grid, tier: str) -> None:
    rest, faces = bumpy_grid(3, 3)
    solver = ArapSolver(faces, np.arange(9), 9, backend=tier)
    p = torch.from_numpy(rest).requires_grad_()
    h = (p.detach() + 1).requires_grad_()
    for x in (solver.solve(p, h), solver.solve_converged(p, h, 1e-9), pickle.loads(pickle.dumps(solver)).solve(p, h)):
        assert torch.equal(x, h)
        p_bar, h_bar = torch.autograd.grad(x.square().sum(), (p, h))
        assert not p_bar.any()
        torch.testing.assert_close(h_bar, 2 * h.detach(), rtol=0, atol=1e-12)
    assert solver.solve(p[None].expand(0, -1, -1), h).shape == (0, 9, 3)


def test_batches_broadcast_and_equal_single_solves(bumpy_grid: Grid, backend: str, generator: torch.Generator) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest), backend=backend)
    rests = rest + 0.05 * torch.randn(3, 1, len(rest), 3, generator=generator, dtype=torch.float64)
    targets = rest[handles] + 0.3 * torch.randn(2, len(handles), 3, generator=generator, dtype=torch.float64)
    x = solver.solve(rests, targets)
    assert x.shape == (3, 2, len(rest), 3)
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(x[i, j], solver.solve(rests[i, 0], targets[j]), rtol=0, atol=1e-11)
    empty = solver.solve(rest.expand(0, -1, -1), targets[:1])
    assert empty.shape == (0, len(rest), 3)


@pytest.mark.parametrize("energy", ENERGIES)
def test_large_batch_has_the_results_and_gradients_of_its_members(bumpy_grid: Grid, backend: str, energy: str) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest), energy=energy, backend=backend)
    noise = torch.from_numpy(np.random.default_rng(2).normal(size=(9, len(rest), 3)))
    p = (rest + 0.05 * noise).requires_grad_()
    h = (p.detach()[:, handles] + 0.3 * noise[:, : len(handles)]).requires_grad_()
    x = solver.solve(p, h)
    together = torch.autograd.grad(x.sin().sum(), (p, h))
    for k in range(9):
        pk, hk = p.detach()[k].clone().requires_grad_(), h.detach()[k].clone().requires_grad_()
        alone = solver.solve(pk, hk)
        torch.testing.assert_close(x[k], alone, rtol=0, atol=1e-11)
        for one, of_all in zip(torch.autograd.grad(alone.sin().sum(), (pk, hk)), together, strict=True):
            torch.testing.assert_close(of_all[k], one, rtol=0, atol=1e-10)


@pytest.fixture
def with_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.usefixtures("numba")
def test_threads_share_a_large_mesh_and_repeat_to_the_last_bit(
    bumpy_grid: Grid, with_threads: Callable[[int], None], energy: str, batch: int
) -> None:
    rest, faces, handles = scene(bumpy_grid, 105)
    p = rest.expand(batch, -1, -1).clone().requires_grad_()
    h = (p.detach()[:, handles] + torch.tensor([0, 0.3, 0.4], dtype=torch.float64)).requires_grad_()
    results = []
    for threads in (1, 2, 3, 3):
        with_threads(threads)
        x = ArapSolver(faces, handles, len(rest), energy=energy, backend="numba").solve(p, h)
        results.append((x.detach(), *torch.autograd.grad(x.sin().sum(), (p, h))))
    solver = ArapSolver(faces, handles, len(rest), energy=energy, backend="numba")
    with ThreadPoolExecutor(2) as pool:
        for x in pool.map(lambda _: solver.solve(p.detach(), h.detach()), range(4)):
            assert torch.equal(x, results[-1][0])
    for alone, two, three, again in zip(*results, strict=True):
        scale = alone.abs().max().item()
        torch.testing.assert_close(two, alone, rtol=0, atol=1e-8 * scale)
        torch.testing.assert_close(three, alone, rtol=0, atol=1e-8 * scale)
        assert torch.equal(three, again)


def test_team_keeps_the_order_of_tasks_and_works_alone_inside_a_task(with_threads: Callable[[int], None]) -> None:
    with_threads(2)
    team = Team()

    def task(k: int) -> tuple[int, int, list[int]]:
        return k, team.size, team.run([lambda: k, lambda: -k])

    assert team.run([partial(task, k) for k in range(5)]) == [(k, 1, [k, -k]) for k in range(5)]
    assert team.size == 2


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform has no fork")
def test_team_works_in_a_forked_process(with_threads: Callable[[int], None]) -> None:
    with_threads(2)
    team, context = Team(), multiprocessing.get_context("fork")
    assert team.run([os.getpid, os.getpid]) == [os.getpid()] * 2
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(team.run([os.getpid, os.getpid])))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == [child.pid] * 2


def test_team_passes_on_an_error_of_a_helper(with_threads: Callable[[int], None]) -> None:
    with_threads(2)
    with pytest.raises(ZeroDivisionError):
        Team().run([lambda: 1.0, lambda: 1 / 0])


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.usefixtures("numba")
def test_tiers_agree_where_neighbourhoods_are_straight_lines(energy: str) -> None:
    rest = torch.zeros(20, 3, dtype=torch.float64)
    rest[:, 0] = torch.arange(20)
    faces = np.stack([np.arange(18), np.arange(1, 19), np.arange(2, 20)], axis=1)
    results = []
    for backend in ("numpy", "numba"):
        h = torch.tensor([[0, 0, 0], [19, 4, 0]], dtype=torch.float64, requires_grad=True)
        x = ArapSolver(faces, [0, 19], 20, energy=energy, backend=backend).solve(rest, h)
        results.append((x.detach(), *torch.autograd.grad(x.sum(), h)))
    for slow, fast in zip(*results, strict=True):
        assert torch.isfinite(fast).all()
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-6)


def test_float32_is_computed_in_double(bumpy_grid: Grid) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest))
    p = rest.float()
    targets = p[handles] + 0.5
    torch.testing.assert_close(
        solver.solve(p, targets), solver.solve(p.double(), targets.double()).float(), rtol=0, atol=0
    )


def test_arguments_are_not_changed_and_no_grad_gives_the_same(bumpy_grid: Grid, backend: str) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest), backend=backend)
    p, targets = rest.clone().requires_grad_(), rest[handles] + 1
    before = p.detach().clone(), targets.clone()
    x = solver.solve(p, targets)
    with torch.no_grad():
        y = solver.solve(p, targets)
    assert torch.equal(x, y)
    assert x.requires_grad
    assert not y.requires_grad
    assert torch.equal(p, before[0])
    assert torch.equal(targets, before[1])


@pytest.mark.parametrize("weights", ["uniform", "cotangent"])
def test_pickling_keeps_the_results(bumpy_grid: Grid, backend: str, weights: str) -> None:
    rest, faces, handles = scene(bumpy_grid, 21)
    solver = ArapSolver(faces, handles, len(rest), rest=rest, weights=weights, backend=backend)
    again = pickle.loads(pickle.dumps(solver))
    targets = rest[handles] + torch.tensor([0, 0, 1.0], dtype=torch.float64)
    assert torch.equal(again.solve(rest, targets), solver.solve(rest, targets))


def test_one_off_form_is_the_solver(bumpy_grid: Grid) -> None:
    rest, faces, handles = scene(bumpy_grid)
    targets = rest[handles] + 0.5
    solver = ArapSolver(faces, handles, len(rest), rest=rest, energy="edges", weights="cotangent")
    x = arap_deform(rest, faces, handles, targets, energy="edges", weights="cotangent", n_solves=2)
    assert torch.equal(x, solver.solve(rest, targets, 2))
    assert arap_deform(rest.expand(2, -1, -1), faces, handles, targets).shape == (2, len(rest), 3)


def test_handles_cannot_be_changed_once_the_system_is_factored(bumpy_grid: Grid) -> None:
    rest, faces, handles = scene(bumpy_grid)
    solver = ArapSolver(faces, handles, len(rest))
    with pytest.raises(ValueError, match="read-only"):
        solver.handles[0] = 3


def test_one_deformation_takes_as_many_solves_as_a_kept_solver(bumpy_grid: Grid) -> None:
    rest, faces, handles = scene(bumpy_grid)
    targets = rest[handles] + 0.6 * torch.from_numpy(np.random.default_rng(1).normal(size=(len(handles), 3)))
    kept = ArapSolver(faces, handles, len(rest)).solve(rest, targets)
    assert torch.equal(arap_deform(rest, faces, handles, targets), kept)
    assert torch.equal(arap_deform(rest, faces, handles, targets, n_solves=3), kept)
