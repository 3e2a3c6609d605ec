"""Triangular solves with a sparse Cholesky factor stored as dense supernodes, compiled.

A supernode is a run of columns with (nearly) the same rows below them. For each, the factor block [L11; L21] is kept as
the partitioned inverse M = [L11^-1; L21 L11^-1], so that both sweeps are dense matrix products over contiguous memory.
"""

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from arap_diff.mesh import FloatArray, IntArray

MOST_PADDING = 0.25  # share of explicit zeros that merging two runs of columns may store
Index = NDArray[np.int32]


@njit(cache=True)
def _partition(first: Index, rows: Index) -> IntArray:
    """First columns of the supernodes, and N; columns join their elimination parent while that pads little."""
    n = first.size - 1
    starts = np.empty(n + 1, dtype=np.int64)
    filled = np.empty(n + 1, dtype=np.int64)
    count = 0
    for column in range(n):
        starts[count], filled[count] = column, first[column + 1] - first[column]
        count += 1
        below = first[column + 1] - first[column] - 1
        while count > 1:
            child, top = count - 2, count - 1
            last = starts[top] - 1
            if first[last + 1] - first[last] < 2 or rows[first[last] + 1] != starts[top]:
                break
            width = column + 1 - starts[child]
            stored = width * below + width * (width + 1) // 2
            if stored - filled[child] - filled[top] > MOST_PADDING * stored:
                break
            filled[child] += filled[top]
            count -= 1
    starts[count] = n
    return starts[: count + 1].copy()


@njit(cache=True)
def _invert_in_place(block: FloatArray) -> None:
    """Turn [L11; L21], given by columns (width, height), into [L11^-1; L21 L11^-1]."""
    width, height = block.shape
    for column in range(width - 1, -1, -1):
        pivot = block[column, column]
        for row in range(height - 1, column, -1):
            total = 0.0 if row < width else block[column, row]
            for k in range(column + 1, min(row + 1, width)):
                total -= block[k, row] * block[column, k]
            block[column, row] = total / pivot
        block[column, column] = 1.0 / pivot


