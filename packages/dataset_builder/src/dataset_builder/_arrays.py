"""Arrays from the files of others: reading them, and one clear line for whatever can be wrong with them."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def archive_keys(path: Path, what: str) -> set[str]:
    """Names of the arrays of an ``.npz``; ValueError that calls the file ``what`` if it is none."""
    return set(_read(path, what, ()))


def read_archive(path: Path, what: str, only: Iterable[str] | None = None) -> dict[str, NDArray]:
    """Arrays of an ``.npz`` by name, all or those of ``only`` that are there; nothing pickled is read.

    Raises:
        ValueError: not such an archive, damaged, or with pickled objects; the message calls the file ``what``.
    """
    loaded = _read(path, what, only)
    return {key: values for key, values in loaded.items() if values is not None}


def checked_numbers(
    values: Any, shape: tuple[int | None, ...], source: str, *, below: int | None = None, may_be_empty: bool = False
) -> NDArray:
    """The array ``values``, if it holds numbers and has this shape, in which None is any length.

    Args:
        values: what was read.
        shape: lengths of the axes.
        source: file and name of the array, for the message.
        below: the numbers must be vertex ids, 0 to ``below`` - 1.
        may_be_empty: whether an array without a number will do.

    Raises:
        ValueError: anything else.
    """
    array = np.asarray(values)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    right_kind = array.dtype.kind in ("fiu" if below is None else "iu")
    if not right_kind or not fits or not (array.size or may_be_empty):
        wanted = ", ".join("*" if n is None else str(n) for n in shape)
        kind = "numbers" if below is None else "ids"
        raise ValueError(f"{source} has shape {array.shape} of {array.dtype}, expected {kind} ({wanted})")
    if below is not None and array.size and (array.min() < 0 or array.max() >= below):
        raise ValueError(f"{source} names {array.min()} to {array.max()}, expected 0 to {below - 1}")
    return array


def _read(path: Path, what: str, only: Iterable[str] | None) -> dict[str, NDArray | None]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = set(archive.files if only is None else only)
            return {key: archive[key] if key in wanted else None for key in archive.files}
    except (
        *(OSError, ValueError, EOFError, AttributeError, TypeError, MemoryError),
        *(NotImplementedError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(f"{path}: not a readable {what} ({type(error).__name__})") from error
