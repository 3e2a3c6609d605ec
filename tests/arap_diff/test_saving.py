"""Saved solvers: the same to the last bit after loading, and a clear refusal of everything else."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arap_diff import ArapSolver, _backend, _saving


@pytest.fixture
def scene(bumpy_grid: Callable) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    rest, faces = bumpy_grid(9, 9)
    return torch.from_numpy(rest), faces, np.array([80, 0, 8, 72, 40])


@pytest.fixture
def stored(scene: tuple, tmp_path: Path) -> Path:
    rest, faces, handles = scene
    path = tmp_path / "sheet.solver"
    ArapSolver(faces, handles, 81, rest=rest, energy="edges", weights="cotangent").save(path)
    return path


@pytest.mark.parametrize("energy", ["bilaplacian", "edges"])
def test_loaded_solver_is_the_same_to_the_last_bit(scene: tuple, tier: str, energy: str, tmp_path: Path) -> None:
    rest, faces, handles = scene
    solver = ArapSolver(
        faces, handles, 83, rest=torch.cat([rest, rest[:2]]), energy=energy, weights="cotangent", backend=tier
    )
    solver.save(str(tmp_path / "sheet.solver"))
    again = ArapSolver.load(tmp_path / "sheet.solver", backend=tier)
    p = torch.cat([rest, rest[:2]]).requires_grad_()
    h = (rest[[80, 0, 8, 72, 40]] + torch.rand(5, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    results = []
    for one in (solver, again):
        x = one.solve(p, h)
        results.append((x, *torch.autograd.grad(x.sin().sum(), (p, h)), one.energy(x, p), one.rotations(x, p)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
    assert again.handles.tolist() == handles.tolist()
    assert (again.n_vertices, again.energy_name, again.backend) == (83, energy, tier)


def test_saving_replaces_the_file_and_leaves_nothing_beside_it(stored: Path, scene: tuple) -> None:
    before = stored.read_bytes()
    ArapSolver(scene[1], [3], 81).save(stored)
    assert stored.read_bytes() != before
    assert list(stored.parent.iterdir()) == [stored]
    assert ArapSolver.load(stored).handles.tolist() == [3]


def test_a_failed_save_leaves_the_old_file(stored: Path, monkeypatch: pytest.MonkeyPatch, scene: tuple) -> None:
    before = stored.read_bytes()

    def full_disk(*arguments: object, **fields: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space left"):
        ArapSolver(scene[1], [3], 81).save(stored)
    assert stored.read_bytes() == before
    assert list(stored.parent.iterdir()) == [stored]


def rewritten(path: Path, **changes: object) -> Path:
    """A forgery: other contents, whose checksum is right."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays.update(changes)
    arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    if not any(array.dtype.hasobject for array in arrays.values()):
        del arrays["sha256"]
        arrays["sha256"] = np.array(_saving._digest(arrays))
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, r"sheet\.solver is no saved ArapSolver"),
        ({"format": None}, r"sheet\.solver is no saved ArapSolver"),
        ({"version": 1}, "has version 1 of the file format, this arap_diff reads 2: save it again"),
        ({"version": None}, "has version None of the file format"),
        ({"energy": "springs"}, r"sheet\.solver is damaged: unknown energy 'springs'"),
        ({"weights": np.ones(3)}, r"is damaged: weights must be one number per edge, shape \(E=208,\)"),
        ({"weights": np.full(208, -1.0)}, "is damaged: weights must be positive and finite, edge 0"),
        ({"handles": np.array([99])}, r"is damaged: handle vertex 99 is outside 0\.\.80"),
        ({"handles": None}, "is damaged: 'handles"),
        ({"n_vertices": 10}, "is damaged: edges name vertices that do not exist"),
        ({"n_vertices": np.ones(2)}, "is damaged: "),
        ({"edges": np.zeros((208, 3), dtype=np.int64)}, r"is damaged: edges are int64 \(208, 3\)"),
        ({"edges": np.tile([0, 1], (208, 1))}, "is damaged: edges are not sorted"),
    ],
)
def test_wrong_contents_are_refused(stored: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArapSolver.load(rewritten(stored, **changes))


@pytest.mark.usefixtures("numba")
@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"order": a["order"][::-1] + 1},
        lambda a: {"order": a["order"] * 0},
        lambda a: {"widths": a["widths"] * 2},
        lambda a: {"heights": a["heights"] + 1},
        lambda a: {"ids": a["ids"] + np.int32(1)},
        lambda a: {"ids": a["ids"].astype(np.int64)},
        lambda a: {"packed": a["packed"][:-1]},
        lambda a: {"handles": a["handles"][:-1]},
    ],
)
def test_factors_that_compiled_loops_would_run_out_of_are_refused(stored: Path, change: Callable) -> None:
    with np.load(stored) as archive:
        changes = change({name: archive[name] for name in archive.files})
    with pytest.raises(ValueError, match=r"sheet\.solver is damaged: the arrays of the factor do not fit together"):
        ArapSolver.load(rewritten(stored, **changes))


