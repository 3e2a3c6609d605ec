"""The prepared system of one solver on one device: what the autograd functions call, with tensors in and out.

Two tiers stand behind one interface: NumPy or numba on the CPU, and torch operations on any other device.
"""

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from arap_diff._unrolled import System, Tape, _batched, _columns, _place, _release, deform, deform_adjoint
from arap_diff.mesh import FloatArray

Backend = Literal["auto", "numpy", "numba", "torch"]


class Tier(Protocol):
    """Deformation of rest poses p (B, V, 3) towards handle positions h (B, K, 3), float64 tensors on one device."""

    def unrolled(self, p: Tensor, h: Tensor, n_solves: int, keep: bool) -> tuple[Tensor, ...]:
        """Deformed positions (B, V, 3), and where `keep` is true what `unrolled_adjoint` needs, batch first."""
        ...

    def unrolled_adjoint(self, p: Tensor, kept: tuple[Tensor, ...], x_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients with respect to p and h, given the one with respect to the deformed positions."""
        ...

    def advance(self, p: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """Positions after one more rotation fit and solve, F(x, p, h)."""
        ...

    def advance_adjoint(self, p: Tensor, x: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to x, p and h, given the one with respect to F(x, p, h)."""
        ...


class CpuTier:
    """NumPy or numba, whichever the system was built on."""

    def __init__(self, system: System) -> None:
        self._system = system

    def unrolled(self, p: Tensor, h: Tensor, n_solves: int, keep: bool) -> tuple[Tensor, ...]:
        """See `Tier`."""
        tape = Tape() if keep else None
        x = deform(self._system, _array(p), _array(h), n_solves, tape)
        kept = (*tape.positions, *tape.rotations) if tape else ()
        return tuple(torch.from_numpy(array) for array in (x, *kept))

    def unrolled_adjoint(self, p: Tensor, kept: tuple[Tensor, ...], x_bar: Tensor) -> tuple[Tensor, Tensor]:
        """See `Tier`."""
        arrays = [_array(tensor) for tensor in kept]
        fits = len(arrays) // 2
        p_bar, h_bar = deform_adjoint(self._system, _array(p), Tape(arrays[:fits], arrays[fits:]), _array(x_bar))
        return torch.from_numpy(p_bar), torch.from_numpy(h_bar)

    def advance(self, p: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """See `Tier`."""
        system, rest, held = self._system, _array(p), _array(h)
        residual = system.kernels.rotated_residual(system.kernels.rotations(_array(x), rest), rest)
        right = system.smoothing @ _columns(residual) - system.to_handles @ _columns(held - rest[:, system.handles])
        return torch.from_numpy(_place(system, rest, held, system.factor.solve(right)))

    def advance_adjoint(self, p: Tensor, x: Tensor, y_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Tier`."""
        system, rest, now = self._system, _array(p), _array(x)
        p_bar, h_bar = np.zeros_like(rest), np.zeros((len(rest), system.handles.size, 3))
        multiplier = _release(system, _array(y_bar), p_bar, h_bar)
        step_bar = _batched(system.from_handles @ multiplier, len(rest))
        h_bar -= step_bar
        p_bar[:, system.handles] += step_bar
        b_bar = _batched(system.smoothing_transposed @ multiplier, len(rest))
        x_bar, p_step = system.kernels.pull_back(now, rest, system.kernels.rotations(now, rest), b_bar)
        return torch.from_numpy(x_bar), torch.from_numpy(p_bar + p_step), torch.from_numpy(h_bar)


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().numpy())
