"""The alternation of linear solves and rotation fits, and its exact adjoint, on NumPy arrays.

The unknown is the displacement u = x - p, so that the rest pose is a fixed point to the last bit. With d(R) the rotated
Laplacian coordinates and b = d(R) - L p, each solve is A u = K b, see `System`.
"""

from typing import Protocol

import numpy as np

from arap_diff._factor import Factor, StoredFactor, SuperLuFactor
from arap_diff._numpy_kernels import NumpyKernels
from arap_diff._system import System
from arap_diff.mesh import FloatArray


class Alternation(Protocol):
    """Deformation of rest poses p (B, V, 3) towards handle positions h (B, K, 3); rotations in a layout of its own.

    Gradients are of a loss whose gradient with respect to the result is given; the one with respect to p, which costs
    about as much as the rest, is None unless it is wanted.
    """

    @property
    def factor(self) -> Factor:
        """Of A_ff, see `System`."""
        ...

    @property
    def stored_factor(self) -> StoredFactor | None:
        """The factor as arrays, where it can be taken apart."""
        ...

    def deform(
        self, p: FloatArray, h: FloatArray, n_solves: int, keep: bool
    ) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """Deformed positions, and with `keep` the positions and the rotations of every fit."""
        ...

    def deform_adjoint(
        self,
        p: FloatArray,
        positions: list[FloatArray],
        rotations: list[FloatArray],
        x_bar: FloatArray,
        rest_wanted: bool,
    ) -> tuple[FloatArray | None, FloatArray]:
        """Gradients with respect to p and h."""
        ...

    def rotations(self, p: FloatArray, x: FloatArray) -> FloatArray:
        """Best rotations from p to x."""
        ...

    def advance(self, p: FloatArray, h: FloatArray, x: FloatArray) -> FloatArray:
        """Positions after one more fit and solve, F(x, p, h)."""
        ...

    def advance_adjoint(
        self, p: FloatArray, x: FloatArray, rotation: FloatArray, y_bar: FloatArray, rest_wanted: bool
    ) -> tuple[FloatArray, FloatArray | None, FloatArray]:
        """Gradients of F with respect to x, p and h, given the rotations from p to x."""
        ...


class NumpyAlternation:
    """`Alternation` on SciPy's factor and products; rotations are (B, V, 3, 3)."""

    stored_factor: StoredFactor | None = None  # SuperLU's cannot be put together again

    def __init__(self, system: System) -> None:
        self.factor: Factor = SuperLuFactor(system.block())
        self._kernels = NumpyKernels(system.edges, system.n_vertices)
        self._free, self._handles = system.free, system.handles
        self._smoothing = system.smoothing()
        self._to_handles = system.rows()[:, system.handles].tocsr()

    def deform(
        self, p: FloatArray, h: FloatArray, n_solves: int, keep: bool
    ) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
        """See `Alternation`."""
        held = self._held(p, h)
        x = self._place(p, h, self.factor.solve(held))
        positions, rotations = [], []
        for _ in range(n_solves - 1):
            rotation = self._kernels.rotations(x, p)
            if keep:
                positions.append(x)
                rotations.append(rotation)
            x = self._solve(p, h, rotation, held)
        return x, positions, rotations

    def deform_adjoint(
        self,
        p: FloatArray,
        positions: list[FloatArray],
        rotations: list[FloatArray],
        x_bar: FloatArray,
        rest_wanted: bool,
    ) -> tuple[FloatArray | None, FloatArray]:
        """See `Alternation`."""
        p_bar = np.zeros_like(p)
        h_bar = np.zeros((len(p), self._handles.size, 3))
        for x, rotation in zip(reversed(positions), reversed(rotations), strict=True):
            b_bar = self._release(x_bar, p_bar, h_bar)
            x_bar = self._pull_back(p, x, rotation, b_bar, p_bar if rest_wanted else None)
        self._release(x_bar, p_bar, h_bar)
        return p_bar if rest_wanted else None, h_bar

    def rotations(self, p: FloatArray, x: FloatArray) -> FloatArray:
        """See `Alternation`."""
        return self._kernels.rotations(x, p)

    def advance(self, p: FloatArray, h: FloatArray, x: FloatArray) -> FloatArray:
        """See `Alternation`."""
        return self._solve(p, h, self._kernels.rotations(x, p), self._held(p, h))

    def advance_adjoint(
        self, p: FloatArray, x: FloatArray, rotation: FloatArray, y_bar: FloatArray, rest_wanted: bool
    ) -> tuple[FloatArray, FloatArray | None, FloatArray]:
        """See `Alternation`."""
        p_bar = np.zeros_like(p)
        h_bar = np.zeros((len(p), self._handles.size, 3))
        b_bar = self._release(y_bar, p_bar, h_bar)
        x_bar = self._pull_back(p, x, rotation, b_bar, p_bar if rest_wanted else None)
        return x_bar, p_bar if rest_wanted else None, h_bar

    def _held(self, p: FloatArray, h: FloatArray) -> FloatArray:
        """What the handle steps add to the right-hand side (N, 3 B)."""
        return -(self._to_handles @ _columns(h - p[:, self._handles]))

    def _solve(self, p: FloatArray, h: FloatArray, rotation: FloatArray, held: FloatArray) -> FloatArray:
        b = self._kernels.rotated_residual(rotation, p)
        return self._place(p, h, self.factor.solve(held + self._smoothing @ _columns(b)))

    def _place(self, p: FloatArray, h: FloatArray, displacement: FloatArray) -> FloatArray:
        x = p.copy()
        x[:, self._free] += _batched(displacement, len(p))
        x[:, self._handles] = h
        return x

    def _release(self, x_bar: FloatArray, p_bar: FloatArray, h_bar: FloatArray) -> FloatArray:
        """Adjoint of a solve and of `_place`: adds to p_bar and h_bar, returns the gradient of the residual b."""
        multiplier = self.factor.solve(_columns(x_bar[:, self._free]))
        step_bar = _batched(self._to_handles.T @ multiplier, len(x_bar))
        h_bar += x_bar[:, self._handles] - step_bar
        moves = x_bar.copy()
        moves[:, self._handles] = step_bar
        p_bar += moves
        return _batched(self._smoothing.T @ multiplier, len(x_bar))

    def _pull_back(
        self, p: FloatArray, x: FloatArray, rotation: FloatArray, b_bar: FloatArray, p_bar: FloatArray | None
    ) -> FloatArray:
        """Gradient with respect to x; the one with respect to p is added to p_bar."""
        covariance_bar = self._kernels.covariance_bar(x, p, rotation, b_bar)
        if p_bar is not None:
            p_bar += self._kernels.rest_bar(x, rotation, covariance_bar, b_bar)
        return self._kernels.position_bar(p, covariance_bar)


def _columns(batched: FloatArray) -> FloatArray:
    """(B, N, 3) as the (N, 3B) columns of one solve."""
    batch, rows, _ = batched.shape
    return batched.transpose(1, 0, 2).reshape(rows, 3 * batch)


def _batched(columns: FloatArray, batch: int) -> FloatArray:
    """The inverse of `_columns`."""
    return np.ascontiguousarray(columns.reshape(columns.shape[0], batch, 3).transpose(1, 0, 2))
