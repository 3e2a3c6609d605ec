"""The torch tier: the alternation and its adjoint as torch operations on one device, and the linear solve there."""

import importlib
import importlib.util
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from arap_diff._factor import Factor
from arap_diff._system import System
from arap_diff._torch_kernels import TorchKernels

LARGEST_DENSE = 8000  # unknowns; a factor of half a GiB
MOST_CHOLESPY_COLUMNS = 128  # of one solve on a GPU, a limit of cholespy


class LinearSolver(Protocol):
    """The factored free block on a device."""

    def __call__(self, right_hand_side: Tensor) -> Tensor:
        """Solution (N, C) of A x = b for all columns of b (N, C)."""
        ...


class DenseCholesky:
    """A dense factor on the device."""

    def __init__(self, matrix: sp.csc_matrix, device: torch.device) -> None:
        self._factor = torch.linalg.cholesky(torch.from_numpy(matrix.toarray()).to(device))

    def __call__(self, right_hand_side: Tensor) -> Tensor:
        """See `LinearSolver`."""
        half_way = torch.linalg.solve_triangular(self._factor, right_hand_side, upper=False)
        return torch.linalg.solve_triangular(self._factor.mT, half_way, upper=True)


class CholespySolver:
    """cholespy's sparse factor on the device (Nicolet, Jacobson and Jakob 2021)."""

    def __init__(self, matrix: sp.csc_matrix, device: torch.device) -> None:
        cholespy = importlib.import_module("cholespy")
        pointers, rows = (torch.from_numpy(ids.astype(np.int32)).to(device) for ids in (matrix.indptr, matrix.indices))
        values = torch.from_numpy(matrix.data).to(device)
        self._solver = cholespy.CholeskySolverD(matrix.shape[0], pointers, rows, values, cholespy.MatrixType.CSC)

    def __call__(self, right_hand_side: Tensor) -> Tensor:
        """See `LinearSolver`."""
        solved = []
        for columns in right_hand_side.split(MOST_CHOLESPY_COLUMNS, dim=1):
            part = columns.contiguous()
            solved.append(torch.zeros_like(part))
            self._solver.solve(part, solved[-1])
        return torch.cat(solved, dim=1)


class CpuRoundTrip:
    """The sparse factor of the CPU tiers: the right-hand sides travel there and the solutions back."""

    def __init__(self, factor: Factor) -> None:
        self._factor = factor

    def __call__(self, right_hand_side: Tensor) -> Tensor:
        """See `LinearSolver`."""
        solution = self._factor.solve(np.ascontiguousarray(right_hand_side.cpu().numpy()))
        return torch.from_numpy(np.ascontiguousarray(solution)).to(right_hand_side.device)


def choose_solver(matrix: sp.csc_matrix, device: torch.device, factor: Factor) -> LinearSolver:
    """Dense for few unknowns; else cholespy on a GPU where it is installed; else the factor on the CPU."""
    if matrix.shape[0] <= LARGEST_DENSE:
        return DenseCholesky(matrix, device)
    if device.type == "cuda" and importlib.util.find_spec("cholespy") is not None:
        return CholespySolver(matrix, device)
    return CpuRoundTrip(factor)


