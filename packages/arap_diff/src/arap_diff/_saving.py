"""The file of a prepared solver: an npz archive of plain arrays, written whole or not at all, and checked when read."""

import hashlib
import io
import os
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arap_diff._factor import StoredFactor
from arap_diff.mesh import Edges, IntArray, check_every_component_is_held, check_handles, check_weights

FORMAT = "arap_diff solver"
VERSION = 2
FACTOR = [field.name for field in fields(StoredFactor)]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Saved:
    """What determines a solver, and the factor of a tier that can take it apart."""

    n_vertices: int
    energy: str
    handles: IntArray
    edges: Edges
    factor: StoredFactor | None


def write(path: Path, saved: Saved) -> None:
    """Write `saved` to `path` by way of a temporary file beside it."""
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "version": np.array(VERSION),
        "n_vertices": np.array(saved.n_vertices),
        "energy": np.array(saved.energy),
        "handles": saved.handles,
        "edges": np.stack([saved.edges.start, saved.edges.end], axis=1),
        "weights": saved.edges.weight,
    }
    if saved.factor is not None:
        arrays |= vars(saved.factor)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as stream:
            np.savez(stream, sha256=np.array(_digest(arrays)), **arrays)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: Path) -> Saved:
    """The contents of a file of `write`; ValueError in one line if it is anything else, or damaged."""
    contents = path.read_bytes()
    try:
        with np.load(io.BytesIO(contents), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # of many types: zipfile and NumPy do not say which
        raise ValueError(f"{path} is damaged or no saved ArapSolver: {error}") from None
    if str(arrays.get("format")) != FORMAT:
        raise ValueError(f"{path} is no saved ArapSolver")
    if arrays.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {arrays.get('version')} of the file format, this arap_diff reads {VERSION}: "
            "save it again"
        )
    if str(arrays.pop("sha256", None)) != _digest(arrays):
        raise ValueError(f"{path} is damaged: its contents do not have their checksum")
    try:
        return _checked(arrays)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _checked(arrays: Arrays) -> Saved:
    """Contents that no compiled loop can leave: a checksum does not say who made the file."""
    n_vertices, energy, edges = int(arrays["n_vertices"]), str(arrays["energy"]), arrays["edges"]
    if energy not in ("bilaplacian", "edges"):
        raise ValueError(f"unknown energy {energy!r}")
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != np.int64:
        raise ValueError(f"edges are {edges.dtype} {edges.shape}")
    start, end = np.ascontiguousarray(edges.T)
    if edges.size and (start.min() < 0 or end.max() >= n_vertices or (start >= end).any()):
        raise ValueError("edges name vertices that do not exist")
    if (np.diff(start * n_vertices + end) <= 0).any():
        raise ValueError("edges are not sorted")
    handles = check_handles(arrays["handles"], n_vertices)
    checked = Edges(start, end, check_weights(arrays["weights"], len(edges)))
    check_every_component_is_held(checked, handles, n_vertices)
    factor = None
    if "packed" in arrays:
        factor = StoredFactor(**{name: arrays[name] for name in FACTOR})
        factor.check(np.setdiff1d(edges, handles).size)
    return Saved(n_vertices, energy, handles, checked, factor)
