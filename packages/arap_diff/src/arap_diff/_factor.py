"""The sparse factor of the free block: SuperLU's, the solve with it, and the form in which it is stored."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU, splu

from arap_diff.mesh import FloatArray, IntArray

PANEL = 4  # rows


class Factor(Protocol):
    """A factored symmetric positive definite matrix."""

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """Solution of A x = b for all columns of `right_hand_side` (N, C) at once; the argument is left alone."""
        ...


class SuperLuFactor:
    """SciPy's SuperLU in symmetric mode with minimum degree ordering."""

    def __init__(self, matrix: sp.csc_matrix) -> None:
        self._superlu = symmetric_lu(matrix) if matrix.shape[0] else None

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """See `Factor`."""
        if self._superlu is None:
            return right_hand_side.copy()
        return self._superlu.solve(np.asfortranarray(right_hand_side))


@dataclass(frozen=True)
class StoredFactor:
    """A Cholesky factor of N unknowns as S supernodes, see `_numba_packing`: plain arrays, in elimination order.

    A supernode has `widths` (S,) columns, and `heights` (S,) rows, its own first, in whole panels; `ids` are those of
    all rows, N for padding, and `packed` the values of all panels. `order` (N,) is the unknown of every column.
    """

    order: IntArray
    widths: IntArray
    heights: IntArray
    ids: NDArray[np.int32]
    packed: FloatArray

    @property
    def starts(self) -> IntArray:
        """(S + 1,) first columns, and N."""
        return _offsets(self.widths)

    @property
    def row_offset(self) -> IntArray:
        """(S + 1,) where the rows of a supernode begin in `ids`."""
        return _offsets(self.heights)

    @property
    def value_offset(self) -> IntArray:
        """(S + 1,) where the values of a supernode begin in `packed`."""
        return value_offsets(self.widths, self.heights)

    def check(self, n_unknowns: int) -> None:
        """ValueError unless the arrays fit together, so that compiled loops stay inside them."""
        fits = (
            all(array.ndim == 1 and array.dtype == np.int64 for array in (self.order, self.widths, self.heights))
            and (self.ids.ndim, self.ids.dtype, self.packed.ndim, self.packed.dtype) == (1, np.int32, 1, np.float64)
            and np.array_equal(np.sort(self.order), np.arange(n_unknowns))
            and self.widths.shape == self.heights.shape
            and bool((self.widths > 0).all() and (self.heights >= self.widths).all())
            and bool((self.heights <= n_unknowns + PANEL).all() and (self.heights % PANEL == 0).all())
            and self.widths.sum() == n_unknowns
            and (self.ids.size, self.packed.size) == (self.row_offset[-1], self.value_offset[-1])
            and bool(((self.ids >= 0) & (self.ids <= n_unknowns)).all())
        )
        if not fits:
            raise ValueError("the arrays of the factor do not fit together")


def value_offsets(widths: IntArray, heights: IntArray) -> IntArray:
    """Offsets of the packed values: the panel from row r on stores the min(width, r + PANEL) columns it reaches."""
    triangular = widths // PANEL
    columns = PANEL * triangular * (triangular + 1) // 2 + (heights // PANEL - triangular) * widths
    return _offsets(PANEL * columns)


def symmetric_lu(matrix: sp.csc_matrix) -> SuperLU:
    """LU without row exchanges, so that U = D L^T."""
    lu = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    if not np.array_equal(lu.perm_r, lu.perm_c) or not (lu.U.diagonal() > 0).all():
        raise ArithmeticError("the free block is not positive definite to working precision")
    return lu


def _offsets(sizes: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes)])
