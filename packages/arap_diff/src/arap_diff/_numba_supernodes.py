"""Triangular solves with a sparse Cholesky factor stored as dense supernodes, compiled.

A supernode is a run of columns with (nearly) the same rows below them. For each, the factor block [L11; L21] is kept as
the partitioned inverse M = [L11^-1; -L21 L11^-1], so that both sweeps are dense products: forward, the rows of the
supernode and those below gain M x1 (x1 having been taken out); backward, x1 = M^T x. M is stored in panels of four
rows, column by column within a panel and without the zeros above the diagonal, as both sweeps read it.
"""

from functools import partial

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from arap_diff._numba_lanes import Vector, load, repeat4, repeat16, spread, store
from arap_diff._team import Team
from arap_diff._workspace import Workspace
from arap_diff.mesh import FloatArray, IntArray

MOST_PADDING = 0.25  # share of explicit zeros that merging two runs of columns may store
PANEL = 4  # rows
FACES_AT_ONCE = 4  # of a batch, which share the reading of the factor
WORTH_SHARING = 10_000  # unknowns
LARGEST_SUBTREE = 0.52  # of the work of one thread, else it is opened
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
def _padded(count: int) -> int:
    return (count + PANEL - 1) // PANEL * PANEL


@njit
def _panel_size(width: int, top: int) -> int:
    """Stored columns of the panel that starts at row `top` of its supernode."""
    return min(width, top + PANEL)


@njit(cache=True)
def _pack(
    starts: IntArray, first: Index, rows: Index, values: FloatArray
) -> tuple[IntArray, Index, IntArray, FloatArray]:
    """Rows of every supernode, its own first (offsets, ids), and its panels (offsets, values).

    Heights are padded to whole panels by rows of zeros, whose id is the extra row N of the right-hand side.
    """
    n, n_nodes = first.size - 1, starts.size - 1
    row_offset = np.zeros(n_nodes + 1, dtype=np.int64)
    value_offset = np.zeros(n_nodes + 1, dtype=np.int64)
    for s in range(n_nodes):
        width = starts[s + 1] - starts[s]
        height = _padded(width + first[starts[s + 1]] - first[starts[s + 1] - 1] - 1)
        row_offset[s + 1] = row_offset[s] + height
        value_offset[s + 1] = value_offset[s]
        for top in range(0, height, PANEL):
            value_offset[s + 1] += PANEL * _panel_size(width, top)
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
            for column in range(_panel_size(width, top)):
                for row in range(top, top + PANEL):
                    packed[at] = block[column, row] if row < width else -block[column, row]
                    at += 1
    return row_offset, ids, value_offset, packed


@njit
def _forward(
    nodes: IntArray,
    starts: IntArray,
    row_offset: IntArray,
    ids: Index,
    value_offset: IntArray,
    packed: FloatArray,
    x: FloatArray,
    work: FloatArray,
    zero: Vector,
) -> None:
    lanes = x.shape[1]
    for s in nodes:
        start, width = starts[s], starts[s + 1] - starts[s]
        for k in range(width):
            store(work, k * lanes, load(x, (start + k) * lanes, zero))
            store(x, (start + k) * lanes, zero)
        at = value_offset[s]
        for top in range(row_offset[s], row_offset[s + 1], PANEL):
            y0 = y1 = y2 = y3 = zero
            for k in range(_panel_size(width, top - row_offset[s])):
                v = load(work, k * lanes, zero)
                y0 += v * spread(packed, at, zero)
                y1 += v * spread(packed, at + 1, zero)
                y2 += v * spread(packed, at + 2, zero)
                y3 += v * spread(packed, at + 3, zero)
                at += PANEL
            i0, i1, i2, i3 = ids[top] * lanes, ids[top + 1] * lanes, ids[top + 2] * lanes, ids[top + 3] * lanes
            store(x, i0, load(x, i0, zero) + y0)
            store(x, i1, load(x, i1, zero) + y1)
            store(x, i2, load(x, i2, zero) + y2)
            store(x, i3, load(x, i3, zero) + y3)


