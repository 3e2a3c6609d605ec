"""Standardised faces in the coordinates in which swapping a region between faces is copying numbers.

LD-VAE (Foti, Koo, Stoyanov and Clarkson, CVPR 2022) trains on faces that carry one region of another face. A region's
interior, its vertices without a neighbour in another region, is replaced; the vertices along the borders stay. So the
vertices fall into seven disjoint sets: six interiors and the contours. On each set a linear face model with K modes
spans at most K dimensions. Orthonormal coordinates of the seven spaces, side by side, describe every swapped face
exactly, and a swap copies one block of coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmodel._mesh import adjacency
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.parts import REGIONS

_RANK_TOLERANCE = 1e-7  # of the largest singular value, as in segmodel._subspace
_LEAST_STD_MM = 1e-3  # coordinates that move less over the training faces are not blown up to unit variance


def swap_sets(layout: PartLayout) -> list[NDArray[np.int64]]:
    """Vertex ids of the six region interiors, in REGIONS order, and of the contours between regions, ascending."""
    neighbours = adjacency(layout.faces, layout.n_vertices).tocoo()
    across = layout.labels[neighbours.row] != layout.labels[neighbours.col]
    contour = np.zeros(layout.n_vertices, bool)
    contour[neighbours.row[across]] = True
    interiors = [np.setdiff1d(layout.core(region), np.flatnonzero(contour)) for region in REGIONS]
    for region, ids in zip(REGIONS, interiors, strict=True):
        if len(ids) == 0:
            raise ValueError(
                f"region {region!r} has no vertex away from its border, so it cannot be swapped: use a finer mesh"
            )
    return [*interiors, np.flatnonzero(contour)]


class SwapSpace(nn.Module):
    """Coordinates ``(B, r)`` of standardised faces ``(B, V, 3)``, in blocks that belong to disjoint vertices.

    ``x = (v - mean) / std`` per coordinate, over the training faces; the block of set k is ``basis_k.T @ x[ids_k]``.
    Buffers: ``mean (3V,)``, ``std (3V,)`` mm, ``basis_k (3 n_k, r_k)`` orthonormal, and ``blocks (6, r)`` bool, which
    coordinates a region's swap copies.
    """

    mean: Tensor
    std: Tensor
    blocks: Tensor

    def __init__(self, layout: PartLayout, mean: Tensor, std: Tensor, bases: Sequence[Tensor]) -> None:
        super().__init__()
        self.n_vertices = layout.n_vertices
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("std", std.float().clone())
        for k, (ids, basis) in enumerate(zip(swap_sets(layout), bases, strict=True)):
            self.register_buffer(f"ids_{k}", torch.from_numpy(ids), persistent=False)
            self.register_buffer(f"basis_{k}", basis.float().contiguous())
        owner = torch.cat([torch.full((basis.shape[1],), k) for k, basis in enumerate(bases)])
        self.register_buffer("blocks", owner == torch.arange(len(REGIONS))[:, None], persistent=False)

    @classmethod
    def fit(cls, layout: PartLayout, shapes: LinearShapes, rows: NDArray[np.int64]) -> SwapSpace:
        """The space of the faces' linear model, standardised over ``rows``; the axes of each set are its PCA axes."""
        n_modes = shapes.basis.shape[2]
        directions = shapes.basis.double().numpy().reshape(-1, n_modes)
        coefficients = shapes.coefficients.numpy()[rows].astype(np.float64)
        centre = coefficients.mean(axis=0)
        covariance = np.cov(coefficients.T, bias=True).reshape(n_modes, n_modes)
        mean = shapes.mean.double().numpy().ravel() + directions @ centre
        std = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", directions, covariance, directions, optimize=True), 0.0))
        std = np.maximum(std, _LEAST_STD_MM)
        standard = (directions / std[:, None]).reshape(-1, 3, n_modes)
        spread = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance) * np.eye(n_modes))
        bases = [_principal_axes(standard[ids].reshape(-1, n_modes), spread) for ids in swap_sets(layout)]
        return cls(layout, torch.from_numpy(mean), torch.from_numpy(std), [torch.from_numpy(basis) for basis in bases])

    @property
    def sets(self) -> list[tuple[Tensor, Tensor]]:
        """Vertex ids ``(n_k,)`` and orthonormal basis ``(3 n_k, r_k)`` of the seven sets."""
        return [(getattr(self, f"ids_{k}"), getattr(self, f"basis_{k}")) for k in range(len(REGIONS) + 1)]

    @property
    def rank(self) -> int:
        """Number r of coordinates."""
        return self.blocks.shape[1]

    def coordinates(self, vertices: Tensor) -> Tensor:
        """Coordinates ``(B, r)``, without unit, of ``vertices (B, V, 3)`` mm (orthogonal projection of each set)."""
        standard = ((vertices.flatten(1) - self.mean) / self.std).view(len(vertices), -1, 3)
        return torch.cat([standard[:, ids].flatten(1) @ basis for ids, basis in self.sets], dim=1)

    def vertices(self, coordinates: Tensor) -> Tensor:
        """Vertices ``(B, V, 3)`` mm of ``coordinates (B, r)``."""
        sets = self.sets
        order = torch.cat([ids for ids, _ in sets])
        pieces = coordinates.split([basis.shape[1] for _, basis in sets], dim=1)
        moved = [(u @ basis.T).view(len(u), -1, 3) for u, (_, basis) in zip(pieces, sets, strict=True)]
        standard = torch.cat(moved, dim=1)[:, torch.argsort(order)]
        return (standard.flatten(1) * self.std + self.mean).view(len(coordinates), -1, 3)

    def coordinates_of(self, shapes: LinearShapes) -> Tensor:
        """Coordinates ``(N, r)`` of all faces of a linear model, without building their meshes."""
        std, mean = (buffer.cpu().double().view(-1, 3) for buffer in (self.std, self.mean))
        directions, origin = shapes.basis.double() / std[..., None], (shapes.mean.double() - mean) / std
        blocks = [(ids.cpu(), basis.cpu().double()) for ids, basis in self.sets]
        mapping = torch.cat([basis.T @ directions[ids].flatten(0, 1) for ids, basis in blocks])
        shift = torch.cat([basis.T @ origin[ids].flatten() for ids, basis in blocks])
        return (shapes.coefficients.double() @ mapping.T + shift).float()

    def metric(self) -> Tensor:
        """``M (r, r)``, lower triangular: errors e in coordinates are, as ``e @ M``, as long as those in mm."""
        std = self.std.double().view(-1, 3)
        scaled = [std[ids].flatten()[:, None] * basis.double() for ids, basis in self.sets]
        return torch.block_diag(*(torch.linalg.cholesky(block.T @ block) for block in scaled)).float()

    def smoothness(self, layout: PartLayout) -> Tensor:
        """``G (r, r)`` with ``u @ G @ u`` the sum over vertices of the squared Laplacian ``|(Lambda x)_v|^2``.

        ``Lambda = I - D^-1 A`` is the random-walk Laplacian of the mesh and x the standardised face of coordinates u.
        """
        laplacian = random_walk_laplacian(layout.faces, layout.n_vertices)
        squared = (laplacian.T @ laplacian).tocsr()
        sets = [(ids.cpu().numpy(), basis.cpu().double().numpy()) for ids, basis in self.sets]
        rows = []
        for ids, basis in sets:
            blocks = []
            for others, other in sets:
                moved = (squared[ids][:, others] @ other.reshape(len(others), -1)).reshape(len(basis), -1)
                blocks.append(basis.T @ moved)
            rows.append(np.hstack(blocks))
        return torch.from_numpy(np.vstack(rows)).float()