@pytest.mark.usefixtures("numba")
def test_a_factor_is_stored_and_used_and_done_without(
    stored: Path, scene: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = scene[0]
    expected = ArapSolver.load(stored).solve(rest, rest[scene[2]] + 1)
    with np.load(stored) as archive:
        doubled = archive["packed"] * 2
    wrong = ArapSolver.load(rewritten(stored, packed=doubled)).solve(rest, rest[scene[2]] + 1)
    assert (wrong - expected).abs().max() > 0.1
    ArapSolver(scene[1], scene[2], 81, rest=rest, energy="edges", weights="cotangent").save(stored)
    monkeypatch.setattr(_backend, "has_numba", lambda: False)
    slow = ArapSolver.load(stored)
    torch.testing.assert_close(slow.solve(rest, rest[scene[2]] + 1), expected, rtol=0, atol=1e-10)
    slow.save(stored)
    with np.load(stored) as archive:
        assert "packed" not in archive.files


@pytest.mark.parametrize("name", ["handles", "weights", "packed", "sha256"])
def test_a_changed_array_does_not_have_its_checksum(stored: Path, name: str) -> None:
    with np.load(stored) as archive:
        arrays = {key: archive[key] for key in archive.files}
    if name not in arrays:
        pytest.skip("no factor is stored without numba")
    arrays[name] = arrays[name][::-1] if arrays[name].ndim else np.array("0" * 64)
    with open(stored, "wb") as stream:
        np.savez(stream, **arrays)
    with pytest.raises(ValueError, match=r"sheet\.solver is damaged: its contents do not have their checksum"):
        ArapSolver.load(stored)


def test_pickled_contents_are_not_run(stored: Path) -> None:
    with pytest.raises(ValueError, match="is damaged or no saved ArapSolver: Object arrays cannot be loaded"):
        ArapSolver.load(rewritten(stored, handles=np.array([print], dtype=object)))


def test_damaged_and_foreign_files_are_refused(stored: Path, tmp_path: Path) -> None:
    whole = stored.read_bytes()
    flipped = bytearray(whole)
    with zipfile.ZipFile(stored) as archive:
        flipped[archive.getinfo("weights.npy").header_offset + 200] ^= 0xFF
    for contents in (b"", b"hello", whole[: len(whole) // 2], whole[100:], bytes(flipped), np.zeros(3).tobytes()):
        stored.write_bytes(contents)
        with pytest.raises(ValueError, match=r"sheet\.solver is damaged or no saved ArapSolver"):
            ArapSolver.load(stored)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"array\.npy is damaged or no saved ArapSolver"):
        ArapSolver.load(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        ArapSolver.load(tmp_path / "missing")


def test_no_flipped_bit_is_read_as_something_else(stored: Path, scene: tuple) -> None:
    """At the end of the file are the names, sizes and flags of all arrays: damage there has many faces."""
    rest, handles = scene[0], scene[2]
    expected, whole = ArapSolver.load(stored).solve(rest, rest[handles] * 2), stored.read_bytes()
    messages = []
    for at in range(len(whole) - 250, len(whole)):
        stored.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            again = ArapSolver.load(stored)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert torch.equal(again.solve(rest, rest[handles] * 2), expected)
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def test_load_refuses_an_unknown_backend(stored: Path) -> None:
    with pytest.raises(ValueError, match='backend must be "auto", "numpy", "numba" or "torch", got \'gpu\''):
        ArapSolver.load(stored, backend="gpu")
