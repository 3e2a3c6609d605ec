"""The array type of the numba kernels, whose docstrings give shapes and dtypes."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
