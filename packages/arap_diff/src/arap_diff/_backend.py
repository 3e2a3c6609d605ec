"""Choice between the NumPy tier and the numba tier (extra `fast`), and the system that runs on it."""

import importlib.util
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from arap_diff import _numpy_kernels
from arap_diff._factor import Factor, SupernodalFactorisation, factorise
from arap_diff._unrolled import Alternation, Kernels, System
from arap_diff.mesh import Edges, FloatArray, IntArray, edge_laplacian

HAS_NUMBA = importlib.util.find_spec("numba") is not None


def resolve_backend(backend: str) -> str:
    """ "numpy" or "numba" for a user's choice; "auto" takes numba where it is installed."""
    if backend == "numba" and not HAS_NUMBA:
        raise ValueError('backend="numba" needs numba: pip install "arap-diff[fast]"')
    if backend == "auto":
        return "numba" if HAS_NUMBA else "numpy"
    return backend


def make_kernels(backend: str, edges: Edges, n_vertices: int) -> Kernels:
    """The local-step kernels of a resolved backend."""
    if backend == "numpy":
        return _numpy_kernels.NumpyKernels(edges, n_vertices)
    from arap_diff._numba_kernels import NumbaKernels

    return NumbaKernels(edges, n_vertices)


def build_system(edges: Edges, handles: IntArray, n_vertices: int, *, bilaplacian: bool, backend: str) -> System:
    """Factored system of an energy on a resolved backend: A = L^T L and K = L (bi-Laplacian), or A = L and K = I."""
    laplacian = edge_laplacian(edges, n_vertices)
    is_free = np.zeros(n_vertices, dtype=bool)
    is_free[edges.start] = is_free[edges.end] = True
    is_free[handles] = False
    free = np.flatnonzero(is_free)
    smoothing = laplacian[free] if bilaplacian else sp.identity(n_vertices, format="csr")[free]
    matrix = (smoothing @ laplacian).tocsr()
    to_handles = matrix[:, handles].tocsr()
    factor = factorise(matrix[:, free].tocsc(), backend)
    return System(
        free=free,
        handles=handles,
        factor=factor,
        kernels=make_kernels(backend, edges, n_vertices),
        to_handles=to_handles,
        from_handles=to_handles.T.tocsr(),
        smoothing=smoothing,
        smoothing_transposed=smoothing.T.tocsr(),
        compiled=_compiled(edges, free, handles, n_vertices, factor, bilaplacian),
    )


def _compiled(
    edges: Edges, free: IntArray, handles: IntArray, n_vertices: int, factor: Factor, bilaplacian: bool
) -> Alternation | None:
    if not isinstance(factor, SupernodalFactorisation):
        return None
    from arap_diff._numba_deform import CompiledAlternation

    return CompiledAlternation(edges, free[factor.order], handles, n_vertices, factor.lower, factor.team, bilaplacian)


def rotation_functions() -> tuple[Callable[[FloatArray], FloatArray], Callable[..., FloatArray]]:
    """Rotation fit and its adjoint on (N, 3, 3) arrays, of the fastest backend installed."""
    if HAS_NUMBA:
        from arap_diff import _numba_rotations

        return _numba_rotations.fit_rotations, _numba_rotations.rotation_adjoint
    return _numpy_kernels.fit_rotations, _numpy_kernels.rotation_adjoint
