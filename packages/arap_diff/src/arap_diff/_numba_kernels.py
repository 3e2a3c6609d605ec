"""Local step of the deformation as compiled loops over vertices and their neighbours; twin of `_numpy_kernels`.

Shapes: points x, p, b and unit quaternions q are (B, M, 4), with a zero after the three coordinates; matrices r, s are
(B, M, 3, 4), row by row with a zero after each, so that a point or a row is one vector. A ring (first, neighbour,
weight) lists the weighted neighbours of every vertex. Kernels work on the vertices lo <= i < hi of every face.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from arap_diff._numba_blocks import (
    BLOCK,
    fit_block,
    fit_quaternions,
    load_block,
    rotate_block,
    rotations_of,
    store_block,
)
from arap_diff._numba_lanes import Vector, gather, lane, load, repeat4, repeat8, scatter, store
from arap_diff._numba_rotations import Three, adjoint
from arap_diff.mesh import Edges, FloatArray, IntArray

Ring = tuple[IntArray, NDArray[np.int32], FloatArray]


def ring_of(edges: Edges, n_vertices: int) -> Ring:
    """Neighbours of vertex i: `neighbour[first[i]:first[i + 1]]`, ascending, with the weights of the edges to them."""
    start = np.concatenate([edges.start, edges.end])
    end = np.concatenate([edges.end, edges.start])
    order = np.lexsort((end, start))
    first = np.concatenate([[0], np.cumsum(np.bincount(start, minlength=n_vertices))])
    return first, end[order].astype(np.int32), np.tile(edges.weight, 2)[order]


@njit(cache=True, nogil=True)
def load_points(lo: int, hi: int, points: FloatArray, order: IntArray, out: FloatArray) -> None:
    """Row i of out (B, M, 4) becomes row order[i] of points (B, V, 3)."""
    for f in range(points.shape[0]):
        for i in range(lo, hi):
            for c in range(3):
                out[f, i, c] = points[f, order[i], c]
            out[f, i, 3] = 0.0


@njit(cache=True, nogil=True)
def add_points(lo: int, hi: int, points: FloatArray, order: IntArray, out: FloatArray) -> None:
    """Adds the rows of points (B, M, 4) to the rows order[i] of out (B, V, 3)."""
    for f in range(points.shape[0]):
        for i in range(lo, hi):
            for c in range(3):
                out[f, order[i], c] += points[f, i, c]


@njit(inline="always")
def _covariance(
    i: int, face: int, y: FloatArray, p: FloatArray, first: IntArray, neighbour: IntArray, weight: FloatArray
) -> Three:
    """Columns of sum_j w_ij (y_i - y_j)(p_i - p_j)^T; `face` is the offset of the face's points in y and p."""
    c0 = c1 = c2 = repeat4(0.0)
    y_i, p_i = load(y, 4 * (face + i), c0), load(p, 4 * (face + i), c0)
    for n in range(first[i], first[i + 1]):
        at = 4 * (face + neighbour[n])
        along = (p_i - load(p, at, c0)) * weight[n]
        across = y_i - load(y, at, c0)
        c0 += across * lane(along, 0)
        c1 += across * lane(along, 1)
        c2 += across * lane(along, 2)
    return c0, c1, c2


@njit
def _two_covariances(
    i: int,
    face: int,
    y: FloatArray,
    z: FloatArray,
    p: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
) -> tuple[Three, Three]:
    """`_covariance` of y and of z in one walk around the vertex."""
    a0 = a1 = a2 = c0 = c1 = c2 = repeat4(0.0)
    y_i, z_i, p_i = load(y, 4 * (face + i), a0), load(z, 4 * (face + i), a0), load(p, 4 * (face + i), a0)
    for n in range(first[i], first[i + 1]):
        at = 4 * (face + neighbour[n])
        along = (p_i - load(p, at, a0)) * weight[n]
        across_y, across_z = y_i - load(y, at, a0), z_i - load(z, at, a0)
        a0 += across_y * lane(along, 0)
        a1 += across_y * lane(along, 1)
        a2 += across_y * lane(along, 2)
        c0 += across_z * lane(along, 0)
        c1 += across_z * lane(along, 1)
        c2 += across_z * lane(along, 2)
    return (a0, a1, a2), (c0, c1, c2)


@njit(inline="always")
def _put(columns: Three, block: FloatArray, k: int) -> None:
    """Matrix number k of a (16, BLOCK) array from its columns."""
    scatter(block, k, 4 * BLOCK, columns[0])
    scatter(block, k + BLOCK, 4 * BLOCK, columns[1])
    scatter(block, k + 2 * BLOCK, 4 * BLOCK, columns[2])


@njit(inline="always")
def _take(block: FloatArray, matrices: FloatArray, at: int, count: int, factor: float) -> None:
    """The first matrices of a (16, BLOCK) array, times a factor, to the places from `at` of matrices (B, M, 3, 4)."""
    like = repeat4(0.0)
    for k in range(count):
        store(matrices, 12 * (at + k), gather(block, k, BLOCK, like) * factor)
        store(matrices, 12 * (at + k) + 4, gather(block, k + 4 * BLOCK, BLOCK, like) * factor)
        store(matrices, 12 * (at + k) + 8, gather(block, k + 8 * BLOCK, BLOCK, like) * factor)


