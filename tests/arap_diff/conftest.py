"""Meshes and the choice of backend shared by the tests."""

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import torch

Mesh = tuple[np.ndarray, np.ndarray]


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


@pytest.fixture(params=["numpy", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed (extra fast)")
    return request.param


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
