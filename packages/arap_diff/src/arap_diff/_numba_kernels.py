"""Local step of the deformation as compiled loops over vertices and their neighbours; twin of `_numpy_kernels`."""

import numpy as np
from numba import njit

from arap_diff._numba_rotations import Nine, adjoint_one, fit_one
from arap_diff.mesh import Edges, FloatArray, IntArray


@njit(cache=True)
def _nine(matrices: FloatArray, k: int) -> Nine:
    m = matrices[k]
    return m[0, 0], m[0, 1], m[0, 2], m[1, 0], m[1, 1], m[1, 2], m[2, 0], m[2, 1], m[2, 2]


@njit(cache=True)
def _store(matrices: FloatArray, k: int, m: Nine) -> None:
    matrices[k, 0, 0], matrices[k, 0, 1], matrices[k, 0, 2] = m[0], m[1], m[2]
    matrices[k, 1, 0], matrices[k, 1, 1], matrices[k, 1, 2] = m[3], m[4], m[5]
    matrices[k, 2, 0], matrices[k, 2, 1], matrices[k, 2, 2] = m[6], m[7], m[8]


@njit(cache=True)
def fit_rotations(covariance: FloatArray) -> FloatArray:
    """See `_numpy_kernels.fit_rotations`."""
    rotation = np.empty_like(covariance)
    for k in range(covariance.shape[0]):
        _store(rotation, k, fit_one(_nine(covariance, k)))
    return rotation


@njit(cache=True)
def rotation_adjoint(covariance: FloatArray, rotation: FloatArray, rotation_bar: FloatArray) -> FloatArray:
    """See `_numpy_kernels.rotation_adjoint`."""
    result = np.empty_like(covariance)
    for k in range(covariance.shape[0]):
        _store(result, k, adjoint_one(_nine(covariance, k), _nine(rotation, k), _nine(rotation_bar, k)))
    return result


@njit(cache=True)
def _covariance(i: int, y: FloatArray, p: FloatArray, first: IntArray, neighbour: IntArray, weight: FloatArray) -> Nine:
    """sum_j w_ij (y_i - y_j)(p_i - p_j)^T."""
    a = b = c = d = e = f = g = h = k = 0.0
    for n in range(first[i], first[i + 1]):
        j = neighbour[n]
        w = weight[n]
        y0, y1, y2 = w * (y[i, 0] - y[j, 0]), w * (y[i, 1] - y[j, 1]), w * (y[i, 2] - y[j, 2])
        p0, p1, p2 = p[i, 0] - p[j, 0], p[i, 1] - p[j, 1], p[i, 2] - p[j, 2]
        a += y0 * p0
        b += y0 * p1
        c += y0 * p2
        d += y1 * p0
        e += y1 * p1
        f += y1 * p2
        g += y2 * p0
        h += y2 * p1
        k += y2 * p2
    return a, b, c, d, e, f, g, h, k


@njit(cache=True)
def _rotations(
    x: FloatArray, p: FloatArray, first: IntArray, neighbour: IntArray, weight: FloatArray, out: FloatArray
) -> None:
    for i in range(x.shape[0]):
        _store(out, i, fit_one(_covariance(i, x, p, first, neighbour, weight)))


@njit(cache=True)
def _rotated_residual(
    r: FloatArray, p: FloatArray, first: IntArray, neighbour: IntArray, weight: FloatArray, out: FloatArray
) -> None:
    for i in range(p.shape[0]):
        b0 = b1 = b2 = 0.0
        for n in range(first[i], first[i + 1]):
            j = neighbour[n]
            w = 0.5 * weight[n]
            p0, p1, p2 = w * (p[i, 0] - p[j, 0]), w * (p[i, 1] - p[j, 1]), w * (p[i, 2] - p[j, 2])
            b0 += (r[i, 0, 0] + r[j, 0, 0] - 2.0) * p0 + (r[i, 0, 1] + r[j, 0, 1]) * p1 + (r[i, 0, 2] + r[j, 0, 2]) * p2
            b1 += (r[i, 1, 0] + r[j, 1, 0]) * p0 + (r[i, 1, 1] + r[j, 1, 1] - 2.0) * p1 + (r[i, 1, 2] + r[j, 1, 2]) * p2
            b2 += (r[i, 2, 0] + r[j, 2, 0]) * p0 + (r[i, 2, 1] + r[j, 2, 1]) * p1 + (r[i, 2, 2] + r[j, 2, 2] - 2.0) * p2
        out[i, 0], out[i, 1], out[i, 2] = b0, b1, b2


@njit(cache=True)
def _covariance_bar(
    x: FloatArray,
    p: FloatArray,
    r: FloatArray,
    b_bar: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
) -> FloatArray:
    result = np.empty_like(r)
    for i in range(x.shape[0]):
        rotation_bar = _covariance(i, b_bar, p, first, neighbour, weight)
        covariance = _covariance(i, x, p, first, neighbour, weight)
        _store(result, i, adjoint_one(covariance, _nine(r, i), rotation_bar))
    return 0.5 * result


