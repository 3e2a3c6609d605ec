"""Choice between the NumPy tier and the numba tier (extra `fast`)."""

import importlib
import os
from collections.abc import Callable
from functools import cache

from arap_diff import _numpy_kernels
from arap_diff._alternation import Alternation, NumpyAlternation
from arap_diff._factor import StoredFactor
from arap_diff._system import System
from arap_diff.mesh import FloatArray


@cache
def has_numba() -> bool:
    """Whether numba can be imported and is allowed to compile."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return False
    try:
        importlib.import_module("numba")
    except ImportError:  # missing, or refusing the installed NumPy
        return False
    return True


def resolve_backend(backend: str) -> str:
    """ "numpy" or "numba" for a user's choice; "auto" takes numba where it works."""
    if backend == "numba" and not has_numba():
        raise ValueError(
            'backend="numba" needs numba: pip install "arap-diff[fast]", and no NUMBA_DISABLE_JIT in the environment'
        )
    if backend == "auto":
        return "numba" if has_numba() else "numpy"
    return backend


def prepare(system: System, backend: str, stored: StoredFactor | None = None) -> Alternation:
    """The alternation of a system on a resolved backend, factorised unless the backend can use the stored factor."""
    if backend == "numpy" or system.free.size == 0:
        return NumpyAlternation(system)
    from arap_diff._numba_deform import CompiledAlternation

    return CompiledAlternation(system, stored)


def rotation_functions() -> tuple[Callable[[FloatArray], FloatArray], Callable[..., FloatArray]]:
    """Rotation fit and its adjoint on (N, 3, 3) arrays, of the fastest backend that works."""
    if has_numba():
        from arap_diff import _numba_blocks

        return _numba_blocks.fit_rotations, _numba_blocks.rotation_adjoint
    return _numpy_kernels.fit_rotations, _numpy_kernels.rotation_adjoint
