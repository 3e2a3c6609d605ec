"""The deformation and the rotation fit as autograd functions with hand-written adjoints."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from arap_diff._backend import rotation_functions
from arap_diff._unrolled import System, Tape, deform, deform_adjoint
from arap_diff.mesh import FloatArray


def as_array(tensor: Tensor) -> FloatArray:
    """Contiguous float64 NumPy array of a tensor on any device."""
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float64).numpy())


def as_tensor(array: FloatArray, like: Tensor) -> Tensor:
    """Tensor of an array with the dtype and device of `like`."""
    return torch.from_numpy(array).to(like.device, like.dtype)


class Deform(torch.autograd.Function):
    """`deform` of rest (B, V, 3) and handle positions (B, K, 3)."""

    @staticmethod
    def forward(ctx: Any, rest: Tensor, handle_positions: Tensor, system: System, n_solves: int) -> Tensor:
        ctx.system, ctx.tape = system, Tape()
        ctx.save_for_backward(rest, handle_positions)
        return as_tensor(deform(system, as_array(rest), as_array(handle_positions), n_solves, ctx.tape), rest)

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _DeformGradient.apply(*output_bars, *ctx.saved_tensors, ctx.system, ctx.tape)
        return (*gradients, None, None)


class _DeformGradient(torch.autograd.Function):
    """The gradient of `Deform`, in the graph only so that differentiating it again is an error, not a wrong number."""

    @staticmethod
    def forward(
        ctx: Any, output_bar: Tensor, rest: Tensor, handle_positions: Tensor, system: System, tape: Tape
    ) -> tuple[Tensor, Tensor]:
        rest_bar, handle_bar = deform_adjoint(system, as_array(rest), tape, as_array(output_bar))
        return as_tensor(rest_bar, rest), as_tensor(handle_bar, handle_positions)

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("ArapSolver.solve can be differentiated once; its gradient has no derivative of its own")


class FitRotations(torch.autograd.Function):
    """Best rotations of covariances (N, 3, 3)."""

    @staticmethod
    def forward(ctx: Any, covariance: Tensor) -> Tensor:
        fit, _ = rotation_functions()
        ctx.rotation = fit(as_array(covariance))
        ctx.save_for_backward(covariance)
        return as_tensor(ctx.rotation.copy(), covariance)

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> Tensor:
        (covariance,) = ctx.saved_tensors
        return _FitRotationsGradient.apply(*output_bars, covariance, ctx.rotation)


class _FitRotationsGradient(torch.autograd.Function):
    """The gradient of `FitRotations`; refuses a second differentiation."""

    @staticmethod
    def forward(ctx: Any, output_bar: Tensor, covariance: Tensor, rotation: FloatArray) -> Tensor:
        _, adjoint = rotation_functions()
        return as_tensor(adjoint(as_array(covariance), rotation, as_array(output_bar)), covariance)

    @staticmethod
    def backward(ctx: Any, *output_bars: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("fit_rotations can be differentiated once; its gradient has no derivative of its own")
