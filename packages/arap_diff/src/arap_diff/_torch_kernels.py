"""Local step of the deformation as elementwise torch operations, for any device; twin of `_numpy_kernels`.

Layout: components first, so that every operation runs over contiguous vertices. Vectors are (3, ...), matrices
(3, 3, ...), with (B, V) for vertices, (B, E) for edges or (N,) in place of the dots. All tensors are float64.
"""

import torch
from torch import Tensor

from arap_diff import _numpy_kernels
from arap_diff._numpy_kernels import DAMPING
from arap_diff.mesh import Edges

ILL_CONDITIONED = 1e-4  # (s2+s3)(s1+s3)(s1+s2) below this share of (s1+s2+s3)^3: left to the SVD
NEWTON_STEPS = 24  # each halves the distance to a double root at least; not converged: left to the SVD
POLISH_STEPS = 2


def fit_rotations(covariance: Tensor) -> Tensor:
    """R (3, 3, ...), det +1, that maximises tr(R^T S); identity where S is zero.

    The largest eigenvalue of Horn's matrix, s1 + s2 + s3 (signed), by Newton from above, then R as a polynomial in S
    (Markley, "Attitude determination using vector observations: a fast optimal matrix algorithm", 1993) and Newton
    steps on the rotation. Ill-conditioned matrices, rare on meshes, go to the SVD of `_numpy_kernels`.
    """
    scale = covariance.abs().amax((0, 1))
    s = covariance / torch.where(scale > 0, scale, 1.0)
    cofactors = _cofactors(s)
    det = (s[0] * cofactors[0]).sum(0)
    norm = s.square().sum((0, 1))
    constant = norm.square() - 4 * cofactors.square().sum((0, 1))
    root = (3 * norm).sqrt()
    step = root
    for _ in range(NEWTON_STEPS):
        slope = 4 * root * (root.square() - norm) - 8 * det
        value = (root.square() - 2 * norm) * root.square() - 8 * det * root + constant
        step = value / torch.where(slope > 0, slope, 1.0)
        root = root - step
    gap = root * (root.square() - norm) / 2 - det
    rotation = ((root.square() + norm) / 2 * s + root * cofactors - _product(_product(s, s.transpose(0, 1)), s)) / gap
    for _ in range(POLISH_STEPS):
        rotation = _polished(rotation, s)
    poor = (scale > 0) & ~((gap > ILL_CONDITIONED * root**3) & (step.abs() <= 1e-12 * root))
    if poor.any():
        matrices = covariance[:, :, poor].permute(2, 0, 1).cpu().numpy()
        fitted = torch.from_numpy(_numpy_kernels.fit_rotations(matrices)).to(covariance.device)
        rotation[:, :, poor] = fitted.permute(1, 2, 0)
    return torch.where(scale > 0, rotation, _identity_like(rotation))


def rotation_adjoint(covariance: Tensor, rotation: Tensor, rotation_bar: Tensor) -> Tensor:
    """Gradient (3, 3, ...) with respect to S; see `_numpy_kernels.rotation_adjoint`."""
    stretch = _product(rotation.transpose(0, 1), covariance)
    trace = stretch.diagonal().sum(-1)
    trace = torch.where(trace > 0, trace, torch.inf)
    identity = _identity_like(rotation)
    matrix = identity - (stretch + stretch.transpose(0, 1)) / (2 * trace)
    damped = _product(matrix, matrix) + DAMPING**2 * identity
    torque = _axial(_product(rotation.transpose(0, 1), rotation_bar))
    spin = _solve_symmetric(damped, _apply(matrix, torque)) / trace
    return _product(rotation, _cross_matrix(spin))


def fit_rotation_stack(covariance: Tensor) -> Tensor:
    """`fit_rotations` of matrices (N, 3, 3)."""
    return fit_rotations(covariance.permute(1, 2, 0)).permute(2, 0, 1)


def rotation_adjoint_stack(covariance: Tensor, rotation: Tensor, rotation_bar: Tensor) -> Tensor:
    """`rotation_adjoint` of matrices (N, 3, 3)."""
    components_first = (part.permute(1, 2, 0) for part in (covariance, rotation, rotation_bar))
    return rotation_adjoint(*components_first).permute(2, 0, 1)


def _polished(rotation: Tensor, s: Tensor) -> Tensor:
    """One Newton step towards the maximum of tr(R^T S), and one of Newton and Schulz towards orthonormal columns."""
    stretch = _product(rotation.transpose(0, 1), s)
    identity = _identity_like(rotation)
    matrix = stretch.diagonal().sum(-1) * identity - (stretch + stretch.transpose(0, 1)) / 2
    turned = rotation + _product(rotation, _cross_matrix(_solve_symmetric(matrix, _axial(stretch))))
    return _product(turned, 1.5 * identity - _product(turned.transpose(0, 1), turned) / 2)