@njit(cache=True)
def _pack(
    starts: IntArray, first: Index, rows: Index, values: FloatArray
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Rows below every supernode (offsets, ids) and its partitioned inverse (offsets, values by columns)."""
    n_nodes = starts.size - 1
    row_offset = np.zeros(n_nodes + 1, dtype=np.int64)
    value_offset = np.zeros(n_nodes + 1, dtype=np.int64)
    for s in range(n_nodes):
        last, width = starts[s + 1] - 1, starts[s + 1] - starts[s]
        below = first[last + 1] - first[last] - 1
        row_offset[s + 1] = row_offset[s] + below
        value_offset[s + 1] = value_offset[s] + (below + width) * width
    below_rows = np.empty(row_offset[n_nodes], dtype=np.int64)
    packed = np.zeros(value_offset[n_nodes])
    place = np.zeros(first.size, dtype=np.int64)
    for s in range(n_nodes):
        start, stop = starts[s], starts[s + 1]
        width = stop - start
        ids = rows[first[stop - 1] + 1 : first[stop]]
        below_rows[row_offset[s] : row_offset[s + 1]] = ids
        for k in range(width):
            place[start + k] = k
        for k in range(ids.size):
            place[ids[k]] = width + k
        block = packed[value_offset[s] : value_offset[s + 1]].reshape(width, width + ids.size)
        for column in range(start, stop):
            for k in range(first[column], first[column + 1]):
                block[column - start, place[rows[k]]] = values[k]
        _invert_in_place(block)
    return row_offset, below_rows, value_offset, packed


@njit(cache=True)
def _tallest(starts: IntArray, row_offset: IntArray) -> int:
    tallest = 0
    for s in range(starts.size - 1):
        tallest = max(tallest, starts[s + 1] - starts[s] + row_offset[s + 1] - row_offset[s])
    return tallest


@njit(cache=True)
def _sweep(
    starts: IntArray,
    row_offset: IntArray,
    below_rows: IntArray,
    value_offset: IntArray,
    packed: FloatArray,
    x: FloatArray,
) -> None:
    """Solve L L^T x = b in place, x (N, C) in elimination order, by matrix products."""
    columns = x.shape[1]
    work = np.empty((_tallest(starts, row_offset), columns))
    for s in range(starts.size - 1):
        start, stop = starts[s], starts[s + 1]
        width = stop - start
        ids = below_rows[row_offset[s] : row_offset[s + 1]]
        height = width + ids.size
        block = packed[value_offset[s] : value_offset[s + 1]].reshape(width, height)
        product = work[:height]
        np.dot(block.T, x[start:stop], product)
        x[start:stop] = product[:width]
        for k in range(ids.size):
            for c in range(columns):
                x[ids[k], c] -= product[width + k, c]
    for s in range(starts.size - 2, -1, -1):
        start, stop = starts[s], starts[s + 1]
        width = stop - start
        ids = below_rows[row_offset[s] : row_offset[s + 1]]
        height = width + ids.size
        block = packed[value_offset[s] : value_offset[s + 1]].reshape(width, height)
        gathered = work[:height]
        gathered[:width] = x[start:stop]
        for k in range(ids.size):
            for c in range(columns):
                gathered[width + k, c] = -x[ids[k], c]
        np.dot(block, gathered, x[start:stop])


@njit(cache=True, fastmath={"reassoc", "contract"})
def _sweep_three(
    starts: IntArray,
    row_offset: IntArray,
    below_rows: IntArray,
    value_offset: IntArray,
    packed: FloatArray,
    x: FloatArray,
) -> None:
    """`_sweep` for the three columns of one face, where calls to a matrix product would cost more than the product."""
    work = np.empty((3, _tallest(starts, row_offset)))
    u, v, w = work[0], work[1], work[2]
    for s in range(starts.size - 1):
        start = starts[s]
        width = starts[s + 1] - start
        below, offset = row_offset[s], value_offset[s]
        height = width + row_offset[s + 1] - below
        for r in range(height):
            u[r] = v[r] = w[r] = 0.0
        column = 0
        while column + 3 < width:
            a0, a1, a2 = x[start + column, 0], x[start + column, 1], x[start + column, 2]
            b0, b1, b2 = x[start + column + 1, 0], x[start + column + 1, 1], x[start + column + 1, 2]
            c0, c1, c2 = x[start + column + 2, 0], x[start + column + 2, 1], x[start + column + 2, 2]
            d0, d1, d2 = x[start + column + 3, 0], x[start + column + 3, 1], x[start + column + 3, 2]
            m = packed[offset + column * height : offset + (column + 4) * height].reshape(4, height)
            for r in range(height):
                u[r] += m[0, r] * a0 + m[1, r] * b0 + m[2, r] * c0 + m[3, r] * d0
                v[r] += m[0, r] * a1 + m[1, r] * b1 + m[2, r] * c1 + m[3, r] * d1
                w[r] += m[0, r] * a2 + m[1, r] * b2 + m[2, r] * c2 + m[3, r] * d2
            column += 4
        while column < width:
            a0, a1, a2 = x[start + column, 0], x[start + column, 1], x[start + column, 2]
            line = packed[offset + column * height : offset + (column + 1) * height]
            for r in range(height):
                u[r] += line[r] * a0
                v[r] += line[r] * a1
                w[r] += line[r] * a2
            column += 1
        for r in range(width):
            x[start + r, 0], x[start + r, 1], x[start + r, 2] = u[r], v[r], w[r]
        for r in range(width, height):
            row = below_rows[below + r - width]
            x[row, 0] -= u[r]
            x[row, 1] -= v[r]
            x[row, 2] -= w[r]
    for s in range(starts.size - 2, -1, -1):
        start = starts[s]
        width = starts[s + 1] - start
        below, offset = row_offset[s], value_offset[s]
        height = width + row_offset[s + 1] - below
        for r in range(width):
            u[r], v[r], w[r] = x[start + r, 0], x[start + r, 1], x[start + r, 2]
        for r in range(width, height):
            row = below_rows[below + r - width]
            u[r], v[r], w[r] = -x[row, 0], -x[row, 1], -x[row, 2]
        for column in range(width):
            m = packed[offset + column * height : offset + (column + 1) * height]
            a0 = a1 = a2 = 0.0
            for r in range(height):
                a0 += m[r] * u[r]
                a1 += m[r] * v[r]
                a2 += m[r] * w[r]
            x[start + column, 0], x[start + column, 1], x[start + column, 2] = a0, a1, a2


class SupernodalFactor:
    """Solves with L L^T, given L (CSC, lower triangular, positive diagonal)."""

    def __init__(self, lower: sp.csc_matrix) -> None:
        lower.sort_indices()
        self._starts = _partition(lower.indptr, lower.indices)
        self._blocks = _pack(self._starts, lower.indptr, lower.indices, lower.data)

    def solve_in_place(self, x: FloatArray) -> None:
        """Replace the right-hand sides x (N, C), in elimination order and C-contiguous, by the solutions."""
        sweep = _sweep_three if x.shape[1] == 3 else _sweep
        sweep(self._starts, *self._blocks, x)