@njit(cache=True, nogil=True)
def fit_rows(
    lo: int,
    hi: int,
    x: FloatArray,
    p: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
    q: FloatArray,
    r: FloatArray,
) -> bool:
    """Best rotation of every neighbourhood from p to x, as q and as r; False if some are hard and got NaN."""
    s, quaternions, rotations = np.zeros((16, BLOCK)), np.zeros((4, BLOCK)), np.zeros((16, BLOCK))
    like = repeat4(0.0)
    all_fitted = True
    for face in range(0, x.shape[0] * x.shape[1], x.shape[1]):
        for start in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - start)
            for k in range(count):
                _put(_covariance(start + k, face, x, p, first, neighbour, weight), s, k)
            all_fitted &= fit_block(s, quaternions)
            rotate_block(quaternions, rotations)
            for k in range(count):
                store(q, 4 * (face + start + k), gather(quaternions, k, BLOCK, like))
            _take(rotations, r, face + start, count, 1.0)
    return all_fitted


@njit(cache=True, nogil=True)
def covariances(
    vertices: IntArray,
    of_face: IntArray,
    x: FloatArray,
    p: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
) -> FloatArray:
    """Covariances (N, 3, 3) of some vertices of some faces."""
    result = np.empty((vertices.size, 3, 3))
    for n in range(vertices.size):
        columns = _covariance(vertices[n], of_face[n] * x.shape[1], x, p, first, neighbour, weight)
        for row in range(3):
            result[n, row, 0] = lane(columns[0], row)
            result[n, row, 1] = lane(columns[1], row)
            result[n, row, 2] = lane(columns[2], row)
    return result


@njit
def _sum(v: Vector) -> float:
    return (lane(v, 0) + lane(v, 1)) + lane(v, 2)


@njit(cache=True, nogil=True)
def rotated_residual(
    lo: int,
    hi: int,
    r: FloatArray,
    p: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
    carry: FloatArray,
    out: FloatArray,
) -> None:
    """sum_j w_ij ((R_i + R_j) / 2 - I)(p_i - p_j) + carry_i."""
    for f in range(p.shape[0]):
        face = f * p.shape[1]
        for i in range(lo, hi):
            at = face + i
            a0 = a1 = a2 = total = repeat4(0.0)
            p_i = load(p, 4 * at, total)
            for n in range(first[i], first[i + 1]):
                j = face + neighbour[n]
                along = (p_i - load(p, 4 * j, total)) * weight[n]
                total += along
                a0 += load(r, 12 * j, total) * along
                a1 += load(r, 12 * j + 4, total) * along
                a2 += load(r, 12 * j + 8, total) * along
            a0 += load(r, 12 * at, total) * total
            a1 += load(r, 12 * at + 4, total) * total
            a2 += load(r, 12 * at + 8, total) * total
            out[f, i, 0] = 0.5 * _sum(a0) - lane(total, 0) + carry[f, i, 0]
            out[f, i, 1] = 0.5 * _sum(a1) - lane(total, 1) + carry[f, i, 1]
            out[f, i, 2] = 0.5 * _sum(a2) - lane(total, 2) + carry[f, i, 2]
            out[f, i, 3] = 0.0


@njit(cache=True, nogil=True)
def laplacian(
    lo: int, hi: int, v: FloatArray, first: IntArray, neighbour: IntArray, weight: FloatArray, out: FloatArray
) -> None:
    """sum_j w_ij (v_i - v_j)."""
    for face in range(0, v.shape[0] * v.shape[1], v.shape[1]):
        for i in range(lo, hi):
            total = repeat4(0.0)
            v_i = load(v, 4 * (face + i), total)
            for n in range(first[i], first[i + 1]):
                total += (v_i - load(v, 4 * (face + neighbour[n]), total)) * weight[n]
            store(out, 4 * (face + i), total)


@njit(cache=True, nogil=True)
def covariance_bars(
    lo: int,
    hi: int,
    x: FloatArray,
    p: FloatArray,
    q: FloatArray,
    b_bar: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
    r: FloatArray | None,
    s_bar: FloatArray,
) -> None:
    """Rotations r of q, if wanted, and the gradient s_bar with respect to the covariances, given b_bar."""
    s, bars, rotations = np.zeros((16, BLOCK)), np.zeros((16, BLOCK)), np.zeros((16, BLOCK))
    quaternions, like, one = np.zeros((4, BLOCK)), repeat4(0.0), repeat8(1.0)
    for face in range(0, x.shape[0] * x.shape[1], x.shape[1]):
        for start in range(lo, hi, BLOCK):
            count = min(BLOCK, hi - start)
            for k in range(count):
                of_x, of_b_bar = _two_covariances(start + k, face, x, b_bar, p, first, neighbour, weight)
                _put(of_x, s, k)
                _put(of_b_bar, bars, k)
                scatter(quaternions, k, BLOCK, load(q, 4 * (face + start + k), like))
            rotate_block(quaternions, rotations)
            store_block(adjoint(load_block(s, one), load_block(rotations, one), load_block(bars, one)), bars)
            if r is not None:
                _take(rotations, r, face + start, count, 1.0)
            _take(bars, s_bar, face + start, count, 0.5)


