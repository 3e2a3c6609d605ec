"""Rotation fit and its adjoint in closed form, on several 3 x 3 matrices at a time, compiled.

A matrix is nine `Lanes`, row by row: lane k of each belongs to the same matrix. Rotations come as unit quaternions.
"""

from numba import njit

from arap_diff._numba_lanes import Vector, all_less, magnitude, square_root, where_less
from arap_diff._numpy_kernels import DAMPING

ILL_CONDITIONED = 1e-6  # (s2+s3)(s1+s3)(s1+s2) below this share of (s1+s2+s3)^3: the quartic has nearly a double root
NEWTON_STEPS = 12
POLISH_STEPS = 3
CONVERGED = 1e-8  # last Newton step over the root, and last half angle: the next error is its square

Nine = tuple[Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector]
Four = tuple[Vector, Vector, Vector, Vector]
Three = tuple[Vector, Vector, Vector]


@njit(inline="always")
def _solve_symmetric(
    m00: Vector,
    m01: Vector,
    m02: Vector,
    m11: Vector,
    m12: Vector,
    m22: Vector,
    b0: Vector,
    b1: Vector,
    b2: Vector,
) -> Three:
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


@njit(inline="always")
def _largest_root(s: Nine) -> tuple[Vector, Vector]:
    """Largest eigenvalue of Horn's 4 x 4 matrix, s1 + s2 + s3 (signed), and the quartic's slope there.

    Newton from above (Horn 1987; Theobald 2005). The start is an upper bound that is exact for flat neighbourhoods:
    with e = sum s_i^2 s_j^2 the root is a fixed point of t -> sqrt(|S|^2 + 2 sqrt(e + 2 det(S) t)).
    """
    a, b, c, d, e, f, g, h, i = s
    x0, x1, x2 = e * i - f * h, f * g - d * i, d * h - e * g
    y0, y1, y2 = b * i - c * h, a * i - c * g, a * h - b * g
    z0, z1, z2 = b * f - c * e, a * f - c * d, a * e - b * d
    cofactors = x0 * x0 + x1 * x1 + x2 * x2 + y0 * y0 + y1 * y1 + y2 * y2 + z0 * z0 + z1 * z1 + z2 * z2
    det = a * x0 + b * x1 + c * x2
    norm = a * a + b * b + c * c + d * d + e * e + f * f + g * g + h * h + i * i
    constant = norm * norm - 4.0 * cofactors
    zero = 0.0 * norm
    rise = where_less(zero, det, det, zero) * square_root(3.0 * norm)
    root = square_root(norm + 2.0 * square_root(cofactors + 2.0 * rise))
    for _ in range(NEWTON_STEPS):
        square = root * root
        value = (square - 2.0 * norm) * square - 8.0 * det * root + constant
        slope = 4.0 * root * (square - norm) - 8.0 * det
        step = where_less(zero, slope, value / slope, zero)
        root = root - step
        if all_less(magnitude(step), CONVERGED * root):
            break
    return root, 4.0 * root * (root * root - norm) - 8.0 * det


@njit(inline="always")
def _eigenvector(s: Nine, root: Vector) -> Four:
    """Unit quaternion of Horn's matrix K at an eigenvalue: largest column of adj(K - root I), a multiple of q q^T."""
    a, b, c, d, e, f, g, h, i = s
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
    w, x = k11 * c5 - k12 * c4 + k13 * c3, k02 * c4 - k01 * c5 - k03 * c3
    y, z = k13 * s5 - k23 * s4 + k33 * s3, k22 * s4 - k12 * s5 - k23 * s3
    q11, q22 = k00 * c5 - k02 * c2 + k03 * c1, k03 * s4 - k13 * s2 + k33 * s0
    q12, q13 = k23 * s2 - k03 * s5 - k33 * s1, k02 * s5 - k22 * s2 + k23 * s1
    q23, q33 = k12 * s2 - k02 * s4 - k23 * s0, k02 * s3 - k12 * s1 + k22 * s0
    column = _longer((w, x, y, z), (x, q11, q12, q13), magnitude(w), magnitude(q11))
    other = _longer((y, q12, q22, q23), (z, q13, q23, q33), magnitude(q22), magnitude(q33))
    return _unit(_longer(column, other, _length(column), _length(other)))


@njit(inline="always")
def _longer(first: Four, second: Four, first_size: Vector, second_size: Vector) -> Four:
    return (
        where_less(first_size, second_size, second[0], first[0]),
        where_less(first_size, second_size, second[1], first[1]),
        where_less(first_size, second_size, second[2], first[2]),
        where_less(first_size, second_size, second[3], first[3]),
    )


@njit(inline="always")
def _length(q: Four) -> Vector:
    return square_root(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])


@njit(inline="always")
def _unit(q: Four) -> Four:
    scale = 1.0 / _length(q)
    return q[0] * scale, q[1] * scale, q[2] * scale, q[3] * scale


@njit(inline="always")
def rotation_of(q: Four) -> Nine:
    """Rotation matrix of a unit quaternion (w, x, y, z); of vectors or of numbers."""
    w, x, y, z = q
    x2, y2, z2 = x + x, y + y, z + z
    return (
        1.0 - (y * y2 + z * z2),
        x * y2 - w * z2,
        x * z2 + w * y2,
        x * y2 + w * z2,
        1.0 - (x * x2 + z * z2),
        y * z2 - w * x2,
        x * z2 - w * y2,
        y * z2 + w * x2,
        1.0 - (x * x2 + y * y2),
    )


