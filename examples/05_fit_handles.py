"""Find the handles by gradient descent: where were the corners of a sheet that bent like this in a picture?

The sheet is held along one side and pulled at the two far corners. Known are only the picture coordinates x and y of
some vertices, not their depth and not the corners; that the sheet resists stretching gives the rest.
"""

import numpy as np
import torch

from arap_diff import ArapSolver

ROWS, COLUMNS = 12, 18

x, y = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
rest = torch.tensor(np.stack([x, y, 0 * x], -1).reshape(-1, 3), dtype=torch.float64)
ids = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
side, corners = ids[:, :2].ravel(), ids[[0, -1], -1]
solver = ArapSolver(faces, np.concatenate([side, corners]), len(rest))


def bend(moved: torch.Tensor) -> torch.Tensor:
    """The sheet (V, 3) whose two corners moved by (2, 3)."""
    return solver.solve(rest, torch.cat([rest[side], rest[corners] + moved]))


truth = torch.tensor([[-3.0, 1.0, 7.0], [-2.0, 0.0, 5.0]], dtype=torch.float64)
seen = ids[::3, 3::3].ravel()
picture = bend(truth)[seen, :2]

moved = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.LBFGS([moved], max_iter=60, line_search_fn="strong_wolfe")


def misfit() -> torch.Tensor:
    """Squared distance in the picture, with its gradient in `moved`."""
    optimiser.zero_grad()
    loss = (bend(moved)[seen, :2] - picture).square().sum()
    loss.backward()
    return loss


before = misfit().item()
optimiser.step(misfit)
print(f"{len(seen)} vertices in the picture: squared misfit {before:.1f} before, {misfit().item():.0e} after")
depth = ", ".join(f"{z:.2f}" for z in moved[:, 2].tolist())
print(f"corners found within {(moved - truth).norm(dim=1).max().item():.0e}; their depth: {depth}")
