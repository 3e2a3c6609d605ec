"""The two general iterations behind `solve_converged`, on small problems with known answers."""

import pytest
import torch

from arap_diff._anderson import Anderson
from arap_diff._gmres import gmres


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