@njit(cache=True)
def _position_bars(
    x: FloatArray,
    p: FloatArray,
    r: FloatArray,
    b_bar: FloatArray,
    s: FloatArray,
    first: IntArray,
    neighbour: IntArray,
    weight: FloatArray,
    x_bar: FloatArray,
    p_bar: FloatArray,
) -> None:
    """x_bar = div(S_bar) p; p_bar = (div(R) / 2 - L)^T b_bar + div(S_bar^T) x."""
    for i in range(x.shape[0]):
        x0 = x1 = x2 = q0 = q1 = q2 = 0.0
        for n in range(first[i], first[i + 1]):
            j = neighbour[n]
            w = weight[n]
            s00, s01, s02 = w * (s[i, 0, 0] + s[j, 0, 0]), w * (s[i, 0, 1] + s[j, 0, 1]), w * (s[i, 0, 2] + s[j, 0, 2])
            s10, s11, s12 = w * (s[i, 1, 0] + s[j, 1, 0]), w * (s[i, 1, 1] + s[j, 1, 1]), w * (s[i, 1, 2] + s[j, 1, 2])
            s20, s21, s22 = w * (s[i, 2, 0] + s[j, 2, 0]), w * (s[i, 2, 1] + s[j, 2, 1]), w * (s[i, 2, 2] + s[j, 2, 2])
            e0, e1, e2 = p[i, 0] - p[j, 0], p[i, 1] - p[j, 1], p[i, 2] - p[j, 2]
            x0 += s00 * e0 + s01 * e1 + s02 * e2
            x1 += s10 * e0 + s11 * e1 + s12 * e2
            x2 += s20 * e0 + s21 * e1 + s22 * e2
            e0, e1, e2 = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
            q0 += s00 * e0 + s10 * e1 + s20 * e2
            q1 += s01 * e0 + s11 * e1 + s21 * e2
            q2 += s02 * e0 + s12 * e1 + s22 * e2
            w *= 0.5
            e0, e1, e2 = (
                w * (b_bar[i, 0] - b_bar[j, 0]),
                w * (b_bar[i, 1] - b_bar[j, 1]),
                w * (b_bar[i, 2] - b_bar[j, 2]),
            )
            q0 += (r[i, 0, 0] + r[j, 0, 0] - 2.0) * e0 + (r[i, 1, 0] + r[j, 1, 0]) * e1 + (r[i, 2, 0] + r[j, 2, 0]) * e2
            q1 += (r[i, 0, 1] + r[j, 0, 1]) * e0 + (r[i, 1, 1] + r[j, 1, 1] - 2.0) * e1 + (r[i, 2, 1] + r[j, 2, 1]) * e2
            q2 += (r[i, 0, 2] + r[j, 0, 2]) * e0 + (r[i, 1, 2] + r[j, 1, 2]) * e1 + (r[i, 2, 2] + r[j, 2, 2] - 2.0) * e2
        x_bar[i, 0], x_bar[i, 1], x_bar[i, 2] = x0, x1, x2
        p_bar[i, 0], p_bar[i, 1], p_bar[i, 2] = q0, q1, q2


class NumbaKernels:
    """Rotation fit, rotated Laplacian coordinates and their adjoint on one set of weighted edges."""

    def __init__(self, edges: Edges, n_vertices: int) -> None:
        start = np.concatenate([edges.start, edges.end])
        end = np.concatenate([edges.end, edges.start])
        order = np.lexsort((end, start))
        counts = np.bincount(start, minlength=n_vertices)
        self._ring = (np.concatenate([[0], np.cumsum(counts)]), end[order], np.tile(edges.weight, 2)[order])

    def rotations(self, x: FloatArray, p: FloatArray) -> FloatArray:
        """Best rotation of every vertex neighbourhood from p to x."""
        out = np.empty((*x.shape, 3))
        for k in range(len(x)):
            _rotations(x[k], p[k], *self._ring, out[k])
        return out

    def rotated_residual(self, rotation: FloatArray, p: FloatArray) -> FloatArray:
        """Rotated minus unrotated Laplacian coordinates."""
        out = np.empty_like(p)
        for k in range(len(p)):
            _rotated_residual(rotation[k], p[k], *self._ring, out[k])
        return out

    def pull_back(
        self, x: FloatArray, p: FloatArray, rotation: FloatArray, b_bar: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Gradients with respect to x and p, given the one with respect to the rotated residual."""
        x_bar, p_bar = np.empty_like(x), np.empty_like(p)
        for k in range(len(x)):
            s_bar = _covariance_bar(x[k], p[k], rotation[k], b_bar[k], *self._ring)
            _position_bars(x[k], p[k], rotation[k], b_bar[k], s_bar, *self._ring, x_bar[k], p_bar[k])
        return x_bar, p_bar
