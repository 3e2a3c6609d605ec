"""Random meshes, most of them degenerate: nothing that leaves the solver is ever infinite or not a number."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arap_diff import ArapSolver

COORDINATES = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, -1.0, 1e-9, 1e-3, 0.3, 1e3])


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces, rest, handles and targets of up to 8 vertices: repeated, collinear and coincident points, non-manifold
    edges, faces given twice, several pieces, vertices in no face."""
    n = draw(st.integers(3, 8))
    face = st.lists(st.integers(0, n - 1), min_size=3, max_size=3, unique=True)
    faces = np.array(draw(st.lists(face, min_size=1, max_size=10)))
    points = st.lists(COORDINATES, min_size=3 * n, max_size=3 * n)
    rest, moved = (np.reshape(draw(points), (n, 3)) for _ in range(2))
    piece = np.arange(n)
    for _ in range(n):
        for corners in faces:
            piece[corners] = piece[corners].min()
    extra = draw(st.lists(st.integers(0, n - 1), max_size=n))
    handles = np.unique(np.concatenate([np.unique(piece), np.array(extra, dtype=np.int64)]))
    return faces, rest, handles, moved[handles]


@pytest.mark.parametrize("energy", ["bilaplacian", "edges"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(scene=scenes(), weights=st.sampled_from(["uniform", "cotangent"]))
def test_values_and_gradients_are_finite(backend: str, energy: str, scene: tuple, weights: str) -> None:
    faces, vertices, handles, targets = scene
    try:
        solver = ArapSolver(
            faces, handles, len(vertices), rest=vertices, energy=energy, weights=weights, backend=backend
        )
    except ArithmeticError:
        assume(weights == "uniform")
        raise
    rest = torch.from_numpy(vertices).requires_grad_()
    moved = torch.from_numpy(targets).requires_grad_()
    x = solver.solve(rest, moved)
    gradients = torch.autograd.grad(x.square().sum(), (rest, moved))
    assert all(torch.isfinite(values).all() for values in (x, *gradients))
    value = solver.energy(x, rest)
    assert torch.isfinite(value)
    assert value >= 0
    assert torch.isfinite(solver.rotations(x, rest)).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(scene=scenes(), energy=st.sampled_from(["bilaplacian", "edges"]))
def test_tiers_agree_where_the_rotations_are_unique(scene: tuple, energy: str) -> None:
    faces, vertices, handles, targets = scene
    rest, moved = torch.from_numpy(vertices), torch.from_numpy(targets)
    results = []
    for backend in ("numpy", "torch"):
        solver = ArapSolver(faces, handles, len(vertices), energy=energy, backend=backend)
        results.append(solver.solve(rest, moved, 1))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-7)