@njit
def _backward(
    nodes: IntArray,
    starts: IntArray,
    row_offset: IntArray,
    ids: Index,
    value_offset: IntArray,
    packed: FloatArray,
    x: FloatArray,
    work: FloatArray,
    zero: Vector,
) -> None:
    lanes = x.shape[1]
    for s in nodes[::-1]:
        start, width = starts[s], starts[s + 1] - starts[s]
        for k in range(width):
            store(work, k * lanes, zero)
        at = value_offset[s]
        for top in range(row_offset[s], row_offset[s + 1], PANEL):
            g0, g1 = load(x, ids[top] * lanes, zero), load(x, ids[top + 1] * lanes, zero)
            g2, g3 = load(x, ids[top + 2] * lanes, zero), load(x, ids[top + 3] * lanes, zero)
            for k in range(_panel_size(width, top - row_offset[s])):
                gained = load(work, k * lanes, zero) + g0 * spread(packed, at, zero)
                gained += g1 * spread(packed, at + 1, zero)
                gained += g2 * spread(packed, at + 2, zero)
                store(work, k * lanes, gained + g3 * spread(packed, at + 3, zero))
                at += PANEL
        for k in range(width):
            store(x, (start + k) * lanes, load(work, k * lanes, zero))


@njit(cache=True, nogil=True)
def _sweep(
    forward: bool,
    nodes: IntArray,
    starts: IntArray,
    row_offset: IntArray,
    ids: Index,
    value_offset: IntArray,
    packed: FloatArray,
    x: FloatArray,
) -> None:
    """One sweep over some supernodes, for x (N + 1, 4) or (N + 1, 16), in place."""
    lanes, widest = x.shape[1], 0
    for s in nodes:
        widest = max(widest, starts[s + 1] - starts[s])
    work = np.empty(lanes * widest)
    if lanes == 4:
        zero = repeat4(0.0)
        if forward:
            _forward(nodes, starts, row_offset, ids, value_offset, packed, x, work, zero)
        else:
            _backward(nodes, starts, row_offset, ids, value_offset, packed, x, work, zero)
    else:
        zeros = repeat16(0.0)
        if forward:
            _forward(nodes, starts, row_offset, ids, value_offset, packed, x, work, zeros)
        else:
            _backward(nodes, starts, row_offset, ids, value_offset, packed, x, work, zeros)


@njit(cache=True, nogil=True)
def _collect(points: FloatArray, order: IntArray, rows: IntArray, x: FloatArray) -> None:
    """Row i of x (N + 1, 4 B), for i in rows, becomes the rows order[i] of points (B, M, 4), side by side."""
    zero = repeat4(0.0)
    batch, n_points = points.shape[0], points.shape[1]
    for f in range(batch):
        for i in rows:
            store(x, 4 * (i * batch + f), load(points, 4 * (f * n_points + order[i]), zero))


@njit(cache=True, nogil=True)
def _distribute(x: FloatArray, order: IntArray, rows: IntArray, points: FloatArray) -> None:
    """The inverse of `_collect`."""
    zero = repeat4(0.0)
    batch, n_points = points.shape[0], points.shape[1]
    for f in range(batch):
        for i in rows:
            store(points, 4 * (f * n_points + order[i]), load(x, 4 * (i * batch + f), zero))


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
def _subtrees(parts: int, starts: IntArray, row_offset: IntArray, ids: Index, value_offset: IntArray) -> IntArray:
    """Part of every supernode, or `parts` if it depends on several: disjoint subtrees of about equal work.

    A subtree with more than its share of the whole is opened, its root left to the end; the others go, largest first,
    to the part with the least work so far.
    """
    n, n_nodes = starts[starts.size - 1], starts.size - 1
    node_of, work, parent = np.empty(n, dtype=np.int64), np.zeros(n_nodes + 1), np.full(n_nodes, n_nodes)
    for s in range(n_nodes):
        node_of[starts[s] : starts[s + 1]] = s
    for s in range(n_nodes):
        at = row_offset[s] + starts[s + 1] - starts[s]
        if at < row_offset[s + 1] and ids[at] < n:
            parent[s] = node_of[ids[at]]
    for s in range(n_nodes):
        work[s] += value_offset[s + 1] - value_offset[s]
        work[parent[s]] += work[s]
    opened = work > LARGEST_SUBTREE / parts * work[n_nodes]
    part, load_of = np.full(n_nodes, parts), np.zeros(parts)
    for s in np.argsort(-work[:n_nodes]):
        if not opened[s] and opened[parent[s]]:
            part[s] = np.argmin(load_of)
            load_of[part[s]] += work[s]
    for s in range(n_nodes - 1, -1, -1):
        if not opened[s] and not opened[parent[s]]:
            part[s] = part[parent[s]]
    return part