@njit(inline="always")
def _half_turn_left(s: Nine, q: Four) -> Three:
    """Newton's step to the best rotation from a near one: half of w in (tr(P) I - P) w = q(P), P = R^T S."""
    r = rotation_of(q)
    p00 = r[0] * s[0] + r[3] * s[3] + r[6] * s[6]
    p01 = r[0] * s[1] + r[3] * s[4] + r[6] * s[7]
    p02 = r[0] * s[2] + r[3] * s[5] + r[6] * s[8]
    p10 = r[1] * s[0] + r[4] * s[3] + r[7] * s[6]
    p11 = r[1] * s[1] + r[4] * s[4] + r[7] * s[7]
    p12 = r[1] * s[2] + r[4] * s[5] + r[7] * s[8]
    p20 = r[2] * s[0] + r[5] * s[3] + r[8] * s[6]
    p21 = r[2] * s[1] + r[5] * s[4] + r[8] * s[7]
    p22 = r[2] * s[2] + r[5] * s[5] + r[8] * s[8]
    return _solve_symmetric(
        2.0 * (p11 + p22),
        -(p01 + p10),
        -(p02 + p20),
        2.0 * (p00 + p22),
        -(p12 + p21),
        2.0 * (p00 + p11),
        p21 - p12,
        p02 - p20,
        p10 - p01,
    )


@njit
def fit(s: Nine) -> tuple[Vector, Vector, Vector, Vector, Vector]:
    """Quaternion of the rotation that maximises tr(R^T S), and 1 in the lanes where it can be trusted, else 0.

    Largest eigenvector of Horn's matrix, then Newton steps on the rotation itself, which remove the rounding of the
    closed form. The identity where S is zero. Not trusted are matrices near those whose best rotation is not unique,
    and those without convergence.
    """
    largest = magnitude(s[0])
    for k in range(1, 9):
        size = magnitude(s[k])
        largest = where_less(largest, size, size, largest)
    zero = 0.0 * largest
    one = zero + 1.0
    scale = where_less(zero, largest, 1.0 / largest, zero)
    unit = (
        where_less(zero, largest, s[0] * scale, one),
        s[1] * scale,
        s[2] * scale,
        s[3] * scale,
        where_less(zero, largest, s[4] * scale, one),
        s[5] * scale,
        s[6] * scale,
        s[7] * scale,
        where_less(zero, largest, s[8] * scale, one),
    )
    root, slope = _largest_root(unit)
    q = _eigenvector(unit, root)
    limit = zero + CONVERGED * CONVERGED
    for _ in range(POLISH_STEPS):
        v0, v1, v2 = _half_turn_left(unit, q)
        w, x, y, z = q
        q = _unit(
            (
                w - x * v0 - y * v1 - z * v2,
                x + w * v0 + y * v2 - z * v1,
                y + w * v1 + z * v0 - x * v2,
                z + w * v2 + x * v1 - y * v0,
            )
        )
        turned = v0 * v0 + v1 * v1 + v2 * v2
        if all_less(turned, limit):
            break
    safe = where_less(8.0 * ILL_CONDITIONED * root * root * root, slope, one, zero)
    return q[0], q[1], q[2], q[3], where_less(turned, limit, safe, zero)


@njit
def adjoint(s: Nine, r: Nine, r_bar: Nine) -> Nine:
    """Gradient with respect to S, see `_numpy_kernels.rotation_adjoint`."""
    p00 = r[0] * s[0] + r[3] * s[3] + r[6] * s[6]
    p11 = r[1] * s[1] + r[4] * s[4] + r[7] * s[7]
    p22 = r[2] * s[2] + r[5] * s[5] + r[8] * s[8]
    p01 = r[0] * s[1] + r[3] * s[4] + r[6] * s[7] + r[1] * s[0] + r[4] * s[3] + r[7] * s[6]
    p02 = r[0] * s[2] + r[3] * s[5] + r[6] * s[8] + r[2] * s[0] + r[5] * s[3] + r[8] * s[6]
    p12 = r[1] * s[2] + r[4] * s[5] + r[7] * s[8] + r[2] * s[1] + r[5] * s[4] + r[8] * s[7]
    trace = p00 + p11 + p22
    zero = 0.0 * trace
    scale = where_less(zero, trace, 1.0 / trace, zero)
    m00, m11, m22 = (p11 + p22) * scale, (p00 + p22) * scale, (p00 + p11) * scale
    half = -0.5 * scale
    m01, m02, m12 = half * p01, half * p02, half * p12
    q0 = r[2] * r_bar[1] + r[5] * r_bar[4] + r[8] * r_bar[7] - r[1] * r_bar[2] - r[4] * r_bar[5] - r[7] * r_bar[8]
    q1 = r[0] * r_bar[2] + r[3] * r_bar[5] + r[6] * r_bar[8] - r[2] * r_bar[0] - r[5] * r_bar[3] - r[8] * r_bar[6]
    q2 = r[1] * r_bar[0] + r[4] * r_bar[3] + r[7] * r_bar[6] - r[0] * r_bar[1] - r[3] * r_bar[4] - r[6] * r_bar[7]
    a0, a1, a2 = _solve_symmetric(
        m00 * m00 + m01 * m01 + m02 * m02 + DAMPING**2,
        m00 * m01 + m01 * m11 + m02 * m12,
        m00 * m02 + m01 * m12 + m02 * m22,
        m01 * m01 + m11 * m11 + m12 * m12 + DAMPING**2,
        m01 * m02 + m11 * m12 + m12 * m22,
        m02 * m02 + m12 * m12 + m22 * m22 + DAMPING**2,
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
