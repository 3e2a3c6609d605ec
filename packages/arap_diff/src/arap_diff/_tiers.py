"""The prepared system of one solver on one device: what the autograd functions call, with tensors in and out.

Two tiers stand behind one interface: NumPy or numba on the CPU, and torch operations on any other device.
"""

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from arap_diff._alternation import Alternation
from arap_diff.mesh import FloatArray

Backend = Literal["auto", "numpy", "numba", "torch"]


class Tier(Protocol):
    """Deformation of rest poses p (B, V, 3) towards handle positions h (B, K, 3), float64 tensors on one device.

    Gradients are of a loss whose gradient with respect to the result is given; the one with respect to p is None
    unless it is wanted.
    """

    def unrolled(self, p: Tensor, h: Tensor, n_solves: int, keep: bool) -> tuple[Tensor, ...]:
        """Deformed positions (B, V, 3), and where `keep` is true what `unrolled_adjoint` needs, batch first."""
        ...

    def unrolled_adjoint(
        self, p: Tensor, kept: tuple[Tensor, ...], x_bar: Tensor, rest_wanted: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Gradients with respect to p and h."""
        ...

    def rotations(self, p: Tensor, x: Tensor) -> Tensor:
        """Best rotations from p to x, in a layout of the tier's own."""
        ...

    def advance(self, p: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """Positions after one more rotation fit and solve, F(x, p, h)."""
        ...

    def advance_adjoint(
        self, p: Tensor, x: Tensor, rotation: Tensor, y_bar: Tensor, rest_wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Gradients of F(x, p, h) with respect to x, p and h, given the rotations from p to x."""
        ...


class CpuTier:
    """NumPy or numba, whichever the alternation runs on."""

    def __init__(self, alternation: Alternation) -> None:
        self._alternation = alternation

    def unrolled(self, p: Tensor, h: Tensor, n_solves: int, keep: bool) -> tuple[Tensor, ...]:
        """See `Tier`."""
        x, positions, rotations = self._alternation.deform(_array(p), _array(h), n_solves, keep)
        return tuple(torch.from_numpy(array) for array in (x, *positions, *rotations))

    def unrolled_adjoint(
        self, p: Tensor, kept: tuple[Tensor, ...], x_bar: Tensor, rest_wanted: bool
    ) -> tuple[Tensor | None, Tensor]:
        """See `Tier`."""
        arrays = [_array(tensor) for tensor in kept]
        fits = len(arrays) // 2
        p_bar, h_bar = self._alternation.deform_adjoint(
            _array(p), arrays[:fits], arrays[fits:], _array(x_bar), rest_wanted
        )
        return _tensor(p_bar), torch.from_numpy(h_bar)

    def rotations(self, p: Tensor, x: Tensor) -> Tensor:
        """See `Tier`."""
        return torch.from_numpy(self._alternation.rotations(_array(p), _array(x)))

    def advance(self, p: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """See `Tier`."""
        return torch.from_numpy(self._alternation.advance(_array(p), _array(h), _array(x)))

    def advance_adjoint(
        self, p: Tensor, x: Tensor, rotation: Tensor, y_bar: Tensor, rest_wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """See `Tier`."""
        x_bar, p_bar, h_bar = self._alternation.advance_adjoint(
            _array(p), _array(x), _array(rotation), _array(y_bar), rest_wanted
        )
        return torch.from_numpy(x_bar), _tensor(p_bar), torch.from_numpy(h_bar)


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().numpy())


def _tensor(array: FloatArray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)
