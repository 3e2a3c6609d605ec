"""Alternation to convergence, and the derivative of its fixed point x = F(x, p, h) by the implicit function theorem."""

import torch
from torch import Tensor

from arap_diff._anderson import Anderson
from arap_diff._gmres import gmres
from arap_diff._tiers import Tier

ADJOINT_TOLERANCE = 1e-10  # of the adjoint system's residual, relative to the gradient that came in
KRYLOV_SIZE = 60  # basis vectors before a restart
MOST_RESTARTS = 10


def converge(tier: Tier, p: Tensor, h: Tensor, tol: float, max_solves: int) -> Tensor:
    """Positions (B, V, 3) after the first solve that moved no vertex by `tol` or more, accelerated.

    Every deformation of the batch stops by itself, so that none depends on its companions. ArithmeticError if one
    still moves after `max_solves` solves.
    """
    x = tier.unrolled(p, h, 1, keep=False)[0]
    converged = torch.empty_like(p)
    moving = torch.arange(len(p), device=p.device)
    acceleration = Anderson()
    for _ in range(max_solves - 1):
        after = tier.advance(p[moving], h[moving], x)
        moves = (after - x).norm(dim=-1).amax(-1)
        still = ~(moves < tol)
        converged[moving] = after
        moving = moving[still]
        if not moving.numel():
            return converged
        x = acceleration.next(x.flatten(1), after.flatten(1)).reshape(after.shape)[still]
        acceleration.keep(still)
    raise ArithmeticError(
        f"a vertex still moves by {moves.max().item():.3g} after {max_solves} solves, tol is {tol:g}: "
        "raise max_solves or tol, or give more handles"
    )


def fixed_point_adjoint(
    tier: Tier, p: Tensor, x: Tensor, x_bar: Tensor, rest_wanted: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients with respect to p, if wanted, and h of a loss whose gradient at the fixed point x is x_bar.

    With (I - F_x)^T m = x_bar, they are F_p^T m and F_h^T m. ArithmeticError if the system for m has no solution, as
    where the fixed points are not isolated.
    """

    rotation = tier.rotations(p, x)

    def apply(flat: Tensor) -> Tensor:
        return flat - tier.advance_adjoint(p, x, rotation, flat.reshape(x.shape), rest_wanted=False)[0].flatten(1)

    try:
        multiplier = gmres(
            apply,
            x_bar.flatten(1),
            tolerance=ADJOINT_TOLERANCE,
            krylov_size=KRYLOV_SIZE,
            most_restarts=MOST_RESTARTS,
        )
    except ArithmeticError as error:
        raise ArithmeticError(
            f"no gradient at this fixed point ({error}): it may not be isolated; hold more vertices"
        ) from None
    _, p_bar, h_bar = tier.advance_adjoint(p, x, rotation, multiplier.reshape(x.shape), rest_wanted)
    return p_bar, h_bar
