"""Rotation fit and its adjoint for one 3 x 3 matrix at a time, compiled; a matrix travels as nine scalars."""

import math

import numpy as np
from numba import njit

from arap_diff._numpy_kernels import AMBIGUOUS, DAMPING, NUDGE
from arap_diff.mesh import FloatArray

Nine = tuple[float, float, float, float, float, float, float, float, float]

ILL_CONDITIONED = 1e-6  # (s2+s3)(s1+s3)(s1+s2) below this share of (s1+s2+s3)^3: the quartic has nearly a double root
NEWTON_STEPS = 60
POLISH_STEPS = 3
IDENTITY: Nine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@njit(cache=True)
def _solve_symmetric(
    m00: float, m01: float, m02: float, m11: float, m12: float, m22: float, b0: float, b1: float, b2: float
) -> tuple[float, float, float]:
    c00 = m11 * m22 - m12 * m12
    c01 = m02 * m12 - m01 * m22
    c02 = m01 * m12 - m02 * m11
    c11 = m00 * m22 - m02 * m02
    c12 = m01 * m02 - m00 * m12
    c22 = m00 * m11 - m01 * m01
    inverse = 1.0 / (m00 * c00 + m01 * c01 + m02 * c02)
    return (
        (c00 * b0 + c01 * b1 + c02 * b2) * inverse,
        (c01 * b0 + c11 * b1 + c12 * b2) * inverse,
        (c02 * b0 + c12 * b1 + c22 * b2) * inverse,
    )


@njit(cache=True)
def _fit_by_svd(s: FloatArray) -> FloatArray:
    u, singular, vt = np.linalg.svd(s)
    if np.linalg.det(u) * np.linalg.det(vt) < 0.0:
        u[:, 2] = -u[:, 2]
        singular[2] = -singular[2]
    if singular[1] + singular[2] <= AMBIGUOUS * singular[0]:
        u, singular, vt = np.linalg.svd(s + NUDGE * singular[0] * np.eye(3))
        if np.linalg.det(u) * np.linalg.det(vt) < 0.0:
            u[:, 2] = -u[:, 2]
    return u @ vt


