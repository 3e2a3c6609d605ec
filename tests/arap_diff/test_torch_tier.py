"""The torch tier against the NumPy tier, operation by operation and as a whole, and on a GPU where there is one."""

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from arap_diff import ArapSolver, _numpy_kernels, _torch_kernels, _torch_tier, fit_rotations
from arap_diff._backend import prepare
from arap_diff._system import System
from arap_diff._torch_tier import CholespySolver, CpuRoundTrip, DenseCholesky, choose_solver
from arap_diff.mesh import weighted_edges

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
needs_cholespy = pytest.mark.skipif(importlib.util.find_spec("cholespy") is None, reason="cholespy is not installed")


def random_rotations(rng: np.random.Generator, count: int) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    q[:, :, 2] *= np.linalg.det(q)[:, None]
    return q


SINGULAR_VALUES = [
    (3, 2, 1),
    (1, 1, 1),
    (5, 0.4, 1e-3),
    (1, 0.03, 0),
    (1, 1e-3, 0),
    (1, 1e-5, 0),
    (2, 1, -0.3),
    (1, 0.9, -0.85),
    (1, 0.5, -0.5),
    (1e-9, 5e-10, 2e-10),
    (1e9, 1e6, -1e4),
    (1, 0, 0),
    (0, 0, 0),
]


@pytest.mark.parametrize("values", SINGULAR_VALUES)
def test_rotations_and_their_adjoint_equal_those_of_numpy(values: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(5)
    covariance = random_rotations(rng, 300) @ np.diag(values) @ random_rotations(rng, 300).transpose(0, 2, 1)
    rotation_bar = rng.normal(size=(300, 3, 3))
    expected = _numpy_kernels.fit_rotations(covariance)
    s, bar = torch.from_numpy(covariance), torch.from_numpy(rotation_bar)
    rotation = _torch_kernels.fit_rotation_stack(s)
    np.testing.assert_allclose(rotation, expected, rtol=0, atol=1e-9)
    if values[1] + values[2] > 1e-4 * values[0]:
        adjoint = _torch_kernels.rotation_adjoint_stack(s, rotation, bar)
        reference = _numpy_kernels.rotation_adjoint(covariance, expected, rotation_bar)
        np.testing.assert_allclose(adjoint, reference, rtol=0, atol=1e-8 * np.abs(reference).max())


@pytest.fixture
def pose(bumpy_grid: Callable, generator: torch.Generator) -> tuple[torch.Tensor, np.ndarray, np.ndarray, torch.Tensor]:
    """Three rest poses (3, 81, 3), faces, handles, two handle positions (2, 1, 12, 3)."""
    vertices, faces = bumpy_grid(9, 9)
    rest = torch.from_numpy(vertices) + 0.05 * torch.randn(3, 81, 3, generator=generator, dtype=torch.float64)
    handles = np.random.default_rng(0).choice(81, 12, replace=False)
    moves = 0.4 * torch.randn(2, 1, 12, 3, generator=generator, dtype=torch.float64)
    return rest, faces, handles, rest[0, handles] + moves


def results(solver: ArapSolver, rest: torch.Tensor, moved: torch.Tensor) -> list[torch.Tensor]:
    """Values and gradients of everything a solver computes, on the CPU."""
    p, h = rest.clone().requires_grad_(), moved.clone().requires_grad_()
    found = []
    x = solver.solve(p, h)
    for output in (x, solver.solve_converged(p, h, 1e-9), solver.rotations(x, p), solver.energy(x, p)):
        found += [output, *torch.autograd.grad(output.sin().sum(), (p, h), retain_graph=True)]
    return [values.detach().cpu() for values in found]


def assert_all_close(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for mine, reference in zip(found, expected, strict=True):
        assert mine.shape == reference.shape
        scale = reference.abs().max().item()
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-9 * max(scale, 1))


@pytest.mark.parametrize("energy", ["bilaplacian", "edges"])
def test_torch_equals_numpy_in_values_and_gradients(pose: tuple, energy: str) -> None:
    rest, faces, handles, moved = pose
    by_torch, by_numpy = (
        results(ArapSolver(faces, handles, 81, energy=energy, backend=name), rest, moved) for name in ("torch", "numpy")
    )
    assert_all_close(by_torch, by_numpy)


@needs_cuda
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("energy", ["bilaplacian", "edges"])
def test_cuda_equals_numpy_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, pose: tuple, energy: str, dense: bool
) -> None:
    if not dense:
        monkeypatch.setattr(_torch_tier, "LARGEST_DENSE", 0)
    rest, faces, handles, moved = pose
    on_gpu = results(ArapSolver(faces, handles, 81, energy=energy), rest.cuda(), moved.cuda())
    assert_all_close(on_gpu, results(ArapSolver(faces, handles, 81, energy=energy, backend="numpy"), rest, moved))


