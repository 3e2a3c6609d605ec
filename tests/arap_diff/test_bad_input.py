"""Every mistake a user can make in building or calling a solver gets one line that says what and where."""

import sys

import numpy as np
import pytest
import torch

from arap_diff import ArapSolver, _backend, arap_deform
from arap_diff._points import check_same_device

FACES = np.array([[0, 1, 2], [1, 3, 2]])
REST = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]])


@pytest.mark.parametrize(
    ("handles", "options", "message"),
    [
        ([0, 4], {}, r"handle vertex 4 is outside 0\.\.3"),
        ([-1], {}, r"handle vertex -1 is outside 0\.\.3"),
        ([0, 2, 2], {}, "handle vertex 2 is given more than once"),
        ([[0, 1]], {}, r"handles must be vertex ids of shape \(K,\), got int64 \(1, 2\)"),
        ([0.0, 1.0], {}, r"handles must be vertex ids of shape \(K,\), got float64 \(2,\)"),
        ([True, False, True, False], {}, r"handles must be vertex ids of shape \(K,\), got bool \(4,\)"),
        ([], {}, "handles is empty: give at least one vertex id"),
        ([0], {"energy": "springs"}, 'energy must be "bilaplacian" or "edges", got \'springs\''),
        ([0], {"weights": "area"}, 'weights must be "uniform", "cotangent" or one positive number per edge, got .area'),
        ([0], {"weights": "cotangent"}, 'weights="cotangent" needs rest'),
        ([0], {"backend": "gpu"}, 'backend must be "auto", "numpy", "numba" or "torch", got \'gpu\''),
        ([0], {"weights": np.ones(4)}, r"weights must be one number per edge, shape \(E=5,\) .* got float64 \(4,\)"),
        ([0], {"weights": np.ones((5, 1))}, r"in the order of mesh_edges, got float64 \(5, 1\)"),
        ([0], {"weights": np.full(5, "a")}, r"weights must be one number per edge, .* got <U1 \(5,\)"),
        ([0], {"weights": np.full(5, True)}, r"weights must be one number per edge, .* got bool \(5,\)"),
        ([0], {"weights": [1, 1, 0, 1, 1]}, r"weights must be positive and finite, edge 2 has 0\.0"),
        ([0], {"weights": [1, 1, 1, np.nan, 1]}, "weights must be positive and finite, edge 3 has nan"),
        (
            [0],
            {"weights": torch.ones(5, requires_grad=True)},
            "weights requires a gradient, but edge weights are const",
        ),
    ],
)
def test_solver_refuses(handles: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArapSolver(FACES, np.array(handles), 4, **options)


def test_component_without_handle_is_named() -> None:
    two_islands = np.concatenate([FACES, FACES + 10])
    with pytest.raises(ValueError, match=r"4 vertices are connected to no handle \(for example vertex 10\)"):
        ArapSolver(two_islands, [0, 1], 14)
    ArapSolver(two_islands, [0, 10], 14)


@pytest.mark.parametrize(
    ("rest", "handle_positions", "n_solves", "message"),
    [
        (REST[:3], REST[:1], 3, r"rest must have shape \(\.\.\., V=4, 3\), got \(3, 3\)"),
        (REST, REST[:2], 3, r"handle_positions must have shape \(\.\.\., K=1, 3\), got \(2, 3\)"),
        (REST.long(), REST[:1], 3, "rest must be float32 or float64, got torch.int64"),
        (REST.numpy(), REST[:1], 3, "rest must be a torch tensor, got ndarray"),
        (REST + torch.tensor([[0.0], [0], [float("nan")], [0]]), REST[:1], 3, "rest has a value .* first at row 2"),
        (REST, REST[:1] / 0, 3, "handle_positions has a value that is not finite, first at row 0"),
        (REST, REST[:1], 0, "n_solves must be an integer of at least 1, got 0"),
        (REST, REST[:1], 2.0, r"n_solves must be an integer of at least 1, got 2\.0"),
        (REST, REST[:1], True, "n_solves must be an integer of at least 1, got True"),
        (REST.half(), REST[:1], 3, "rest must be float32 or float64, got torch.float16"),
        (REST[0], REST[:1], 3, r"rest must have shape \(\.\.\., V=4, 3\), got \(3,\)"),
        (REST.to("meta"), REST[:1], 3, "rest is on meta, which cannot compute in float64: move it to the CPU"),
        (
            REST.expand(2, 4, 3),
            REST[:1].expand(3, 1, 3),
            3,
            r"rest \(2, 4, 3\) and handle_positions \(3, 1, 3\) do not",
        ),
    ],
)
def test_solve_refuses(rest: torch.Tensor, handle_positions: torch.Tensor, n_solves: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArapSolver(FACES, [0], 4).solve(rest, handle_positions, n_solves)


@pytest.mark.parametrize(
    ("tol", "max_solves", "message"),
    [
        (0, 9, "tol must be a positive length in the units of the mesh, got 0"),
        (-1.0, 9, r"tol must be a positive length in the units of the mesh, got -1\.0"),
        (float("nan"), 9, "tol must be a positive length in the units of the mesh, got nan"),
        (None, 9, "tol must be a positive length in the units of the mesh, got None"),
        (1e-6, 1, "max_solves must be an integer of at least 2, got 1"),
        (1e-6, 9.0, r"max_solves must be an integer of at least 2, got 9\.0"),
    ],
)
def test_solve_converged_refuses(tol: float, max_solves: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArapSolver(FACES, [0], 4).solve_converged(REST, REST[:1], tol, max_solves=max_solves)


def test_two_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="rest is on cpu but handle_positions is on meta"):
        check_same_device("rest", REST, "handle_positions", REST.to("meta"))


def test_mixed_precision_is_promoted() -> None:
    solver = ArapSolver(FACES, [0], 4)
    assert solver.solve(REST, REST[:1].double()).dtype == torch.float64
    assert solver.solve_converged(REST, REST[:1], 1e-6).dtype == torch.float32


def test_energy_and_rotations_refuse_other_shapes() -> None:
    solver = ArapSolver(FACES, [0], 4)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., V=4, 3\), got \(3, 3\)"):
        solver.energy(REST[:3], REST)
    with pytest.raises(ValueError, match=r"rest must have shape \(\.\.\., V=4, 3\), got \(3, 3\)"):
        solver.rotations(REST, REST[:3])
    with pytest.raises(ValueError, match=r"x has a value that is not finite, first at row 0"):
        solver.energy(REST / 0, REST)
    with pytest.raises(ValueError, match=r"leading dimensions of x \(2, 4, 3\) and rest \(3, 4, 3\) do not broadcast"):
        solver.rotations(REST.expand(2, 4, 3), REST.expand(3, 4, 3))


def test_one_off_form_refuses_a_flat_rest() -> None:
    with pytest.raises(ValueError, match=r"rest must have shape \(\.\.\., V, 3\), got \(3,\)"):
        arap_deform(REST[0], FACES, [0], REST[:1])


def test_without_numba_auto_is_numpy_and_numba_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "has_numba", lambda: False)
    assert _backend.resolve_backend("auto") == "numpy"
    torch.testing.assert_close(ArapSolver(FACES, [0], 4).solve(REST, REST[:1] + 1), REST + 1)
    with pytest.raises(ValueError, match=r'backend="numba" needs numba: pip install "arap-diff\[fast\]", and no NUMBA'):
        ArapSolver(FACES, [0], 4, backend="numba")


@pytest.mark.parametrize("reason", ["disabled", "broken"])
def test_numba_that_cannot_compile_counts_as_missing(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    if reason == "disabled":
        monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    else:
        monkeypatch.setitem(sys.modules, "numba", None)
    assert not _backend.has_numba.__wrapped__()


def test_mesh_without_faces_passes_through() -> None:
    solver = ArapSolver(np.zeros((0, 3), dtype=np.int64), [1], 4)
    moved = solver.solve(REST, REST[1:2] + 1)
    assert torch.equal(moved[1], REST[1] + 1)
    assert torch.equal(moved[[0, 2, 3]], REST[[0, 2, 3]])
