"""Values of every tier against the dense textbook twin of `conftest`, which shares no code with the package."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from arap_diff import ArapSolver, mesh_edges

ENERGIES = ["bilaplacian", "edges"]


def textbook_weights(rest: np.ndarray, faces: np.ndarray, name: str) -> dict[tuple[int, int], float]:
    weights: dict[tuple[int, int], float] = {}
    for face in faces.tolist():
        for k in range(3):
            apex, i, j = (face[(k + n) % 3] for n in range(3))
            a, b = rest[i] - rest[apex], rest[j] - rest[apex]
            angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            edge = min(i, j), max(i, j)
            weights[edge] = weights.get(edge, 0) + (0.5 / np.tan(angle) if name == "cotangent" else 0.5)
    return {edge: max(w, 1e-4) for edge, w in weights.items()}


@pytest.mark.parametrize("weights", ["uniform", "cotangent", "given"])
@pytest.mark.parametrize("energy", ENERGIES)
def test_equals_the_textbook(
    bumpy_grid: Callable, textbook: Callable, generator: torch.Generator, tier: str, energy: str, weights: str
) -> None:
    vertices, faces = bumpy_grid(5, 6)
    handles = np.array([7, 0, 29, 3, 24])
    edges = mesh_edges(faces, 30)
    by_edge = textbook_weights(vertices, faces, weights)
    given: str | np.ndarray = weights
    if weights == "given":
        given = np.random.default_rng(0).uniform(0.1, 3, len(edges))
        by_edge = {(int(i), int(j)): w for (i, j), w in zip(edges, given, strict=True)}
    solver = ArapSolver(faces, handles, 30, rest=vertices, energy=energy, weights=given, backend=tier)
    rest = torch.from_numpy(vertices) + 0.05 * torch.randn(3, 30, 3, generator=generator, dtype=torch.float64)
    targets = rest[:, handles] + torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    for n_solves in (1, 2, 4):
        x = solver.solve(rest, targets, n_solves)
        for k in range(3):
            expected = textbook(rest[k].numpy(), by_edge, handles, targets[k].numpy(), energy, n_solves)
            np.testing.assert_allclose(x[k], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("energy", ENERGIES)
def test_equals_the_textbook_where_neighbourhoods_are_reflected(
    bumpy_grid: Callable, textbook: Callable, tier: str, energy: str
) -> None:
    rest, faces = bumpy_grid(5, 5)
    handles = np.arange(0, 25, 2)
    mirrored = torch.from_numpy(rest[handles] * [1, 1, -1])
    solver = ArapSolver(faces, handles, 25, energy=energy, backend=tier)
    p = torch.from_numpy(rest)
    x = solver.solve(p, mirrored, 3)
    edges = mesh_edges(faces, 25)
    covariance = torch.zeros(25, 3, 3, dtype=torch.float64)
    along, before = (points[edges[:, 0]] - points[edges[:, 1]] for points in (x, p))
    for ends in edges.T:
        covariance.index_add_(0, torch.from_numpy(ends.copy()), along[:, :, None] * before[:, None, :])
    assert (torch.linalg.det(covariance) < -1e-6).sum() >= 5
    expected = textbook(rest, textbook_weights(rest, faces, "uniform"), handles, mirrored.numpy(), energy, 3)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-9)


def test_energy_and_rotations_are_the_ones_of_the_solve_in_every_tier(
    bumpy_grid: Callable, generator: torch.Generator, tier: str
) -> None:
    vertices, faces = bumpy_grid(4, 4)
    rest = torch.from_numpy(vertices)
    targets = rest[[0, 3, 12, 15]] + torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    for energy in ENERGIES:
        solver = ArapSolver(faces, [0, 3, 12, 15], 16, energy=energy, backend=tier)
        x = solver.solve(rest, targets, 2)
        rotation = solver.rotations(x, rest)
        value = solver.energy(x, rest)
        assert rotation.shape == (2, 16, 3, 3)
        assert value.shape == (2,)
        for k in range(2):
            total = 0.0
            residual = torch.zeros(16, 3, dtype=torch.float64)
            for (i, j), w in textbook_weights(vertices, faces, "uniform").items():
                now, before = x[k, i] - x[k, j], rest[i] - rest[j]
                total += sum(w / 2 * (now - rotation[k, v] @ before).square().sum().item() for v in (i, j))
                flow = w * (now - (rotation[k, i] + rotation[k, j]) / 2 @ before)
                residual[i] += flow
                residual[j] -= flow
            expected = total if energy == "edges" else residual.square().sum().item() / 2
            assert value[k].item() == pytest.approx(expected, rel=1e-12)
