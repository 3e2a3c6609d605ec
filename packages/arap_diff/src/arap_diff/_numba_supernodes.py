"""Triangular solves with a Cholesky factor in dense supernodes, compiled; see `_numba_packing`.

Forward, the rows of a supernode and those below gain M x1, x1 having been taken out; backward, x1 = M^T x.
"""

from functools import partial

import numpy as np
from numba import njit

from arap_diff._factor import PANEL, StoredFactor
from arap_diff._numba_lanes import Vector, load, repeat4, repeat16, spread, store
from arap_diff._numba_packing import Index, panel_size
from arap_diff._team import Team
from arap_diff._workspace import Workspace
from arap_diff.mesh import FloatArray, IntArray

FACES_AT_ONCE = 4  # of a batch, which share the reading of the factor
WORTH_SHARING = 10_000  # unknowns
LARGEST_SUBTREE = 0.52  # of the work of one thread, else it is opened


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
            for k in range(panel_size(width, top - row_offset[s])):
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
            for k in range(panel_size(width, top - row_offset[s])):
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
    """Solves with a stored factor, which `team` shares.

    The elimination tree of a large matrix is cut into disjoint subtrees, some for every member of the team; each has
    sums of its own for the rows that depend on several.
    """

    def __init__(self, stored: StoredFactor, team: Team) -> None:
        self._order, starts = stored.order, stored.starts
        self._blocks = starts, stored.row_offset, stored.ids, stored.value_offset, stored.packed
        parts = team.size if len(stored.order) >= WORTH_SHARING else 1
        part = _subtrees(parts, *self._blocks[:4]) if parts > 1 else np.zeros(starts.size - 1, dtype=np.int64)
        shares = [
            (np.flatnonzero(part == k), np.flatnonzero(np.repeat(part, stored.widths) == k)) for k in range(parts + 1)
        ]
        *self._parts, self._shared = shares
        self._team, self._workspace = team, Workspace()

    def solve(self, right_hand_side: FloatArray) -> FloatArray:
        """See `Factor`."""
        n, columns = right_hand_side.shape
        padded = np.zeros((n, -(-columns // 4) * 4))
        padded[:, :columns] = right_hand_side
        points = np.ascontiguousarray(padded.reshape(n, -1, 4).transpose(1, 0, 2))
        self.solve_points(self._order, points, points)
        return np.ascontiguousarray(points.transpose(1, 0, 2).reshape(n, -1)[:, :columns])

    def solve_points(self, place: IntArray, right_hand_side: FloatArray, solution: FloatArray) -> None:
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
