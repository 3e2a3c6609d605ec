"""Ridge regression with its penalty chosen by exact leave-one-out error."""

import numpy as np
import torch
from torch import Tensor


def ridge_by_leave_one_out(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(D, E)`` and bias ``(D,)`` (float32) of ridge regression of ``targets (N, D)`` on ``inputs (N, E)``.

    The one penalty for all targets is the best of a grid over eight decades, by the mean squared leave-one-out error,
    which for ridge regression follows from a single singular value decomposition (Golub, Heath and Wahba 1979).
    """
    x, y = inputs.double(), targets.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    left, singular, right = torch.linalg.svd(x - x_mean, full_matrices=False)
    projected = left.T @ (y - y_mean)
    best_error, best_filter = np.inf, torch.zeros_like(singular)
    for penalty in singular[0].square() * torch.logspace(-7, 1, 33, dtype=torch.float64, device=x.device):
        shrink = singular.square() / (singular.square() + penalty)
        leverage = left.square() @ shrink + 1.0 / len(x)
        residual = (y - y_mean - left @ (shrink[:, None] * projected)) / (1.0 - leverage).clamp_min(1e-9)[:, None]
        error = float(residual.square().mean())
        if error < best_error:
            best_error, best_filter = error, singular / (singular.square() + penalty)
    weight = (right.T @ (best_filter[:, None] * projected)).T
    return weight.float(), (y_mean - weight @ x_mean).float()