class SupernodalFactor:
    """Solves with L L^T, given L (CSC, lower triangular, positive diagonal).

    The elimination tree of a large matrix is cut into disjoint subtrees, some for every member of the team; each has
    sums of its own for the rows that depend on several.
    """

    def __init__(self, lower: sp.csc_matrix, team: Team) -> None:
        lower.sort_indices()
        #: (N,) the order in which the columns of `lower` are eliminated.
        self.order = _postorder(lower.indptr, lower.indices)
        place = np.argsort(self.order).astype(np.int32)
        lower = lower[:, self.order]
        lower.indices = place[lower.indices]
        lower.has_sorted_indices = False
        lower.sort_indices()
        starts = _partition(lower.indptr, lower.indices)
        self._blocks = (starts, *_pack(starts, lower.indptr, lower.indices, lower.data))
        parts = team.size if len(place) >= WORTH_SHARING else 1
        part = _subtrees(parts, *self._blocks[:4]) if parts > 1 else np.zeros(starts.size - 1, dtype=np.int64)
        shares = [
            (np.flatnonzero(part == k), np.flatnonzero(np.repeat(part, np.diff(starts)) == k)) for k in range(parts + 1)
        ]
        *self._parts, self._shared = shares
        self._team, self._workspace = team, Workspace()

    def solve(self, place: IntArray, right_hand_side: FloatArray, solution: FloatArray) -> None:
        """Solve for some rows of (B, M, 4) arrays, `place` (N,) in elimination order; other rows are left alone."""
        for faces in _groups(len(right_hand_side)):
            self._solve(place, right_hand_side[faces], solution[faces])

    def _solve(self, place: IntArray, right_hand_side: FloatArray, solution: FloatArray) -> None:
        nodes, rows = self._shared
        lanes = 4 * len(right_hand_side)
        buffers = [self._workspace.take(f"{k}, {lanes} lanes", place.size + 1, lanes) for k in range(len(self._parts))]

        def forward(k: int) -> None:
            own_nodes, own_rows = self._parts[k]
            buffers[k][rows] = 0
            buffers[k][-1] = 0
            _collect(right_hand_side, place, own_rows, buffers[k])
            _sweep(True, own_nodes, *self._blocks, buffers[k])

        def backward(k: int) -> None:
            own_nodes, own_rows = self._parts[k]
            buffers[k][rows] = x[rows]
            _sweep(False, own_nodes, *self._blocks, buffers[k])
            _distribute(buffers[k], place, own_rows, solution)

        parts = range(len(self._parts))
        self._team.run([partial(forward, k) for k in parts])
        x = buffers[0]
        if rows.size:
            gained = sum(buffer[rows] for buffer in buffers)
            _collect(right_hand_side, place, rows, x)
            x[rows] += gained
            _sweep(True, nodes, *self._blocks, x)
            _sweep(False, nodes, *self._blocks, x)
            _distribute(x, place, rows, solution)
        self._team.run([partial(backward, k) for k in parts])


def _groups(batch: int) -> list[slice]:
    """Slices of FACES_AT_ONCE faces, then of single ones."""
    together = batch - batch % FACES_AT_ONCE
    return [slice(at, at + FACES_AT_ONCE) for at in range(0, together, FACES_AT_ONCE)] + [
        slice(at, at + 1) for at in range(together, batch)
    ]