def _identity_like(matrices: Tensor) -> Tensor:
    identity = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    return identity.reshape(3, 3, *[1] * (matrices.ndim - 2)).expand_as(matrices)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0, None] * b[None, 0] + a[:, 1, None] * b[None, 1] + a[:, 2, None] * b[None, 2]


def _apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    return matrices[:, 0] * vectors[0] + matrices[:, 1] * vectors[1] + matrices[:, 2] * vectors[2]


def _cofactors(m: Tensor) -> Tensor:
    return torch.linalg.cross(torch.stack([m[1], m[2], m[0]]), torch.stack([m[2], m[0], m[1]]), dim=1)


def _solve_symmetric(matrices: Tensor, right: Tensor) -> Tensor:
    cofactors = _cofactors(matrices)
    return _apply(cofactors, right) / (matrices[0] * cofactors[0]).sum(0)


def _axial(m: Tensor) -> Tensor:
    return torch.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])


def _cross_matrix(vectors: Tensor) -> Tensor:
    x, y, z = vectors
    zero = torch.zeros_like(x)
    return torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])


class TorchKernels:
    """Laplacian, rotation fit, rotated Laplacian coordinates and their adjoint on one set of weighted edges."""

    def __init__(self, edges: Edges, n_vertices: int, device: torch.device) -> None:
        self._n_vertices = n_vertices
        self._start, self._end = (torch.from_numpy(ids).to(device) for ids in (edges.start, edges.end))
        self._weight = torch.from_numpy(edges.weight).to(device)

    def rotations(self, x: Tensor, p: Tensor) -> Tensor:
        """Best rotation (3, 3, B, V) of every vertex neighbourhood from p to x, each (3, B, V)."""
        return fit_rotations(self._covariance(x, p))

    def rotated_residual(self, rotation: Tensor, p: Tensor) -> Tensor:
        """b_i = sum_j w_ij ((R_i + R_j) / 2 - I)(p_i - p_j): rotated minus unrotated Laplacian coordinates."""
        return self._divergence((rotation - _identity_like(rotation)) / 2, p)

    def covariance_bar(self, x: Tensor, p: Tensor, rotation: Tensor, b_bar: Tensor) -> Tensor:
        """Gradient (3, 3, B, V) with respect to the covariances, given the one with respect to the residual b."""
        return rotation_adjoint(self._covariance(x, p), rotation, self._covariance(b_bar, p) / 2)

    def position_bar(self, p: Tensor, covariance_bar: Tensor) -> Tensor:
        """Gradient with respect to x."""
        return self._divergence(covariance_bar, p)

    def rest_bar(self, x: Tensor, rotation: Tensor, covariance_bar: Tensor, b_bar: Tensor) -> Tensor:
        """Gradient with respect to p, x being another variable."""
        by_covariance = self._divergence(covariance_bar.transpose(0, 1), x)
        return self.rotated_residual(rotation.transpose(0, 1), b_bar) + by_covariance

    def laplacian(self, y: Tensor) -> Tensor:
        """sum_j w_ij (y_i - y_j), (3, B, V)."""
        return self._to_vertices_signed(self._weight * self._along(y))

    def _along(self, y: Tensor) -> Tensor:
        return y[..., self._start] - y[..., self._end]

    def _to_vertices_signed(self, flow: Tensor) -> Tensor:
        still = flow.new_zeros(*flow.shape[:-1], self._n_vertices)
        return still.index_add_(-1, self._start, flow).index_add_(-1, self._end, -flow)

    def _covariance(self, y: Tensor, p: Tensor) -> Tensor:
        """sum_j w_ij (y_i - y_j)(p_i - p_j)^T, (3, 3, B, V)."""
        outer = (self._weight * self._along(y))[:, None] * self._along(p)[None]
        return outer.new_zeros(3, *y.shape).index_add_(-1, self._start, outer).index_add_(-1, self._end, outer)

    def _divergence(self, matrices: Tensor, p: Tensor) -> Tensor:
        """sum_j w_ij (M_i + M_j)(p_i - p_j), (3, B, V); the transpose of `_covariance` in its first argument."""
        on_edges = matrices[..., self._start] + matrices[..., self._end]
        return self._to_vertices_signed(self._weight * _apply(on_edges, self._along(p)))
