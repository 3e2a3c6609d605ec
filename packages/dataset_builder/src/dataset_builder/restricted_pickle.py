"""Numbers out of a pickle without running it: what a pickled face model needs, and nothing else.

A pickle is a program that may call anything it can name. Here it can name only the few things that pickled NumPy
arrays, SciPy sparse matrices and chumpy variables consist of, and each of these names stands for an inert record that
keeps its arguments. The arrays are made afterwards, by this module, from the bytes and the shape in the record. Every
other name is refused before anything is called.
"""

import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

_NUMERIC_KINDS = "fiub"
_DEEPEST = 50


class Record:
    """An object of the pickle, not made but remembered.

    Attributes:
        name: module and name of the class or function that the pickle asked for.
        arguments: the arguments it was to be called with.
        state: what was to be its state, or None.
    """

    name = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> "Record":
        """Keep the arguments; nothing of the named class is run."""
        record = object.__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(Record):
    """Record of ``numpy.ndarray``: its state is (version, shape, dtype, is_fortran, bytes)."""


class _Buffer(Record):
    """Record of an array in pickle protocol 5: its arguments are (bytes, dtype, shape, order)."""


class _Dtype(Record):
    """Record of ``numpy.dtype``: arguments ("f8", ...), state (version, byte order, ...)."""


class _Scalar(Record):
    """Record of a NumPy scalar: arguments (dtype, bytes)."""


def read_pickle(path: Path) -> Any:
    """The content of a pickle: dictionaries, lists, strings, numbers, arrays, and a `Record` for all other objects.

    Text of Python 2 is decoded as Latin-1. A chumpy variable becomes the array that it wraps.

    Raises:
        ValueError: the file is no pickle, is damaged, or asks for a name that is not allowed; the message names it.
    """
    return _loads(path.read_bytes(), path)


def read_pickled_npy(path: Path) -> Any:
    """The content of a ``.npy`` file, which may hold one pickled object, as :func:`read_pickle` gives it.

    Raises:
        ValueError: as :func:`read_pickle`.
    """
    content = path.read_bytes()
    stream = BytesIO(content)
    try:
        version = npy_format.read_magic(stream)
        read_header = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}[version]
        _, _, dtype = read_header(stream)
        if not dtype.hasobject:
            return np.load(BytesIO(content), allow_pickle=False)
    except (ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error})") from error
    loaded = _loads(stream.read(), path)
    return loaded[0] if isinstance(loaded, list) and len(loaded) == 1 else loaded


def _loads(content: bytes, path: Path) -> Any:
    try:
        return _Resolver()(_Unpickler(BytesIO(content), path).load())
    except _Refused as error:
        raise ValueError(str(error)) from None
    except (
        *(pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError),
        *(MemoryError, OverflowError, RecursionError, struct.error),
    ) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path}: not a readable pickle ({reason})") from error


class _Refused(Exception):
    """A pickle asked for a name that is not allowed."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BytesIO, path: Path) -> None:
        super().__init__(stream, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if name in _NUMPY_NAMES and module in _NUMPY_MODULES:
            return _NUMPY_NAMES[name]
        if module in _PYTHON_NAMES and name in _PYTHON_NAMES[module]:
            return _PYTHON_NAMES[module][name]
        package, _, _ = module.partition(".")
        if package == "chumpy" or (module.startswith("scipy.sparse.") and name in _SPARSE_NAMES):
            return type(name, (Record,), {"name": f"{module}.{name}"})
        raise _Refused(
            f"{self._path}: refused, the pickle wants to call {module}.{name}; only arrays are read from a pickle"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"{self._path}: refused, the pickle refers to an outside object {pid!r}")


def _reconstruct_array(subtype: Any, shape: Any, typecode: Any) -> _Array:
    return _Array()


def _reconstruct_object(cls: Any, base: Any, state: Any) -> Record:
    if not (isinstance(cls, type) and issubclass(cls, Record)):
        raise TypeError(f"cannot rebuild {cls!r}")
    return cls()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str):
        raise TypeError("only text is encoded")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_NUMPY_MODULES = (
    "numpy",
    *(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")),
)
_NUMPY_NAMES: dict[str, Any] = {
    "_reconstruct": _reconstruct_array,
    "_frombuffer": _Buffer,
    "ndarray": _Array,
    "dtype": _Dtype,
    "scalar": _Scalar,
}
_SPARSE_NAMES = ("csc_matrix", "csr_matrix", "coo_matrix")
_PYTHON_NAMES: dict[str, dict[str, Any]] = {
    "copy_reg": {"_reconstructor": _reconstruct_object},
    "copyreg": {"_reconstructor": _reconstruct_object},
    "__builtin__": {"object": Record, "bytes": _no_bytes},
    "builtins": {"object": Record, "bytes": _no_bytes},
    "_codecs": {"encode": _encode},
}


class _Resolver:
    """Puts arrays in place of their records, all the way down; an object that occurs twice is resolved once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST} levels")
        if id(value) not in self._done:
            self._done[id(value)] = self._resolved(value, depth + 1)
        return self._done[id(value)]

    def _resolved(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self(item, depth) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(item, depth) for item in value)
        if isinstance(value, _Array):
            _, shape, dtype, fortran, data = value.state
            if isinstance(data, list):  # an array of objects: a list of them, or the one that it wraps
                return self(data[0] if shape == () and len(data) == 1 else data, depth)
            return _array(data, dtype, shape, "F" if fortran else "C")
        if isinstance(value, _Buffer):
            return _array(*value.arguments[:4])
        if isinstance(value, _Scalar):
            return _array(value.arguments[1], value.arguments[0], (), "C")[()]
        if isinstance(value, Record) and value.name.startswith("chumpy.") and isinstance(value.state, dict):
            return self(value.state["x"], depth) if "x" in value.state else value
        return value


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray:
    if not isinstance(dtype, _Dtype):
        raise TypeError("an array without a type")
    little, big = (dtype.state[1] == sign if isinstance(dtype.state, tuple) else False for sign in "<>")
    kind = np.dtype(str(dtype.arguments[0]).lstrip("<>=|"))
    if kind.kind not in _NUMERIC_KINDS:
        raise TypeError(f"an array of {dtype.arguments[0]!r}")
    content = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(content, bytes | bytearray):
        raise TypeError(f"an array whose content is a {type(data).__name__}")
    stored = kind.newbyteorder("<" if little else ">") if little or big else kind
    values: NDArray = np.ndarray(tuple(shape), stored, content, order="F" if order == "F" else "C")
    return values.astype(kind)
