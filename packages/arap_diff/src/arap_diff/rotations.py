"""Rotation fit of 3 x 3 covariances, differentiable and safe where singular values coincide."""

import torch
from torch import Tensor

from arap_diff._autograd import FitRotations, RaiseUnlessFinite


def fit_rotations(covariance: Tensor) -> Tensor:
    """Rotation closest to each covariance: R with det +1 that maximises tr(R^T S).

    For S = sum_k w_k x_k p_k^T it is the least-squares rotation from the p_k to the x_k (Kabsch 1976; Horn 1987), and
    the local step of as-rigid-as-possible deformation (Sorkine and Alexa 2007).

    Args:
        covariance: (..., 3, 3) float32 or float64; computed in float64, on the device it is on.

    Returns:
        (..., 3, 3) of the same dtype. Where the best rotation is not unique (S of rank one, or a reflection with
        s2 = |s3|) it is the one nearest the identity to within rounding; where S is zero it is the identity.
        The gradient is the exact adjoint, whose denominators are the sums s_i + s_j of signed singular values, damped
        at 1e-7 of s1 + s2 + s3: finite for every finite input.

    Raises:
        ValueError: wrong shape or dtype, or a value that is not finite.
        RuntimeError: when the gradient itself is differentiated, or forward-mode derivatives are asked for.
    """
    if covariance.ndim < 2 or covariance.shape[-2:] != (3, 3):
        raise ValueError(f"covariance must have shape (..., 3, 3), got {tuple(covariance.shape)}")
    if covariance.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"covariance must be float32 or float64, got {covariance.dtype}")
    RaiseUnlessFinite.apply(covariance.detach(), lambda _: "covariance has values that are not finite")
    rotation, _ = FitRotations.apply(covariance.reshape(-1, 3, 3).double())
    fitted: Tensor = rotation.reshape(covariance.shape).to(covariance.dtype)
    return fitted