@njit(cache=True, nogil=True)
def position_bars(
    lo: int,
    hi: int,
    p: FloatArray,
    s_bar: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
    x_bar: FloatArray,
) -> None:
    """x_bar_i = sum_j w_ij (S_i + S_j)(p_i - p_j), with S the s_bar."""
    for f in range(p.shape[0]):
        face = f * p.shape[1]
        for i in range(lo, hi):
            at = face + i
            a0 = a1 = a2 = total = repeat4(0.0)
            p_i = load(p, 4 * at, total)
            for n in range(first[i], first[i + 1]):
                j = face + neighbour[n]
                along = (p_i - load(p, 4 * j, total)) * weight[n]
                total += along
                a0 += load(s_bar, 12 * j, total) * along
                a1 += load(s_bar, 12 * j + 4, total) * along
                a2 += load(s_bar, 12 * j + 8, total) * along
            a0 += load(s_bar, 12 * at, total) * total
            a1 += load(s_bar, 12 * at + 4, total) * total
            a2 += load(s_bar, 12 * at + 8, total) * total
            x_bar[f, i, 0], x_bar[f, i, 1], x_bar[f, i, 2] = _sum(a0), _sum(a1), _sum(a2)
            x_bar[f, i, 3] = 0.0


@njit(cache=True, nogil=True)
def position_and_rest_bars(
    lo: int,
    hi: int,
    x: FloatArray,
    p: FloatArray,
    r: FloatArray,
    b_bar: FloatArray,
    s_bar: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
    x_bar: FloatArray,
    p_bar: FloatArray,
) -> None:
    """`position_bars`; and to p_bar_i is added, x being p + u and R the r,

    x_bar_i + sum_j w_ij [(S_i + S_j)^T (x_i - x_j) + ((R_i + R_j)^T / 2 - I)(b_bar_i - b_bar_j)].
    """
    for f in range(p.shape[0]):
        face = f * p.shape[1]
        for i in range(lo, hi):
            at = face + i
            a0 = a1 = a2 = pulled = turned = total_p = total_x = total_b = repeat4(0.0)
            p_i, x_i, b_i = load(p, 4 * at, a0), load(x, 4 * at, a0), load(b_bar, 4 * at, a0)
            for n in range(first[i], first[i + 1]):
                j = face + neighbour[n]
                along_p = (p_i - load(p, 4 * j, a0)) * weight[n]
                along_x = (x_i - load(x, 4 * j, a0)) * weight[n]
                along_b = (b_i - load(b_bar, 4 * j, a0)) * weight[n]
                total_p += along_p
                total_x += along_x
                total_b += along_b
                s0, s1, s2 = load(s_bar, 12 * j, a0), load(s_bar, 12 * j + 4, a0), load(s_bar, 12 * j + 8, a0)
                a0 += s0 * along_p
                a1 += s1 * along_p
                a2 += s2 * along_p
                pulled += s0 * lane(along_x, 0) + s1 * lane(along_x, 1) + s2 * lane(along_x, 2)
                turned += load(r, 12 * j, a0) * lane(along_b, 0) + load(r, 12 * j + 4, a0) * lane(along_b, 1)
                turned += load(r, 12 * j + 8, a0) * lane(along_b, 2)
            s0, s1, s2 = load(s_bar, 12 * at, a0), load(s_bar, 12 * at + 4, a0), load(s_bar, 12 * at + 8, a0)
            a0 += s0 * total_p
            a1 += s1 * total_p
            a2 += s2 * total_p
            pulled += s0 * lane(total_x, 0) + s1 * lane(total_x, 1) + s2 * lane(total_x, 2)
            turned += load(r, 12 * at, a0) * lane(total_b, 0) + load(r, 12 * at + 4, a0) * lane(total_b, 1)
            turned += load(r, 12 * at + 8, a0) * lane(total_b, 2)
            x_bar[f, i, 0], x_bar[f, i, 1], x_bar[f, i, 2] = _sum(a0), _sum(a1), _sum(a2)
            x_bar[f, i, 3] = 0.0
            gained = load(x_bar, 4 * at, a0) + pulled + 0.5 * turned - total_b
            store(p_bar, 4 * at, load(p_bar, 4 * at, a0) + gained)


def fit_hard(ring: Ring, x: FloatArray, p: FloatArray, q: FloatArray, r: FloatArray) -> None:
    """Replaces the NaN that `fit_rows` left."""
    of_face, vertices = np.nonzero(np.isnan(q[:, :, 0]))
    hard = fit_quaternions(covariances(vertices, of_face, x, p, *ring))
    q[of_face, vertices] = hard
    r[of_face, vertices, :, :3] = rotations_of(hard)
