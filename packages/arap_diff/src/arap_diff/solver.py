"""`ArapSolver`: one mesh, one set of handles, one factor; any number of rest shapes and handle positions."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arap_diff._autograd import Deform, as_array, as_tensor
from arap_diff._backend import Backend, build_system, resolve_backend
from arap_diff._unrolled import System, deform
from arap_diff.mesh import (
    Weights,
    check_every_component_is_held,
    check_faces,
    check_handles,
    mesh_edges,
)
from arap_diff.rotations import fit_rotations

Energy = Literal["bilaplacian", "edges"]


class ArapSolver:
    """As-rigid-as-possible deformation of a triangle mesh whose handle vertices are given positions.

    Two energies, with p the rest pose, x the deformed one, w the edge weights, R_i the best rotation of vertex i's
    edges from p to x, and d_i(R) = sum_j w_ij (R_i + R_j) / 2 (p_i - p_j):

    - "bilaplacian": match the rotated Laplacian coordinates, min |L x - d(R)|^2, so L^T L x = L^T d(R)
      (Yan et al., NEO-3DF, ACCV 2022, eq. 3 and algorithm 1). Smooth across the handles: meant for blending seams.
    - "edges": match the rotated edges, min sum_ij w_ij |x_i - x_j - R_i (p_i - p_j)|^2, so L x = d(R)
      (Sorkine and Alexa 2007). Cheaper, better conditioned, creased at the handles.

    Construction eliminates the handles and factorises the rest once; with uniform weights the factor depends on the
    topology only and serves every rest shape. Vertices in no face keep their rest position. The solver is picklable;
    the factor is rebuilt on loading.

    Args:
        faces: (F, 3) vertex ids.
        handles: (K,) distinct vertex ids whose positions `solve` is given, in this order.
        n_vertices: V.
        rest: (V, 3); used by cotangent weights only, which are frozen at this shape.
        energy: "bilaplacian" or "edges".
        weights: "uniform" or "cotangent", see `laplacian`.
        backend: "numba" (extra `fast`), "numpy", or "auto" for the fastest one installed; results agree to rounding.

    Raises:
        ValueError: a bad shape, index or name, a handle given twice, or vertices joined to no handle.
        ArithmeticError: cotangent weights so uneven that the system is not positive definite in float64.
    """

    def __init__(
        self,
        faces: ArrayLike,
        handles: ArrayLike,
        n_vertices: int,
        *,
        rest: ArrayLike | None = None,
        energy: Energy = "bilaplacian",
        weights: Weights = "uniform",
        backend: Backend = "auto",
    ) -> None:
        if energy not in get_args(Energy):
            raise ValueError(f'energy must be "bilaplacian" or "edges", got {energy!r}')
        checked = check_faces(faces, n_vertices)
        handle_ids = check_handles(handles, n_vertices)
        self.n_vertices = int(n_vertices)
        self.energy_name: Energy = energy
        self.weights = weights
        self.backend: Backend = backend
        self.handles = handle_ids
        self.handles.flags.writeable = False
        resolve_backend(backend)
        self._edges = mesh_edges(checked, self.n_vertices, weights, rest)
        check_every_component_is_held(self._edges, handle_ids, self.n_vertices)
        self._system = self._build()

    def _build(self) -> System:
        return build_system(
            self._edges,
            self.handles,
            self.n_vertices,
            bilaplacian=self.energy_name == "bilaplacian",
            backend=resolve_backend(self.backend),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_system"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._system = self._build()

    def solve(self, rest: Tensor, handle_positions: Tensor, n_solves: int = 3) -> Tensor:
        """Deformed vertex positions.

        Args:
            rest: (..., V, 3) float32 or float64 rest pose.
            handle_positions: (..., K, 3) targets; leading dimensions broadcast against those of `rest`.
            n_solves: linear solves; between two of them the rotations are fitted again. 1 is plain Laplacian editing
                with all rotations the identity; 3 is the published setting.

        Returns:
            (..., V, 3) with the dtype the inputs promote to, computed in float64. Handles are at their positions to the
            last bit. Differentiable once in both arguments, through the rotations; the gradient is exact for the number
            of solves given.

        Raises:
            ValueError: wrong shape or dtype, a value that is not finite, or n_solves < 1.
            RuntimeError: when the gradient itself is differentiated.
        """
        if isinstance(n_solves, bool) or not isinstance(n_solves, (int, np.integer)) or n_solves < 1:
            raise ValueError(f"n_solves must be an integer of at least 1, got {n_solves!r}")
        _check_points("rest", rest, self.n_vertices, "V")
        _check_points("handle_positions", handle_positions, self.handles.size, "K")
        if rest.device != handle_positions.device:
            raise ValueError(f"rest is on {rest.device} but handle_positions is on {handle_positions.device}")
        batch = _broadcast_batch(rest, handle_positions)
        dtype = torch.promote_types(rest.dtype, handle_positions.dtype)
        p = rest.to(dtype).expand(*batch, -1, -1).reshape(-1, *rest.shape[-2:])
        h = handle_positions.to(dtype).expand(*batch, -1, -1).reshape(-1, *handle_positions.shape[-2:])
        if torch.is_grad_enabled() and (p.requires_grad or h.requires_grad):
            x = Deform.apply(p, h, self._system, n_solves)
        else:
            x = as_tensor(deform(self._system, as_array(p), as_array(h), n_solves), p)
        return x.reshape(*batch, self.n_vertices, 3)

    def rotations(self, x: Tensor, rest: Tensor) -> Tensor:
        """Best rotation (..., V, 3, 3) of every vertex neighbourhood from rest (..., V, 3) to x (..., V, 3).

        Differentiable, see `fit_rotations`. Vertices in no face get the identity. ValueError on a bad shape or value.
        """
        self._check_pair(x, rest)
        start, end, weight = self._edge_tensors(x)
        outer = torch.einsum(
            "e,...ea,...eb->...eab", weight, x[..., start, :] - x[..., end, :], _along(rest, start, end)
        )
        covariance = outer.new_zeros(*outer.shape[:-3], self.n_vertices, 3, 3)
        covariance = covariance.index_add(-3, start, outer).index_add(-3, end, outer)
        return fit_rotations(covariance)

    def energy(self, x: Tensor, rest: Tensor) -> Tensor:
        """Energy (...) of x (..., V, 3) over rest (..., V, 3) at the best rotations, in squared length units.

        "bilaplacian": |L x - d(R)|^2 / 2; "edges": half the sum, over both directions of every edge, of
        w_ij |x_i - x_j - R_i (p_i - p_j)|^2. Differentiable. Zero for a rigidly moved rest pose. ValueError on a bad
        shape or value.
        """
        rotation = self.rotations(x, rest)
        start, end, weight = self._edge_tensors(x)
        now, before = x[..., start, :] - x[..., end, :], _along(rest, start, end)
        if self.energy_name == "edges":
            from_start = now - (rotation[..., start, :, :] @ before[..., None])[..., 0]
            from_end = now - (rotation[..., end, :, :] @ before[..., None])[..., 0]
            return (weight[:, None] * (from_start.square() + from_end.square())).sum((-1, -2)) / 2
        mean = (rotation[..., start, :, :] + rotation[..., end, :, :]) / 2
        flow = weight[:, None] * (now - (mean @ before[..., None])[..., 0])
        residual = flow.new_zeros(*flow.shape[:-2], self.n_vertices, 3)
        residual = residual.index_add(-2, start, flow).index_add(-2, end, -flow)
        return residual.square().sum((-1, -2)) / 2

    def _check_pair(self, x: Tensor, rest: Tensor) -> None:
        _check_points("x", x, self.n_vertices, "V")
        _check_points("rest", rest, self.n_vertices, "V")

    def _edge_tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edges = self._edges
        start, end = (torch.from_numpy(ids).to(like.device) for ids in (edges.start, edges.end))
        return start, end, torch.from_numpy(edges.weight).to(like)


def arap_deform(
    rest: Tensor,
    faces: ArrayLike,
    handles: ArrayLike,
    handle_positions: Tensor,
    *,
    energy: Energy = "bilaplacian",
    weights: Weights = "uniform",
    n_solves: int = 3,
) -> Tensor:
    """One deformation without keeping the factor; see `ArapSolver` for the arguments and the errors.

    `rest` is (V, 3) for cotangent weights, which are then constants of the gradient, and (..., V, 3) for uniform ones.
    """
    weight_shape: Any = rest if weights == "cotangent" else None
    if rest.ndim < 2:
        raise ValueError(f"rest must have shape (..., V, 3), got {tuple(rest.shape)}")
    solver = ArapSolver(faces, handles, rest.shape[-2], rest=weight_shape, energy=energy, weights=weights)
    return solver.solve(rest, handle_positions, n_solves)


def _along(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    return points[..., start, :] - points[..., end, :]


def _check_points(name: str, points: Tensor, count: int, letter: str) -> None:
    if not isinstance(points, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(points).__name__}")
    if points.ndim < 2 or points.shape[-2:] != (count, 3):
        raise ValueError(f"{name} must have shape (..., {letter}={count}, 3), got {tuple(points.shape)}")
    if points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {points.dtype}")
    finite = torch.isfinite(points)
    if not finite.all():
        row = int((~finite).nonzero()[0][-2])
        raise ValueError(f"{name} has a value that is not finite, first at row {row}")


def _broadcast_batch(rest: Tensor, handle_positions: Tensor) -> torch.Size:
    try:
        return torch.broadcast_shapes(rest.shape[:-2], handle_positions.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"leading dimensions of rest {tuple(rest.shape)} and handle_positions {tuple(handle_positions.shape)} "
            "do not broadcast"
        ) from None
