"""Memory that is kept between calls."""

import threading

import numpy as np

from arap_diff.mesh import FloatArray


class Workspace(threading.local):
    """Arrays by name, of the calling thread: touching fresh memory costs more than the arithmetic on it."""

    def __init__(self) -> None:
        self._arrays: dict[str, FloatArray] = {}

    def take(self, name: str, *shape: int) -> FloatArray:
        """An array with whatever was in it, the same for every call with this name and this shape or a longer one."""
        array = self._arrays.get(name)
        if array is None or len(array) < shape[0] or array.shape[1:] != shape[1:]:
            array = self._arrays[name] = np.empty(shape)
        return array[: shape[0]]