@njit(cache=True)
def _svd_of_nine(s: Nine) -> Nine:
    matrix = np.empty((3, 3))
    for k in range(9):
        matrix[k // 3, k % 3] = s[k]
    r = _fit_by_svd(matrix)
    return r[0, 0], r[0, 1], r[0, 2], r[1, 0], r[1, 1], r[1, 2], r[2, 0], r[2, 1], r[2, 2]


@njit(cache=True)
def fit_one(s: Nine) -> Nine:
    """Rotation that maximises tr(R^T S): largest eigenvalue of Horn's 4 x 4 matrix, eigenvector from its adjugate.

    The eigenvalue is s1 + s2 + s3 (signed), found by Newton from above (Horn 1987; Theobald 2005); one to three Newton
    steps on the rotation itself remove the rounding of the quaternion. Ill-conditioned matrices go to the SVD.
    """
    scale = 0.0
    for k in range(9):
        scale = max(scale, abs(s[k]))
    if scale == 0.0:
        return IDENTITY
    a, b, c = s[0] / scale, s[1] / scale, s[2] / scale
    d, e, f = s[3] / scale, s[4] / scale, s[5] / scale
    g, h, i = s[6] / scale, s[7] / scale, s[8] / scale
    x0, x1, x2 = e * i - f * h, f * g - d * i, d * h - e * g
    cofactors = x0 * x0 + x1 * x1 + x2 * x2
    cofactors += (b * i - c * h) ** 2 + (a * i - c * g) ** 2 + (a * h - b * g) ** 2
    cofactors += (b * f - c * e) ** 2 + (a * f - c * d) ** 2 + (a * e - b * d) ** 2
    det = a * x0 + b * x1 + c * x2
    norm = a * a + b * b + c * c + d * d + e * e + f * f + g * g + h * h + i * i
    constant = norm * norm - 4.0 * cofactors
    root = math.sqrt(3.0 * norm)
    for _ in range(NEWTON_STEPS):
        value = (root * root - 2.0 * norm) * root * root - 8.0 * det * root + constant
        slope = 4.0 * root * (root * root - norm) - 8.0 * det
        if slope <= 0.0:
            break
        step = value / slope
        root -= step
        if abs(step) <= 1e-15 * root:
            break
    if 4.0 * root * (root * root - norm) - 8.0 * det <= 8.0 * ILL_CONDITIONED * root**3:
        return _svd_of_nine(s)
    w, x, y, z = _eigenvector(a, b, c, d, e, f, g, h, i, root)
    for _ in range(POLISH_STEPS):
        r = _rotation(w, x, y, z)
        p00 = r[0] * a + r[3] * d + r[6] * g
        p01 = r[0] * b + r[3] * e + r[6] * h
        p02 = r[0] * c + r[3] * f + r[6] * i
        p10 = r[1] * a + r[4] * d + r[7] * g
        p11 = r[1] * b + r[4] * e + r[7] * h
        p12 = r[1] * c + r[4] * f + r[7] * i
        p20 = r[2] * a + r[5] * d + r[8] * g
        p21 = r[2] * b + r[5] * e + r[8] * h
        p22 = r[2] * c + r[5] * f + r[8] * i
        v0, v1, v2 = _solve_symmetric(
            p11 + p22,
            -(p01 + p10) / 2,
            -(p02 + p20) / 2,
            p00 + p22,
            -(p12 + p21) / 2,
            p00 + p11,
            p21 - p12,
            p02 - p20,
            p10 - p01,
        )
        v0, v1, v2 = v0 / 2, v1 / 2, v2 / 2
        w, x, y, z = (
            w - x * v0 - y * v1 - z * v2,
            x + w * v0 + y * v2 - z * v1,
            y + w * v1 + z * v0 - x * v2,
            z + w * v2 + x * v1 - y * v0,
        )
        length = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
        w, x, y, z = w * length, x * length, y * length, z * length
        if v0 * v0 + v1 * v1 + v2 * v2 < 1e-18:
            break
    return _rotation(w, x, y, z)


@njit(cache=True)
def _rotation(w: float, x: float, y: float, z: float) -> Nine:
    return (
        1.0 - 2.0 * (y * y + z * z),
        2.0 * (x * y - w * z),
        2.0 * (x * z + w * y),
        2.0 * (x * y + w * z),
        1.0 - 2.0 * (x * x + z * z),
        2.0 * (y * z - w * x),
        2.0 * (x * z - w * y),
        2.0 * (y * z + w * x),
        1.0 - 2.0 * (x * x + y * y),
    )


@njit(cache=True)
def _eigenvector(
    a: float, b: float, c: float, d: float, e: float, f: float, g: float, h: float, i: float, root: float
) -> tuple[float, float, float, float]:
    """Unit quaternion of Horn's matrix at an eigenvalue: largest column of adj(K - root I), a multiple of q q^T."""
    k00, k01, k02, k03 = a + e + i - root, h - f, c - g, d - b
    k11, k12, k13 = a - e - i - root, b + d, c + g
    k22, k23 = e - a - i - root, f + h
    k33 = i - a - e - root
    s0 = k00 * k11 - k01 * k01
    s1 = k00 * k12 - k01 * k02
    s2 = k00 * k13 - k01 * k03
    s3 = k01 * k12 - k11 * k02
    s4 = k01 * k13 - k11 * k03
    s5 = k02 * k13 - k12 * k03
    c5 = k22 * k33 - k23 * k23
    c4 = k12 * k33 - k13 * k23
    c3 = k12 * k23 - k13 * k22
    c2 = k02 * k33 - k03 * k23
    c1 = k02 * k23 - k03 * k22
    q00 = k11 * c5 - k12 * c4 + k13 * c3
    q01 = -k01 * c5 + k02 * c4 - k03 * c3
    q02 = k13 * s5 - k23 * s4 + k33 * s3
    q03 = -k12 * s5 + k22 * s4 - k23 * s3
    q11 = k00 * c5 - k02 * c2 + k03 * c1
    q12 = -k03 * s5 + k23 * s2 - k33 * s1
    q13 = k02 * s5 - k22 * s2 + k23 * s1
    q22 = k03 * s4 - k13 * s2 + k33 * s0
    q23 = -k02 * s4 + k12 * s2 - k23 * s0
    q33 = k02 * s3 - k12 * s1 + k22 * s0
    w, x, y, z = q00, q01, q02, q03
    largest = abs(q00)
    if abs(q11) > largest:
        largest = abs(q11)
        w, x, y, z = q01, q11, q12, q13
    if abs(q22) > largest:
        largest = abs(q22)
        w, x, y, z = q02, q12, q22, q23
    if abs(q33) > largest:
        w, x, y, z = q03, q13, q23, q33
    length = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    return w * length, x * length, y * length, z * length


@njit(cache=True)
def adjoint_one(s: Nine, r: Nine, rbar: Nine) -> Nine:
    """Gradient with respect to S, see `_numpy_kernels.rotation_adjoint`."""
    p00 = r[0] * s[0] + r[3] * s[3] + r[6] * s[6]
    p11 = r[1] * s[1] + r[4] * s[4] + r[7] * s[7]
    p22 = r[2] * s[2] + r[5] * s[5] + r[8] * s[8]
    trace = p00 + p11 + p22
    if trace <= 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    p01 = r[0] * s[1] + r[3] * s[4] + r[6] * s[7] + r[1] * s[0] + r[4] * s[3] + r[7] * s[6]
    p02 = r[0] * s[2] + r[3] * s[5] + r[6] * s[8] + r[2] * s[0] + r[5] * s[3] + r[8] * s[6]
    p12 = r[1] * s[2] + r[4] * s[5] + r[7] * s[8] + r[2] * s[1] + r[5] * s[4] + r[8] * s[7]
    scale = 1.0 / trace
    m00, m11, m22 = (p11 + p22) * scale, (p00 + p22) * scale, (p00 + p11) * scale
    m01, m02, m12 = -0.5 * p01 * scale, -0.5 * p02 * scale, -0.5 * p12 * scale
    q0 = r[2] * rbar[1] + r[5] * rbar[4] + r[8] * rbar[7] - r[1] * rbar[2] - r[4] * rbar[5] - r[7] * rbar[8]
    q1 = r[0] * rbar[2] + r[3] * rbar[5] + r[6] * rbar[8] - r[2] * rbar[0] - r[5] * rbar[3] - r[8] * rbar[6]
    q2 = r[1] * rbar[0] + r[4] * rbar[3] + r[7] * rbar[6] - r[0] * rbar[1] - r[3] * rbar[4] - r[6] * rbar[7]
    tau = DAMPING * DAMPING
    a0, a1, a2 = _solve_symmetric(
        m00 * m00 + m01 * m01 + m02 * m02 + tau,
        m00 * m01 + m01 * m11 + m02 * m12,
        m00 * m02 + m01 * m12 + m02 * m22,
        m01 * m01 + m11 * m11 + m12 * m12 + tau,
        m01 * m02 + m11 * m12 + m12 * m22,
        m02 * m02 + m12 * m12 + m22 * m22 + tau,
        m00 * q0 + m01 * q1 + m02 * q2,
        m01 * q0 + m11 * q1 + m12 * q2,
        m02 * q0 + m12 * q1 + m22 * q2,
    )
    a0, a1, a2 = a0 * scale, a1 * scale, a2 * scale
    return (
        r[1] * a2 - r[2] * a1,
        r[2] * a0 - r[0] * a2,
        r[0] * a1 - r[1] * a0,
        r[4] * a2 - r[5] * a1,
        r[5] * a0 - r[3] * a2,
        r[3] * a1 - r[4] * a0,
        r[7] * a2 - r[8] * a1,
        r[8] * a0 - r[6] * a2,
        r[6] * a1 - r[7] * a0,
    )
