"""`ArapSolver`: one mesh, one set of handles, one factor; any number of rest shapes and handle positions."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arap_diff._autograd import Deform, DeformToConvergence, wants_gradient
from arap_diff._backend import prepare, resolve_backend
from arap_diff._factor import StoredFactor
from arap_diff._points import broadcast_batch, check_count, check_length, check_points, check_same_device
from arap_diff._saving import Saved, read, write
from arap_diff._system import System
from arap_diff._tiers import Backend, CpuTier, Tier
from arap_diff._torch_tier import TorchTier
from arap_diff.mesh import (
    Weights,
    check_every_component_is_held,
    check_faces,
    check_handles,
    weighted_edges,
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
    topology only and serves every rest shape. Vertices in no face keep their rest position. Copies and pickles are as
    prepared as a file of `save`. Threads may share a solver.

    Args:
        faces: (F, 3) vertex ids.
        handles: (K,) distinct vertex ids whose positions `solve` is given, in this order.
        n_vertices: V.
        rest: (V, 3); used by cotangent weights only, which are frozen at this shape.
        energy: "bilaplacian" or "edges".
        weights: "uniform", "cotangent", or (E,) positive numbers, one per edge in the order of `mesh_edges`; see
            `laplacian`. Constants: no gradient reaches them.
        backend: where tensors are computed with; results agree to rounding. "numba" (extra `fast`) and "numpy": on the
            CPU, tensors of other devices travel there and back. "torch": by torch operations on the device they are
            on. "auto": for CPU tensors numba, or numpy where numba is missing or NUMBA_DISABLE_JIT is set; "torch"
            for others.

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
        _check_backend(backend)
        checked = check_faces(faces, n_vertices)
        handle_ids = check_handles(handles, n_vertices)
        self.n_vertices = int(n_vertices)
        self.energy_name: Energy = energy
        self.backend: Backend = backend
        self.handles = handle_ids
        self._edges = weighted_edges(checked, self.n_vertices, weights, rest)
        check_every_component_is_held(self._edges, handle_ids, self.n_vertices)
        self._prepare()

    def _prepare(self, stored: StoredFactor | None = None) -> None:
        self.handles.flags.writeable = False
        self._system = System(self._edges, self.handles, self.n_vertices, self.energy_name == "bilaplacian")
        backend = resolve_backend("auto" if self.backend == "torch" else self.backend)
        self._alternation = prepare(self._system, backend, stored)
        self._torch_tiers: dict[torch.device, TorchTier] = {}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the prepared solver to a file: mesh edges, weights, handles, energy and factor (npz, no pickle).

        The file appears whole or not at all. With numba it holds the factor, so that `load` need not compute it; the
        factor of the NumPy tier cannot be stored. OSError if the file cannot be written.
        """
        factor = self._alternation.stored_factor
        write(Path(path), Saved(self.n_vertices, self.energy_name, self.handles, self._edges, factor))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, backend: Backend = "auto") -> Self:
        """The solver of a file written by `save`, with numba or without, ready for the given backend.

        Where file and backend are of the numba tier nothing is computed again, else it is factorised anew. On the same
        machine, backend and number of threads its solves are those of the saved solver to the last bit.

        Raises:
            ValueError: the file is damaged (it has a checksum), or of another format or version; or a bad backend.
            OSError: it cannot be read.
        """
        _check_backend(backend)
        saved = read(Path(path))
        solver = cls.__new__(cls)
        solver.__setstate__(
            {
                "n_vertices": saved.n_vertices,
                "energy_name": saved.energy,
                "backend": backend,
                "handles": saved.handles,
                "_edges": saved.edges,
                "_factor": saved.factor,
            }
        )
        return solver

    def __getstate__(self) -> dict[str, Any]:
        names = "n_vertices", "energy_name", "backend", "handles", "_edges"
        return {name: getattr(self, name) for name in names} | {"_factor": self._alternation.stored_factor}

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state.pop("_factor")
        vars(self).update(state)
        self._prepare(stored)

    def solve(self, rest: Tensor, handle_positions: Tensor, n_solves: int = 3) -> Tensor:
        """Deformed vertex positions after a given number of linear solves.

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
            ValueError: wrong shape, dtype or device, a value that is not finite, or n_solves < 1.
            RuntimeError: when the gradient itself, or a forward-mode derivative, is asked for.
        """
        check_count("n_solves", n_solves, 1)
        p, h, finish = self._arguments(rest, handle_positions)
        return finish(Deform.apply(p, h, self._tier(p.device), int(n_solves), wants_gradient(p, h))[0])

    def solve_converged(self, rest: Tensor, handle_positions: Tensor, tol: float, *, max_solves: int = 1000) -> Tensor:
        """Deformed vertex positions where solving and fitting rotations change nothing any more.

        The alternation of `solve`, with Anderson acceleration (Peng et al. 2018), runs until one more fit and solve
        moves no vertex by `tol` or more; each deformation of a batch stops by itself. Its distance from the fixed
        point is larger than the last move, by 1 / (1 - q) where plain moves shrink by the factor q; q nears 1 for
        fine meshes with few handles. The gradient is the one of the fixed point, by the implicit function theorem:
        its cost and memory do not grow with the number of solves; its linear system is solved by GMRES to a relative
        residual of 1e-10. Under "edges" a fixed point is a stationary point of the energy; under "bilaplacian", whose
        rotations minimise another energy than its solves, there may be none for extreme handles.

        Args:
            rest: (..., V, 3) float32 or float64 rest pose.
            handle_positions: (..., K, 3) targets; leading dimensions broadcast against those of `rest`.
            tol: length in the units of the mesh.
            max_solves: most linear solves to spend.

        Returns:
            (..., V, 3) as for `solve`; differentiable once in both arguments.

        Raises:
            ValueError: wrong shape, dtype or device, a value that is not finite, tol <= 0 or max_solves < 2.
            ArithmeticError: not converged after `max_solves`; or, in the backward pass, no gradient because the fixed
                point is not isolated (handles on one line leave a rotation about it free).
            RuntimeError: when the gradient itself, or a forward-mode derivative, is asked for.
        """
        check_length("tol", tol)
        check_count("max_solves", max_solves, 2)
        p, h, finish = self._arguments(rest, handle_positions)
        return finish(DeformToConvergence.apply(p, h, self._tier(p.device), float(tol), int(max_solves)))

    def _arguments(self, rest: Tensor, handle_positions: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Both as float64 (B, ., 3) where they are computed with, and the way of the result back to their form."""
        check_points("rest", rest, self.n_vertices, "V")
        check_points("handle_positions", handle_positions, self.handles.size, "K")
        check_same_device("rest", rest, "handle_positions", handle_positions)
        batch = broadcast_batch("rest", rest, "handle_positions", handle_positions)
        dtype = torch.promote_types(rest.dtype, handle_positions.dtype)
        device = rest.device if self.backend in ("auto", "torch") else torch.device("cpu")
        p, h = (
            points.to(device, torch.float64).expand(*batch, -1, -1).reshape(-1, *points.shape[-2:])
            for points in (rest, handle_positions)
        )
        return p, h, lambda x: x.reshape(*batch, self.n_vertices, 3).to(rest.device, dtype)

    def _tier(self, device: torch.device) -> Tier:
        if device.type == "cpu" and self.backend != "torch":
            return CpuTier(self._alternation)
        if device not in self._torch_tiers:
            self._torch_tiers[device] = TorchTier(self._system, self._alternation.factor, device)
        return self._torch_tiers[device]

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
        check_points("x", x, self.n_vertices, "V")
        check_points("rest", rest, self.n_vertices, "V")
        check_same_device("x", x, "rest", rest)
        broadcast_batch("x", x, "rest", rest)

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


def _check_backend(backend: str) -> None:
    if backend not in get_args(Backend):
        raise ValueError(f'backend must be "auto", "numpy", "numba" or "torch", got {backend!r}')


def _along(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    return points[..., start, :] - points[..., end, :]
