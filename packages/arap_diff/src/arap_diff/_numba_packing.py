"""A sparse Cholesky factor as dense supernodes, compiled.

A supernode is a run of columns with (nearly) the same rows below them. For each, the factor block [L11; L21] is kept as
the partitioned inverse M = [L11^-1; -L21 L11^-1], so that both sweeps of a solve are dense products. M is stored in
panels of four rows, column by column within a panel and without the zeros above the diagonal, as both sweeps read it.
"""

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from arap_diff._factor import PANEL, StoredFactor, symmetric_lu, value_offsets
from arap_diff._numba_lanes import load, repeat4, store
from arap_diff.mesh import FloatArray, IntArray

MOST_PADDING = 0.25  # share of explicit zeros that merging two runs of columns may store
Index = NDArray[np.int32]


def factorise(matrix: sp.csc_matrix) -> StoredFactor:
    """SuperLU's factor of a symmetric positive definite matrix, in supernodes."""
    superlu = symmetric_lu(matrix)
    lower = (superlu.L @ sp.diags(np.sqrt(superlu.U.diagonal()))).tocsc()
    lower.sort_indices()
    order = _postorder(lower.indptr, lower.indices)
    lower = lower[:, order]
    lower.indices = np.argsort(order).astype(np.int32)[lower.indices]
    lower.has_sorted_indices = False
    lower.sort_indices()
    starts = _partition(lower.indptr, lower.indices)
    widths, last = np.diff(starts), starts[1:] - 1
    heights = -(-(widths + np.diff(lower.indptr)[last] - 1) // PANEL) * PANEL
    row_offset = np.concatenate([[0], np.cumsum(heights)])
    ids, packed = _pack(starts, row_offset, value_offsets(widths, heights), lower.indptr, lower.indices, lower.data)
    return StoredFactor(np.argsort(superlu.perm_c)[order], widths, heights, ids, packed)


@njit(cache=True)
def _postorder(first: Index, rows: Index) -> IntArray:
    """The columns in an order with every subtree of the elimination tree in one run, ending in its root."""
    n = first.size - 1
    child, sibling = np.full(n + 1, -1), np.full(n, -1)
    for column in range(n - 1, -1, -1):
        parent = rows[first[column] + 1] if first[column + 1] - first[column] > 1 else n
        sibling[column], child[parent] = child[parent], column
    order, stack = np.empty(n, dtype=np.int64), np.empty(n + 1, dtype=np.int64)
    stack[0], depth, done = n, 1, 0
    while depth > 0:
        top = stack[depth - 1]
        if child[top] >= 0:
            stack[depth], child[top] = child[top], sibling[child[top]]
            depth += 1
        else:
            depth -= 1
            if top < n:
                order[done] = top
                done += 1
    return order


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


@njit
def _invert_in_place(block: FloatArray, multipliers: FloatArray) -> None:
    """Turn [L11; L21], given by columns (width, height), into [L11^-1; L21 L11^-1]; height is a multiple of PANEL."""
    width, height = block.shape
    like = repeat4(0.0)
    for column in range(width - 1, -1, -1):
        inverse = 1.0 / block[column, column]
        for k in range(column + 1, width):
            multipliers[k] = block[column, k]
            block[column, k] = 0.0
        block[column, column] = 1.0
        for k in range(column + 1, width):
            for row in range(k // PANEL * PANEL, height, PANEL):
                at = column * height + row
                store(block, at, load(block, at, like) - load(block, k * height + row, like) * multipliers[k])
        for row in range(column // PANEL * PANEL, height, PANEL):
            store(block, column * height + row, load(block, column * height + row, like) * inverse)


@njit
def panel_size(width: int, top: int) -> int:
    """Stored columns of the panel that starts at row `top` of its supernode."""
    return min(width, top + PANEL)


@njit(cache=True)
def _pack(
    starts: IntArray,
    row_offset: IntArray,
    value_offset: IntArray,
    first: Index,
    rows: Index,
    values: FloatArray,
) -> tuple[Index, FloatArray]:
    """Rows of every supernode, its own first, and the values of its panels.

    Heights are padded to whole panels by rows of zeros, whose id is the extra row N of the right-hand side.
    """
    n, n_nodes = first.size - 1, starts.size - 1
    ids = np.full(row_offset[n_nodes], n, dtype=np.int32)
    packed = np.empty(value_offset[n_nodes])
    place, multipliers = np.zeros(n, dtype=np.int64), np.empty(n)
    for s in range(n_nodes):
        start, stop = starts[s], starts[s + 1]
        width, height = stop - start, row_offset[s + 1] - row_offset[s]
        own = ids[row_offset[s] : row_offset[s + 1]]
        for k in range(width):
            own[k] = start + k
        for k in range(first[stop - 1] + 1, first[stop]):
            own[width + k - first[stop - 1] - 1] = rows[k]
        block = np.zeros((width, height))
        for k in range(height):
            if own[k] < n:
                place[own[k]] = k
        for column in range(start, stop):
            for k in range(first[column], first[column + 1]):
                block[column - start, place[rows[k]]] = values[k]
        _invert_in_place(block, multipliers)
        at = value_offset[s]
        for top in range(0, height, PANEL):
            for column in range(panel_size(width, top)):
                for row in range(top, top + PANEL):
                    packed[at] = block[column, row] if row < width else -block[column, row]
                    at += 1
    return ids, packed
