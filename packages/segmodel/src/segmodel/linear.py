"""Face shapes given as coefficients of a linear model, so that thousands of faces need no thousands of meshes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Rows = Sequence[int] | NDArray[np.integer] | Tensor | slice

_CHUNK_FLOATS = 4_000_000  # 16 MB per temporary


def box_centres(vertices: Tensor) -> Tensor:
    """Centre of the axis-aligned bounding box in y and z: ``(..., n, 3)`` mm to ``(..., 2)`` mm."""
    yz = vertices[..., 1:]
    return 0.5 * (yz.amax(dim=-2) + yz.amin(dim=-2))


def recentre(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Move each shape ``(..., n, 3)`` so that its y and z box centres are 0; x is untouched (it carries symmetry).

    Returns the moved shape and the ``(..., 2)`` centres that were subtracted, both mm.
    """
    centres = box_centres(vertices)
    return vertices - torch.nn.functional.pad(centres, (1, 0))[..., None, :], centres


class LinearShapes:
    """N faces ``mean + basis @ coefficients`` on one topology, all float32.

    Args:
        mean: ``(V, 3)`` mm.
        basis: ``(V, 3, K)`` mm per unit coefficient.
        coefficients: ``(N, K)``, one row per face.

    Raises:
        ValueError: shapes disagree or a value is not finite.
    """

    def __init__(self, mean: ArrayLike | Tensor, basis: ArrayLike | Tensor, coefficients: ArrayLike | Tensor) -> None:
        self.mean = _float_tensor("mean", mean)
        self.basis = _float_tensor("basis", basis)
        self.coefficients = _float_tensor("coefficients", coefficients)
        n_vertices = len(self.mean)
        if self.mean.shape != (n_vertices, 3):
            raise ValueError(f"mean has shape {tuple(self.mean.shape)}: give (V, 3) positions in mm")
        if self.basis.ndim != 3 or self.basis.shape[:2] != (n_vertices, 3):
            raise ValueError(f"basis has shape {tuple(self.basis.shape)}: give ({n_vertices}, 3, K) for this mean")
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != self.basis.shape[2]:
            raise ValueError(
                f"coefficients has shape {tuple(self.coefficients.shape)}: give (N, {self.basis.shape[2]})"
            )

    def __len__(self) -> int:
        """Number of faces N."""
        return len(self.coefficients)

    @property
    def n_vertices(self) -> int:
        """Number of mesh vertices V."""
        return len(self.mean)

    def vertices(self, rows: Rows) -> Tensor:
        """Whole faces of the given rows, ``(len(rows), V, 3)`` mm."""
        chosen = self.coefficients[_row_index(rows)]
        return self.mean + (chosen @ self.basis.reshape(-1, self.basis.shape[2]).T).view(-1, self.n_vertices, 3)

    def region(self, vertex_ids: NDArray[np.int64]) -> LinearShapes:
        """The same faces restricted to some vertices (n of V); the coefficients are shared, not copied."""
        ids = torch.from_numpy(np.asarray(vertex_ids, np.int64))
        part = LinearShapes.__new__(LinearShapes)
        part.mean, part.basis, part.coefficients = self.mean[ids], self.basis[ids].contiguous(), self.coefficients
        return part

    def box_centres(self) -> Tensor:
        """y and z box centres of all N faces, ``(N, 2)`` mm, computed in chunks of a few megabytes."""
        step = max(1, _CHUNK_FLOATS // (3 * self.n_vertices))
        return torch.cat([box_centres(self.vertices(slice(i, i + step))) for i in range(0, len(self), step)])


def _row_index(rows: Rows) -> Tensor | slice:
    return rows if isinstance(rows, slice) else torch.as_tensor(np.asarray(rows), dtype=torch.int64)


def _float_tensor(name: str, values: ArrayLike | Tensor) -> Tensor:
    tensor = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values, np.float32))
    tensor = tensor.detach().to("cpu", torch.float32).contiguous()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has values that are not finite: repair or drop those rows")
    return tensor
