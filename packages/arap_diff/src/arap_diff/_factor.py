"""The sparse factor of the free block, and the solve with it."""

from typing import Protocol

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import SuperLU, splu

from arap_diff._team import Team
from arap_diff.mesh import FloatArray


class Factor(Protocol):
    """A factored symmetric positive definite matrix."""

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """Solution of A x = b for all columns of `right_hand_side` (N, C) at once; the argument is left alone."""
        ...


class SuperLuFactor:
    """SciPy's SuperLU in symmetric mode with minimum degree ordering."""

    def __init__(self, matrix: sp.csc_matrix) -> None:
        self._superlu = _symmetric_lu(matrix)

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """See `Factor`."""
        return self._superlu.solve(np.asfortranarray(right_hand_side))


class SupernodalFactorisation:
    """SuperLU's factor, solved with by the compiled supernodal sweeps.

    `order` (N,) is the elimination order, in which `lower` is, and `team` works on it.
    """

    def __init__(self, matrix: sp.csc_matrix) -> None:
        from arap_diff._numba_supernodes import SupernodalFactor

        superlu = _symmetric_lu(matrix)
        self.team = Team()
        self.lower = SupernodalFactor((superlu.L @ sp.diags(np.sqrt(superlu.U.diagonal()))).tocsc(), self.team)
        self.order = np.argsort(superlu.perm_c)[self.lower.order]

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """See `Factor`."""
        n, columns = right_hand_side.shape
        padded = np.zeros((n, -(-columns // 4) * 4))
        padded[:, :columns] = right_hand_side
        points = np.ascontiguousarray(padded.reshape(n, -1, 4).transpose(1, 0, 2))
        self.lower.solve(self.order, points, points)
        return np.ascontiguousarray(points.transpose(1, 0, 2).reshape(n, -1)[:, :columns])


class EmptyFactor:
    """Of the system without unknowns: every vertex is a handle."""

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """See `Factor`."""
        return right_hand_side.copy()


def factorise(matrix: sp.csc_matrix, backend: str) -> Factor:
    """Factor of a symmetric positive definite matrix for a resolved backend."""
    if matrix.shape[0] == 0:
        return EmptyFactor()
    if backend == "numba":
        return SupernodalFactorisation(matrix)
    return SuperLuFactor(matrix)


def _symmetric_lu(matrix: sp.csc_matrix) -> SuperLU:
    """LU without row exchanges, so that U = D L^T."""
    lu = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    if not np.array_equal(lu.perm_r, lu.perm_c) or not (lu.U.diagonal() > 0).all():
        raise ArithmeticError("the free block is not positive definite to working precision")
    return lu