class TorchTier:
    """See `Tier`. Inside, positions are (3, B, V) and rotations (3, 3, B, V).

    With y the rest pose whose handles are placed, one solve is x = y + A_ff^-1 (K (b(R) - L (y - p)))_f.
    """

    def __init__(self, system: System, factor: Factor, device: torch.device) -> None:
        self._solve = choose_solver(system.block(), device, factor)
        self._kernels = TorchKernels(system.edges, system.n_vertices, device)
        self._free, self._handles = (torch.from_numpy(ids.copy()).to(device) for ids in (system.free, system.handles))
        self._bilaplacian = system.bilaplacian

    def unrolled(self, p: Tensor, h: Tensor, n_solves: int, keep: bool) -> tuple[Tensor, ...]:
        """See `Tier`."""
        p, h = _components_first(p), _components_first(h)
        x = self._placed(p, h, torch.zeros_like(p))
        positions, rotations = [], []
        for _ in range(n_solves - 1):
            rotation = self._kernels.rotations(x, p)
            if keep:
                positions.append(x.permute(1, 2, 0))
                rotations.append(rotation.permute(2, 3, 0, 1))
            x = self._placed(p, h, self._kernels.rotated_residual(rotation, p))
        return x.permute(1, 2, 0).contiguous(), *positions, *rotations

    def unrolled_adjoint(
        self, p: Tensor, kept: tuple[Tensor, ...], x_bar: Tensor, rest_wanted: bool
    ) -> tuple[Tensor | None, Tensor]:
        """See `Tier`."""
        fits = len(kept) // 2
        p, x_bar = _components_first(p), _components_first(x_bar)
        b_bar, p_bar, h_bar = self._released(x_bar)
        for position, rotation in zip(reversed(kept[:fits]), reversed(kept[fits:]), strict=True):
            x, r = _components_first(position), rotation.permute(2, 3, 0, 1)
            covariance_bar = self._kernels.covariance_bar(x, p, r, b_bar)
            if rest_wanted:
                p_bar = p_bar + self._kernels.rest_bar(x, r, covariance_bar, b_bar)
            b_bar, p_more, h_more = self._released(self._kernels.position_bar(p, covariance_bar))
            p_bar, h_bar = p_bar + p_more, h_bar + h_more
        return p_bar.permute(1, 2, 0) if rest_wanted else None, h_bar.permute(1, 2, 0)

    def rotations(self, p: Tensor, x: Tensor) -> Tensor:
        """See `Tier`; (3, 3, B, V)."""
        return self._kernels.rotations(_components_first(x), _components_first(p))

    def advance(self, p: Tensor, h: Tensor, x: Tensor) -> Tensor:
        """See `Tier`."""
        p, h, x = (_components_first(points) for points in (p, h, x))
        residual = self._kernels.rotated_residual(self._kernels.rotations(x, p), p)
        return self._placed(p, h, residual).permute(1, 2, 0)

    def advance_adjoint(
        self, p: Tensor, x: Tensor, rotation: Tensor, y_bar: Tensor, rest_wanted: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """See `Tier`."""
        p, x, y_bar = (_components_first(points) for points in (p, x, y_bar))
        b_bar, p_bar, h_bar = self._released(y_bar)
        covariance_bar = self._kernels.covariance_bar(x, p, rotation, b_bar)
        x_bar = self._kernels.position_bar(p, covariance_bar).permute(1, 2, 0)
        if not rest_wanted:
            return x_bar, None, h_bar.permute(1, 2, 0)
        p_bar = p_bar + self._kernels.rest_bar(x, rotation, covariance_bar, b_bar)
        return x_bar, p_bar.permute(1, 2, 0), h_bar.permute(1, 2, 0)

    def _placed(self, p: Tensor, h: Tensor, residual: Tensor) -> Tensor:
        """Positions after the solve whose rotated residual is given."""
        step = torch.zeros_like(p)
        step[..., self._handles] = h - p[..., self._handles]
        right = self._smooth(residual - self._kernels.laplacian(step))[..., self._free]
        x = p.clone()
        x[..., self._free] += self._solved(right)
        x[..., self._handles] = h
        return x

    def _released(self, x_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Adjoint of `_placed`: gradients with respect to the residual, p and h."""
        multiplier = torch.zeros_like(x_bar)
        multiplier[..., self._free] = self._solved(x_bar[..., self._free])
        b_bar = self._smooth(multiplier)
        step_bar = -self._kernels.laplacian(b_bar)[..., self._handles]
        p_bar = x_bar.clone()
        p_bar[..., self._handles] = -step_bar
        return b_bar, p_bar, x_bar[..., self._handles] + step_bar

    def _smooth(self, y: Tensor) -> Tensor:
        return self._kernels.laplacian(y) if self._bilaplacian else y

    def _solved(self, right: Tensor) -> Tensor:
        return self._solve(right.flatten(0, 1).T.contiguous()).T.reshape(right.shape)


def _components_first(points: Tensor) -> Tensor:
    return points.permute(2, 0, 1).contiguous()
