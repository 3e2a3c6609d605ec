"""The linear system of one mesh, one set of handles and one energy: what every tier is prepared from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from arap_diff.mesh import Edges, IntArray, edge_laplacian


@dataclass(frozen=True)
class System:
    """A u = K b for the free vertices, with A = K L, L the Laplacian, and K = L (bi-Laplacian) or I (edges)."""

    edges: Edges
    handles: IntArray
    n_vertices: int
    bilaplacian: bool

    @cached_property
    def free(self) -> IntArray:
        """(N,) vertices that are in a face and no handles, ascending."""
        is_free = np.zeros(self.n_vertices, dtype=bool)
        is_free[self.edges.start] = is_free[self.edges.end] = True
        is_free[self.handles] = False
        return np.flatnonzero(is_free)

    def smoothing(self) -> sp.csr_matrix:
        """K_f (N, V)."""
        if self.bilaplacian:
            return self._laplacian()[self.free]
        return sp.identity(self.n_vertices, format="csr")[self.free]

    def rows(self) -> sp.csr_matrix:
        """A_f (N, V), the equations of the free vertices."""
        laplacian = self._laplacian()
        return (laplacian[self.free] @ laplacian).tocsr() if self.bilaplacian else laplacian[self.free]

    def block(self) -> sp.csc_matrix:
        """A_ff (N, N), symmetric and positive definite."""
        return self.rows()[:, self.free].tocsc()

    def _laplacian(self) -> sp.csr_matrix:
        return edge_laplacian(self.edges, self.n_vertices)
