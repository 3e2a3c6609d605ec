"""The alternation of linear solves and rotation fits, and its exact adjoint, on NumPy arrays.

The unknown is the displacement u = x - p, so that the rest pose is a fixed point to the last bit. With d(R) the rotated
Laplacian coordinates, b = d(R) - L p, and K = L (bi-Laplacian) or I (edges), each solve is A u = K b with A = K L.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from arap_diff._factor import Factor
from arap_diff.mesh import FloatArray, IntArray


class Kernels(Protocol):
    """The local step; see the NumPy version for what each method computes."""

    def rotations(self, x: FloatArray, p: FloatArray) -> FloatArray: ...
    def rotated_residual(self, rotation: FloatArray, p: FloatArray) -> FloatArray: ...
    def pull_back(
        self, x: FloatArray, p: FloatArray, rotation: FloatArray, b_bar: FloatArray
    ) -> tuple[FloatArray, FloatArray]: ...


class Alternation(Protocol):
    """`deform` and `deform_adjoint` in a compiled form, with positions and rotations in a layout of its own."""

    def deform(
        self, p: FloatArray, h: FloatArray, n_solves: int, keep: bool
    ) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]: ...
    def deform_adjoint(
        self, p: FloatArray, positions: list[FloatArray], rotations: list[FloatArray], x_bar: FloatArray
    ) -> tuple[FloatArray, FloatArray]: ...


@dataclass
class Tape:
    """Positions and rotations of every rotation fit, kept for the adjoint; the batch is the first dimension.

    They are (B, V, 3) and (B, V, 3, 3), unless an `Alternation` wrote them.
    """

    positions: list[FloatArray] = field(default_factory=list)
    rotations: list[FloatArray] = field(default_factory=list)


@dataclass(frozen=True)
class System:
    """The linear system A u = K b of one topology, one set of handles and one energy, with the handles eliminated.

    `free` (N,) and `handles` (K,) are vertex ids; `factor` is of A_ff; `to_handles` is A_fh and `smoothing` K_f, both
    with their transposes at hand. A vertex in no face is in neither list, and stays where it is. `compiled` does the
    same as the functions below, faster.
    """

    free: IntArray
    handles: IntArray
    factor: Factor
    kernels: Kernels
    to_handles: sp.csr_matrix
    from_handles: sp.csr_matrix
    smoothing: sp.csr_matrix
    smoothing_transposed: sp.csr_matrix
    compiled: Alternation | None = None


def deform(system: System, p: FloatArray, h: FloatArray, n_solves: int, tape: Tape | None = None) -> FloatArray:
    """Deformed positions (B, V, 3) of rest p (B, V, 3) and handle positions h (B, K, 3); fills a given `tape`."""
    if system.compiled is not None:
        x, positions, rotations = system.compiled.deform(p, h, n_solves, keep=tape is not None)
        if tape is not None:
            tape.positions += positions
            tape.rotations += rotations
        return x
    held = -(system.to_handles @ _columns(h - p[:, system.handles]))
    x = _place(system, p, h, system.factor.solve(held))
    for _ in range(n_solves - 1):
        rotation = system.kernels.rotations(x, p)
        if tape is not None:
            tape.positions.append(x)
            tape.rotations.append(rotation)
        b = system.kernels.rotated_residual(rotation, p)
        x = _place(system, p, h, system.factor.solve(held + system.smoothing @ _columns(b)))
    return x


def deform_adjoint(system: System, p: FloatArray, tape: Tape, x_bar: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradients with respect to p (B, V, 3) and h (B, K, 3), given the one with respect to the deformed positions."""
    if system.compiled is not None:
        return system.compiled.deform_adjoint(p, tape.positions, tape.rotations, x_bar)
    batch = len(p)
    p_bar = np.zeros_like(p)
    h_bar = np.zeros((batch, system.handles.size, 3))
    held_bar = np.zeros((system.free.size, 3 * batch))
    for x, rotation in zip(reversed(tape.positions), reversed(tape.rotations), strict=True):
        multiplier = _release(system, x_bar, p_bar, h_bar)
        held_bar += multiplier
        b_bar = _batched(system.smoothing_transposed @ multiplier, batch)
        x_bar, p_step = system.kernels.pull_back(x, p, rotation, b_bar)
        p_bar += p_step
    held_bar += _release(system, x_bar, p_bar, h_bar)
    handle_step_bar = -_batched(system.from_handles @ held_bar, batch)
    h_bar += handle_step_bar
    p_bar[:, system.handles] -= handle_step_bar
    return p_bar, h_bar


def _place(system: System, p: FloatArray, h: FloatArray, displacement: FloatArray) -> FloatArray:
    x = p.copy()
    x[:, system.free] += _batched(displacement, len(p))
    x[:, system.handles] = h
    return x


def _release(system: System, x_bar: FloatArray, p_bar: FloatArray, h_bar: FloatArray) -> FloatArray:
    """Adjoint of `_place` and of the solve before it: adds to p_bar and h_bar, returns the multiplier (N, 3B)."""
    moves = x_bar.copy()
    moves[:, system.handles] = 0
    p_bar += moves
    h_bar += x_bar[:, system.handles]
    return system.factor.solve(_columns(x_bar[:, system.free]))


def _columns(batched: FloatArray) -> FloatArray:
    """(B, N, 3) as the (N, 3B) columns of one solve."""
    return batched.transpose(1, 0, 2).reshape(batched.shape[1], -1)


def _batched(columns: FloatArray, batch: int) -> FloatArray:
    """The inverse of `_columns`."""
    return np.ascontiguousarray(columns.reshape(columns.shape[0], batch, 3).transpose(1, 0, 2))
