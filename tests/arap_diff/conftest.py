"""Meshes, the choice of backend, and a dense textbook twin of the whole method, shared by the tests."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from arap_diff._backend import has_numba

Mesh = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The meshes are so small that a second thread would only be waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bumpy_grid() -> Callable[[int, int], Mesh]:
    """Maker of curved height-field grids: (vertices (V, 3), faces (F, 3)), vertex id = row * columns + column."""

    def make(rows: int, columns: int) -> Mesh:
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        z = 0.3 * np.sin(1.1 * x) + 0.2 * np.cos(1.3 * y) + 0.03 * x * y
        ids = np.arange(rows * columns).reshape(rows, columns)
        a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
        faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
        return np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float64), faces

    return make


@pytest.fixture
def numba() -> None:
    """Skips a test of the numba tier where that does not work."""
    if not has_numba():
        pytest.skip("numba is not installed (extra fast), or disabled")


@pytest.fixture(params=["numpy", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        request.getfixturevalue("numba")
    return request.param


@pytest.fixture(params=["numpy", "numba", "torch"])
def tier(request: pytest.FixtureRequest) -> str:
    """Every way to compute on CPU tensors."""
    if request.param == "numba":
        request.getfixturevalue("numba")
    return request.param


@pytest.fixture(scope="session")
def textbook() -> Callable[..., np.ndarray]:
    """The method with dense matrices, loops and textbook SVDs, sharing no code with the package.

    `weights` maps undirected edges (i, j), i < j, to numbers.
    """

    def laplacian(weights: dict[tuple[int, int], float], n: int) -> np.ndarray:
        matrix = np.zeros((n, n))
        for (i, j), w in weights.items():
            matrix[[i, j], [j, i]] -= w
            matrix[[i, j], [i, j]] += w
        return matrix

    def rotation(covariance: np.ndarray) -> np.ndarray:
        u, _, vt = np.linalg.svd(covariance)
        return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt

    def deform(
        rest: np.ndarray,
        weights: dict[tuple[int, int], float],
        handles: np.ndarray,
        targets: np.ndarray,
        energy: str,
        n_solves: int,
    ) -> np.ndarray:
        n = len(rest)
        lap = laplacian(weights, n)
        smoothing = lap.T if energy == "bilaplacian" else np.eye(n)
        matrix = smoothing @ lap
        free = np.setdiff1d(np.arange(n), handles)
        rotations = np.tile(np.eye(3), (n, 1, 1))
        for _ in range(n_solves):
            coordinates = np.zeros((n, 3))
            for (i, j), w in weights.items():
                flow = w * (rotations[i] + rotations[j]) / 2 @ (rest[i] - rest[j])
                coordinates[i] += flow
                coordinates[j] -= flow
            x = np.zeros((n, 3))
            x[handles] = targets
            right = smoothing @ coordinates - matrix @ x
            x[free] = np.linalg.solve(matrix[np.ix_(free, free)], right[free])
            covariances = np.zeros((n, 3, 3))
            for (i, j), w in weights.items():
                outer = w * np.outer(x[i] - x[j], rest[i] - rest[j])
                covariances[i] += outer
                covariances[j] += outer
            rotations = np.array([rotation(s) for s in covariances])
        return x

    return deform


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def rotation_about() -> Callable[[list[float], float], torch.Tensor]:
    """Maker of float64 rotations (3, 3) by an angle in radians about an axis."""

    def make(axis: list[float], angle: float) -> torch.Tensor:
        unit = torch.tensor(axis, dtype=torch.float64)
        unit = unit / unit.norm()
        cross = torch.linalg.cross(torch.eye(3, dtype=torch.float64), unit.expand(3, 3)).mT
        return torch.linalg.matrix_exp(-angle * cross)

    return make