@needs_cuda
def test_cuda_tensors_stay_there_and_keep_their_type(pose: tuple) -> None:
    rest, faces, handles, moved = pose
    for backend in ("auto", "torch", "numpy"):
        p = rest.float().cuda().requires_grad_()
        x = ArapSolver(faces, handles, 81, backend=backend).solve(p, moved.float().cuda())
        assert x.is_cuda
        assert x.dtype == torch.float32
        x.sum().backward()
        assert p.grad.is_cuda
    covariance = torch.randn(5, 3, 3, device="cuda")
    torch.testing.assert_close(fit_rotations(covariance).cpu(), fit_rotations(covariance.cpu()))


@pytest.fixture
def block(bumpy_grid: Callable) -> sp.csc_matrix:
    """A positive definite block of a mesh."""
    _, faces = bumpy_grid(9, 9)
    from arap_diff import laplacian

    return laplacian(faces, 81)[5:, 5:].tocsc()


def check_solves(solver: Callable[[torch.Tensor], torch.Tensor], block: sp.csc_matrix) -> None:
    for columns in (3, 300):
        right = torch.randn(76, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        before = right.clone()
        np.testing.assert_allclose(block @ solver(right).numpy(), right, rtol=0, atol=1e-10)
        assert torch.equal(right, before)


def test_dense_cholesky_solves(block: sp.csc_matrix) -> None:
    check_solves(DenseCholesky(block, CPU), block)


@needs_cholespy
def test_cholespy_solves(block: sp.csc_matrix) -> None:
    check_solves(CholespySolver(block, CPU), block)


def test_the_factor_of_the_cpu_solves(bumpy_grid: Callable, backend: str, block: sp.csc_matrix) -> None:
    _, faces = bumpy_grid(9, 9)
    system = System(weighted_edges(faces, 81, "uniform"), np.arange(5), 81, bilaplacian=False)
    check_solves(CpuRoundTrip(prepare(system, backend).factor), block)


def test_the_solver_follows_size_and_device(monkeypatch: pytest.MonkeyPatch, block: sp.csc_matrix) -> None:
    factor = CpuRoundTrip
    assert isinstance(choose_solver(block, CPU, factor), DenseCholesky)
    monkeypatch.setattr(_torch_tier, "LARGEST_DENSE", 75)
    assert isinstance(choose_solver(block, CPU, factor), CpuRoundTrip)
    monkeypatch.setattr(_torch_tier, "CholespySolver", lambda matrix, device: "cholespy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert choose_solver(block, torch.device("cuda", 0), factor) == "cholespy"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(choose_solver(block, torch.device("cuda", 0), factor), CpuRoundTrip)


def test_without_a_dense_factor_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch, pose: tuple) -> None:
    rest, faces, handles, moved = pose
    expected = ArapSolver(faces, handles, 81, backend="torch").solve(rest, moved)
    monkeypatch.setattr(_torch_tier, "LARGEST_DENSE", 0)
    x = ArapSolver(faces, handles, 81, backend="torch").solve(rest, moved)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-11)
