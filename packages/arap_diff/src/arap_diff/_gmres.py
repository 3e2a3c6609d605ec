"""Restarted GMRES (Saad and Schultz 1986) for a batch of systems of one size, on any device."""

from collections.abc import Callable

import torch
from torch import Tensor


def gmres(
    apply: Callable[[Tensor], Tensor], b: Tensor, *, tolerance: float, krylov_size: int, most_restarts: int
) -> Tensor:
    """Solutions (B, n) of A x = b, one system per row, with residuals of at most `tolerance` |b|.

    `apply` maps rows x to rows A x, each with the matrix of its row. ArithmeticError if the residuals stay larger.
    """
    x, residual = torch.zeros_like(b), b
    target = tolerance * b.norm(dim=1)
    for _ in range(most_restarts):
        if (residual.norm(dim=1) <= target).all():
            return x
        x = x + _best_in_krylov_space(apply, residual, target / 2, krylov_size)
        residual = b - apply(x)
    if (residual.norm(dim=1) <= target).all():
        return x
    left = (residual.norm(dim=1) / b.norm(dim=1)).nan_to_num(torch.inf).max().item()
    raise ArithmeticError(f"relative residual {left:.3g} after {most_restarts * krylov_size} steps, not {tolerance:g}")


def _best_in_krylov_space(
    apply: Callable[[Tensor], Tensor], residual: Tensor, target: Tensor, krylov_size: int
) -> Tensor:
    """Correction (B, n) with the least residual among those spanned by r, A r, A^2 r, ..."""
    length = residual.norm(dim=1)
    basis = residual.new_zeros(len(residual), krylov_size + 1, residual.shape[1])
    basis[:, 0] = _unit(residual)
    hessenberg = torch.zeros(len(residual), krylov_size + 1, krylov_size, dtype=residual.dtype)
    right = torch.zeros(len(residual), krylov_size + 1, 1, dtype=residual.dtype)
    right[:, 0, 0] = length.cpu()
    for k in range(krylov_size):
        direction = apply(basis[:, k])
        for _ in range(2):  # twice is enough
            overlap = torch.einsum("bkn,bn->bk", basis[:, : k + 1], direction)
            direction = direction - torch.einsum("bkn,bk->bn", basis[:, : k + 1], overlap)
            hessenberg[:, : k + 1, k] += overlap.cpu()
        hessenberg[:, k + 1, k] = direction.norm(dim=1).cpu()
        basis[:, k + 1] = _unit(direction)
        left = hessenberg[:, : k + 2, : k + 1]
        share = torch.linalg.lstsq(left, right[:, : k + 2], driver="gelsd").solution
        if ((left @ share - right[:, : k + 2]).norm(dim=(1, 2)) <= target.cpu()).all():
            break
    return torch.einsum("bkn,bk->bn", basis[:, : k + 1], share[..., 0].to(basis.device))


def _unit(rows: Tensor) -> Tensor:
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)
