"""A solver in other processes and threads: DataLoader workers, pickles, copies, concurrent solves."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from arap_diff import ArapSolver


class Deformations(Dataset):
    """Deformed shapes with their gradient, made where they are asked for."""

    def __init__(self, solver: ArapSolver, rest: torch.Tensor) -> None:
        self.solver, self.rest = solver, rest

    def __len__(self) -> int:
        return 6

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        moved = self.rest[self.solver.handles.tolist()] + 0.1 * k
        moved[0] += k
        moved.requires_grad_()
        x = self.solver.solve(self.rest, moved)
        (gradient,) = torch.autograd.grad(x.sin().sum(), moved)
        return x.detach(), gradient


@pytest.fixture
def deformations(bumpy_grid: Callable) -> Callable[[str], Deformations]:
    vertices, faces = bumpy_grid(12, 12)
    handles = np.array([0, 11, 132, 143, 66])
    return lambda backend: Deformations(
        ArapSolver(faces, handles, 144, rest=vertices, weights="cotangent", backend=backend), torch.from_numpy(vertices)
    )


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers_compute_the_same(deformations: Callable, start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {start}")
    dataset = deformations("auto")
    expected = [dataset[k] for k in range(6)]
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2 if start == "fork" else 1, multiprocessing_context=start, timeout=120
    )
    for part, found in enumerate(zip(*(torch.cat(parts) for parts in zip(*loader, strict=True)), strict=True)):
        for mine, reference in zip(found, expected[part], strict=True):
            assert torch.equal(mine, reference)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_solve_to_the_last_bit(deformations: Callable, tier: str, duplicate: Callable) -> None:
    dataset = deformations(tier)
    expected = dataset[3]
    again = Deformations(duplicate(dataset.solver), dataset.rest)
    for mine, reference in zip(again[3], expected, strict=True):
        assert torch.equal(mine, reference)
    assert not again.solver.handles.flags.writeable


def test_threads_do_not_disturb_each_other(deformations: Callable, tier: str) -> None:
    dataset = deformations(tier)
    fresh = deformations(tier)
    expected = [fresh[k] for k in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(dataset.__getitem__, [k % 6 for k in range(48)]))
    for k, pair in enumerate(found):
        for mine, reference in zip(pair, expected[k % 6], strict=True):
            assert torch.equal(mine, reference)
