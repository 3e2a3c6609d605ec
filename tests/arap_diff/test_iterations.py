"""Convergence: the two general iterations behind `solve_converged` on problems with known answers; when it stops."""

import pytest
import torch

from arap_diff._anderson import Anderson
from arap_diff._gmres import gmres
from arap_diff._implicit import converge


def systems(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(count, size, size, generator=generator, dtype=torch.float64) / size**0.5
    return matrices + 2 * torch.eye(size), torch.randn(count, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("krylov_size", [50, 7])
def test_gmres_solves_every_system_of_a_batch(krylov_size: int) -> None:
    matrices, b = systems(4, 30)
    b[2] = 0
    matrices[3] = 3 * torch.eye(30)
    x = gmres(
        lambda rows: torch.einsum("bij,bj->bi", matrices, rows),
        b,
        tolerance=1e-11,
        krylov_size=krylov_size,
        most_restarts=40,
    )
    torch.testing.assert_close(x, torch.linalg.solve(matrices, b), rtol=0, atol=1e-9)
    assert not x[2].any()


def test_gmres_says_when_there_is_no_solution() -> None:
    b = torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(ArithmeticError, match=r"relative residual 0\.577 after 12 steps, not 1e-10"):
        gmres(lambda rows: rows * torch.tensor([1.0, 2.0, 0.0]), b, tolerance=1e-10, krylov_size=4, most_restarts=3)


def test_anderson_needs_few_steps_where_plain_iteration_needs_thousands() -> None:
    rates = torch.tensor([[0.999, 0.9, 0.5, -0.3], [0.99, 0.98, 0.97, 0.0]], dtype=torch.float64)
    solution = torch.arange(8, dtype=torch.float64).reshape(2, 4)
    x, steps = torch.zeros(2, 4, dtype=torch.float64), 0
    acceleration = Anderson()
    while (x - solution).abs().max() > 1e-9:
        x = acceleration.next(x, solution + rates * (x - solution))
        steps += 1
        assert steps < 60


def test_anderson_forgets_when_the_residual_grows() -> None:
    acceleration = Anderson()
    x = torch.zeros(1, 2, dtype=torch.float64)
    for residual in ([1.0, 0.0], [0.5, 0.1]):
        acceleration.next(x, x + torch.tensor([residual], dtype=torch.float64))
    image = x + torch.tensor([[7.0, 3.0]], dtype=torch.float64)
    assert torch.equal(acceleration.next(x, image), image)


class Drifting:
    """A tier whose every solve moves every vertex by the same step, and which counts them."""

    def __init__(self, step: float) -> None:
        self.step = torch.tensor([step, 0.0, 0.0], dtype=torch.float64)
        self.n_solves = 0

    def unrolled(self, p: torch.Tensor, h: torch.Tensor, n_solves: int, keep: bool) -> list[torch.Tensor]:
        assert not keep
        self.n_solves += n_solves
        return [p + n_solves * self.step]

    def advance(self, p: torch.Tensor, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self.n_solves += 1
        return x + self.step


def test_a_deformation_has_converged_when_no_vertex_moved_by_tol_however_many_moved_a_little() -> None:
    rest, tier = torch.zeros(1, 500, 3, dtype=torch.float64), Drifting(0.9)
    after = converge(tier, rest, rest[:, :1], tol=1.0, max_solves=2)
    assert tier.n_solves == 2
    torch.testing.assert_close(after, rest + 2 * tier.step)


def test_no_more_solves_are_taken_than_allowed() -> None:
    rest, tier = torch.zeros(1, 500, 3, dtype=torch.float64), Drifting(1.0)
    with pytest.raises(ArithmeticError, match="a vertex still moves by 1 after 5 solves, tol is 1"):
        converge(tier, rest, rest[:, :1], tol=1.0, max_solves=5)
    assert tier.n_solves == 5