def random_walk_laplacian(faces: NDArray[np.int64], n_vertices: int) -> sp.csr_matrix:
    """``I - D^-1 A`` of a triangle mesh, ``(V, V)``; the row of a vertex in no triangle is zero."""
    connected = adjacency(faces, n_vertices).astype(np.float64)
    degree = np.asarray(connected.sum(axis=1)).ravel()
    inverse = np.divide(1.0, degree, out=np.zeros(n_vertices), where=degree > 0)
    return (sp.diags((degree > 0).astype(np.float64)) - sp.diags(inverse) @ connected).tocsr()


def swapped_grid(coordinates: Tensor, blocks: Tensor, regions: Tensor) -> Tensor:
    """Every face of a group with a region of every other face of it: mini-batch feature swapping.

    Args:
        coordinates: ``(G, B, r)`` of G groups of B faces. blocks: ``(6, r)`` bool. regions: ``(G,)`` int64, the region
            that each group swaps.

    Returns:
        ``(G, B, B, r)``: cell (i, j) is face i with the region of face j; the diagonal holds the faces themselves.
    """
    taken = blocks[regions][:, None, None, :]
    return torch.where(taken, coordinates[:, None, :, :], coordinates[:, :, None, :])


def _principal_axes(directions: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal basis ``(n, r)`` of the span of ``directions (n, K)``: the axes of ``directions @ spread``."""
    axes, singular, _ = np.linalg.svd(directions @ spread, full_matrices=False)
    return axes[:, singular > _RANK_TOLERANCE * singular[0]]
