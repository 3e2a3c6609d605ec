"""The deformations that `arap.py` compares, behind one interface. All of them fit rotations three times.

Ours and the dense twin start from a solve without rotations, so they make four solves; libigl and Open3D start from the
rest pose with the handles moved, so they make three.
"""

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from arap_meshes import Deformation
from torch import Tensor

from arap_diff import ArapSolver, laplacian

ROTATION_FITS = 3
LARGEST_INVERSE = 12_000  # free vertices; 1.2 GB in float64


class Unable(Exception):
    """Why a contender cannot take a mesh."""


class Ours:
    """`ArapSolver`, for a batch of equal deformations."""

    def __init__(
        self,
        case: Deformation,
        *,
        energy: Literal["bilaplacian", "edges"],
        weights: Literal["uniform", "cotangent"] = "uniform",
        backend: Literal["auto", "numba", "numpy"] = "numba",
        batch: int = 1,
        fits: int = ROTATION_FITS,
    ) -> None:
        self.n_solves = fits + 1
        shape = case.rest if weights == "cotangent" else None
        self.solver = ArapSolver(
            case.faces, case.handles, len(case.rest), rest=shape, energy=energy, weights=weights, backend=backend
        )
        self.rest, self.targets = _leaves(case, batch, torch.float64)

    def forward(self) -> Tensor:
        return self.solver.solve(self.rest, self.targets, n_solves=self.n_solves)

    def backward(self, deformed: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(deformed, (self.rest, self.targets), torch.ones_like(deformed))


class OursWithFixedRest(Ours):
    """The same where only the handles move, as when a rest shape is posed or a seam is blended."""

    def forward(self) -> Tensor:
        return self.solver.solve(self.rest.detach(), self.targets, n_solves=self.n_solves)

    def backward(self, deformed: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(deformed, (self.targets,), torch.ones_like(deformed))


class DenseTwin:
    """The paper's formulation as its authors run it: dense inverse of the free block, SVD, autograd through both.

    The inverse is taken in float64 by Cholesky and then rounded, which is kinder than the pseudo-inverse of the whole
    constrained system that the published code takes. That code multiplies it from the left, as `inverse_times` does.
    torch is several times faster when the symmetric inverse stands on the right, as in `times_inverse`, above all in
    the backward pass: that is the strongest dense twin, and a row of its own.
    """

    def __init__(
        self,
        case: Deformation,
        *,
        dtype: torch.dtype,
        multiply: Callable[[Tensor, Tensor], Tensor],
        batch: int = 1,
    ) -> None:
        if case.n_free > LARGEST_INVERSE:
            gigabytes = case.n_free**2 * dtype.itemsize / 1e9
            raise Unable(f"the dense inverse of {case.n_free:,} unknowns would take {gigabytes:.0f} GB")
        matrix = laplacian(case.faces, len(case.rest)).tocsr()
        self.free = torch.from_numpy(np.setdiff1d(np.arange(len(case.rest)), case.handles))
        self.handles = torch.from_numpy(case.handles)
        rows = matrix[self.free.numpy()]
        block = torch.from_numpy((rows @ rows.T).toarray())
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(block)).to(dtype).contiguous()
        self.multiply = multiply
        edges = matrix.tocoo()
        off = edges.row != edges.col
        self.start, self.end = (torch.from_numpy(ids[off].astype(np.int64)) for ids in (edges.row, edges.col))
        self.weight = torch.from_numpy(-edges.data[off]).to(dtype)
        self.rest, self.targets = _leaves(case, batch, dtype)

    def forward(self) -> Tensor:
        rest, targets = self.rest.transpose(0, 1), self.targets.transpose(0, 1)  # vertices first: rows to gather
        edge = self.weight[:, None, None] * self._along(rest)
        held = self._laplacian(self._laplacian(_scatter(self.handles, targets, len(rest))))
        x = self._solve(self._sum(edge), held, targets)
        for _ in range(ROTATION_FITS):
            u, _, vt = torch.linalg.svd(self._sum(self._along(x)[..., :, None] * edge[..., None, :]))
            sign = torch.linalg.det(u @ vt)[..., None, None]
            rotation = u @ torch.cat([vt[..., :2, :], sign * vt[..., 2:, :]], dim=-2)
            mean = (rotation.index_select(0, self.start) + rotation.index_select(0, self.end)) / 2
            x = self._solve(self._sum((mean * edge[..., None, :]).sum(-1)), held, targets)
        return x.transpose(0, 1)

    def backward(self, deformed: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(deformed, (self.rest, self.targets), torch.ones_like(deformed))

    def _solve(self, rotated: Tensor, held: Tensor, targets: Tensor) -> Tensor:
        right = (self._laplacian(rotated) - held).index_select(0, self.free)
        solved = self.multiply(self.inverse, right.flatten(1)).reshape(right.shape)
        return _scatter(self.free, solved, len(held)) + _scatter(self.handles, targets, len(held))

    def _laplacian(self, y: Tensor) -> Tensor:
        return self._sum(self.weight[:, None, None] * self._along(y))

    def _along(self, y: Tensor) -> Tensor:
        return y.index_select(0, self.start) - y.index_select(0, self.end)

    def _sum(self, per_edge: Tensor) -> Tensor:
        """Sum at the first vertex of every directed edge."""
        return _scatter(self.start, per_edge, self.rest.shape[1])


def inverse_times(inverse: Tensor, columns: Tensor) -> Tensor:
    return inverse.mm(columns)


def times_inverse(inverse: Tensor, columns: Tensor) -> Tensor:
    return columns.T.mm(inverse).T


class LibIgl:
    """libigl, spokes energy: the one of "edges" with cotangent weights, which libigl does not clamp. No gradient."""

    def __init__(self, case: Deformation, *, fits: int = ROTATION_FITS) -> None:
        igl = _imported("igl")
        self.arap_solve, self.case, self.data = igl.arap_solve, case, igl.ARAPData()
        self.data.energy = igl.ARAP_ENERGY_TYPE_SPOKES
        self.data.max_iter = fits
        igl.arap_precomputation(case.rest, case.faces, 3, case.handles, self.data)

    def forward(self) -> np.ndarray:
        return self.arap_solve(self.case.targets, self.data, self.case.rest.copy())


class Open3D:
    """Open3D, the same energy; it factors anew in every call. No gradient."""

    def __init__(self, case: Deformation, *, fits: int = ROTATION_FITS) -> None:
        open3d = _imported("open3d")
        open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
        as_points = open3d.utility.Vector3dVector
        self.mesh = open3d.geometry.TriangleMesh(as_points(case.rest), open3d.utility.Vector3iVector(case.faces))
        self.fits = fits
        self.handles, self.targets = open3d.utility.IntVector(case.handles.astype(np.int32)), as_points(case.targets)

    def forward(self) -> np.ndarray:
        mesh = self.mesh.deform_as_rigid_as_possible(self.handles, self.targets, max_iter=self.fits)
        return np.asarray(mesh.vertices)


def _imported(peer: str) -> ModuleType:
    try:
        return importlib.import_module(peer)
    except ImportError as error:
        raise Unable(f"not installed: {error}") from error


def _leaves(case: Deformation, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rest, targets = (
        torch.from_numpy(points).to(dtype).expand(batch, -1, -1).clone().requires_grad_()
        for points in (case.rest, case.targets)
    )
    return rest, targets


def _scatter(ids: Tensor, values: Tensor, n: int) -> Tensor:
    """(n, ...) zeros with the values added at their ids."""
    return values.new_zeros(n, *values.shape[1:]).index_add(0, ids, values)


CONTENDERS: dict[str, Callable[[Deformation], Any]] = {
    "libigl, cotangent": LibIgl,
    "Open3D, cotangent": Open3D,
    "dense twin f32": partial(DenseTwin, dtype=torch.float32, multiply=inverse_times),
    "dense twin f64": partial(DenseTwin, dtype=torch.float64, multiply=inverse_times),
    "dense twin f32, tuned": partial(DenseTwin, dtype=torch.float32, multiply=times_inverse),
    "dense twin f32, tuned, batch of 8": partial(DenseTwin, dtype=torch.float32, multiply=times_inverse, batch=8),
    "numba bilaplacian": partial(Ours, energy="bilaplacian"),
    "numba edges": partial(Ours, energy="edges"),
    "numba edges, cotangent": partial(Ours, energy="edges", weights="cotangent"),
    "numba bilaplacian, rest fixed": partial(OursWithFixedRest, energy="bilaplacian"),
    "numba edges, rest fixed": partial(OursWithFixedRest, energy="edges"),
    "numba bilaplacian, batch of 8": partial(Ours, energy="bilaplacian", batch=8),
    "numba edges, batch of 8": partial(Ours, energy="edges", batch=8),
    "numpy bilaplacian": partial(Ours, energy="bilaplacian", backend="numpy"),
    "numpy edges": partial(Ours, energy="edges", backend="numpy"),
}
