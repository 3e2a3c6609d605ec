"""Local step of the deformation in plain NumPy and SciPy: works everywhere, and says what the fast kernels compute.

Shapes: x, p, b are (B, V, 3); rotations are (B, V, 3, 3); G is the (E, V) signed incidence matrix of the edges.
"""

import numpy as np
import scipy.sparse as sp

from arap_diff.mesh import Edges, FloatArray

AMBIGUOUS = 1e-9  # s2 + s3 below this share of s1: the best rotation is not unique
NUDGE = 1e-8  # towards the identity, to choose one
DAMPING = 1e-7  # of the rotation's derivative, as a share of s1 + s2 + s3


def fit_rotations(covariance: FloatArray) -> FloatArray:
    """R (N, 3, 3), det +1, that maximises tr(R^T S), by SVD (Kabsch 1976); identity where S is zero."""
    u, signed, vt = _signed_svd(covariance)
    ambiguous = signed[:, 1] + signed[:, 2] <= AMBIGUOUS * signed[:, 0]
    if ambiguous.any():
        scale = np.where(signed[ambiguous, 0] > 0, NUDGE * signed[ambiguous, 0], 1.0)
        u[ambiguous], _, vt[ambiguous] = _signed_svd(covariance[ambiguous] + scale[:, None, None] * np.eye(3))
    return u @ vt


def _signed_svd(covariance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(u @ vt))
    u[:, :, 2] *= sign[:, None]
    singular[:, 2] *= sign
    return u, singular, vt


def rotation_adjoint(covariance: FloatArray, rotation: FloatArray, rotation_bar: FloatArray) -> FloatArray:
    """Gradient (N, 3, 3) with respect to S of a loss whose gradient with respect to R = fit_rotations(S) is given.

    dR = R [w]x with (tr(P) I - P) w = q(R^T dS), P = R^T S, q(M) = (M32 - M23, M13 - M31, M21 - M12). The matrix
    has the eigenvalues s2+s3, s1+s3, s1+s2: sums, never differences. It is inverted with Tikhonov damping, so that a
    covariance without a unique rotation passes no gradient in the direction that is undetermined.
    """
    stretch = np.swapaxes(rotation, 1, 2) @ covariance
    stretch = (stretch + np.swapaxes(stretch, 1, 2)) / 2
    trace = np.trace(stretch, axis1=1, axis2=2)
    unit = stretch / np.where(trace > 0, trace, 1.0)[:, None, None]
    matrix = np.where(trace > 0, 1.0, 0.0)[:, None, None] * np.eye(3) - unit
    damped = matrix @ matrix + DAMPING**2 * np.eye(3)
    torque = _axial(np.swapaxes(rotation, 1, 2) @ rotation_bar)
    spin: FloatArray = np.linalg.solve(damped, np.einsum("nab,nb->na", matrix, torque)[..., None])[..., 0]
    spin /= np.where(trace > 0, trace, 1.0)[:, None]
    return rotation @ _cross_matrix(spin)


def _axial(matrix: FloatArray) -> FloatArray:
    return np.stack(
        [
            matrix[:, 2, 1] - matrix[:, 1, 2],
            matrix[:, 0, 2] - matrix[:, 2, 0],
            matrix[:, 1, 0] - matrix[:, 0, 1],
        ],
        axis=1,
    )


def _cross_matrix(vector: FloatArray) -> FloatArray:
    x, y, z = vector.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)


class NumpyKernels:
    """Rotation fit, rotated Laplacian coordinates and their adjoint on one set of weighted edges."""

    def __init__(self, edges: Edges, n_vertices: int) -> None:
        rows = np.arange(edges.start.size)
        ones = np.ones(rows.size)
        shape = (rows.size, n_vertices)
        start = sp.csr_matrix((ones, (rows, edges.start)), shape=shape)
        end = sp.csr_matrix((ones, (rows, edges.end)), shape=shape)
        self._difference = (start - end).tocsr()
        self._sum = (start + end).tocsr()
        self._to_vertices_signed = self._difference.T.tocsr()
        self._to_vertices = self._sum.T.tocsr()
        self._weight = edges.weight[:, None, None]

    def rotations(self, x: FloatArray, p: FloatArray) -> FloatArray:
        """Best rotation of every vertex neighbourhood from p to x."""
        rotation = np.empty((*x.shape, 3))
        for k in range(len(x)):
            rotation[k] = fit_rotations(self._covariance(x[k], p[k]))
        return rotation

    def rotated_residual(self, rotation: FloatArray, p: FloatArray) -> FloatArray:
        """b_i = sum_j w_ij ((R_i + R_j) / 2 - I)(p_i - p_j): rotated minus unrotated Laplacian coordinates."""
        b = np.empty_like(p)
        for k in range(len(p)):
            b[k] = self._divergence(rotation[k] / 2 - np.eye(3) / 2, p[k])
        return b

    def covariance_bar(self, x: FloatArray, p: FloatArray, rotation: FloatArray, b_bar: FloatArray) -> FloatArray:
        """Gradient (B, V, 3, 3) with respect to the covariances, given the one with respect to the residual b."""
        bar = np.empty_like(rotation)
        for k in range(len(x)):
            rotation_bar = self._covariance(b_bar[k], p[k]) / 2
            bar[k] = rotation_adjoint(self._covariance(x[k], p[k]), rotation[k], rotation_bar)
        return bar

    def position_bar(self, p: FloatArray, covariance_bar: FloatArray) -> FloatArray:
        """Gradient with respect to x."""
        x_bar = np.empty_like(p)
        for k in range(len(p)):
            x_bar[k] = self._divergence(covariance_bar[k], p[k])
        return x_bar

    def rest_bar(
        self, x: FloatArray, rotation: FloatArray, covariance_bar: FloatArray, b_bar: FloatArray
    ) -> FloatArray:
        """Gradient with respect to p, x being another variable."""
        p_bar = self.rotated_residual(np.swapaxes(rotation, 2, 3), b_bar)
        for k in range(len(x)):
            p_bar[k] += self._divergence(np.swapaxes(covariance_bar[k], 1, 2), x[k])
        return p_bar

    def _covariance(self, y: FloatArray, p: FloatArray) -> FloatArray:
        """sum_j w_ij (y_i - y_j)(p_i - p_j)^T, (V, 3, 3)."""
        outer = self._weight * (self._difference @ y)[:, :, None] * (self._difference @ p)[:, None, :]
        return (self._to_vertices @ outer.reshape(-1, 9)).reshape(-1, 3, 3)

    def _divergence(self, matrices: FloatArray, p: FloatArray) -> FloatArray:
        """sum_j w_ij (M_i + M_j)(p_i - p_j), (V, 3); the transpose of `_covariance` in its first argument."""
        on_edges = (self._sum @ matrices.reshape(-1, 9)).reshape(-1, 3, 3) * self._weight
        return self._to_vertices_signed @ np.einsum("eab,eb->ea", on_edges, self._difference @ p)
