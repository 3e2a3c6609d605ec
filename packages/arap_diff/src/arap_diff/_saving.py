"""The file of a prepared solver: an npz archive of plain arrays, written whole or not at all, and checked when read."""

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arap_diff.mesh import Edges, IntArray, check_every_component_is_held, check_handles, check_weights

FORMAT = "arap_diff solver"
VERSION = 1


@dataclass(frozen=True)
class Saved:
    """What determines a solver, whatever machine it runs on."""

    n_vertices: int
    energy: str
    handles: IntArray
    edges: Edges


def write(path: Path, saved: Saved) -> None:
    """Write `saved` to `path` by way of a temporary file beside it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez_compressed(
                stream,
                format=np.array(FORMAT),
                version=np.array(VERSION),
                n_vertices=np.array(saved.n_vertices),
                energy=np.array(saved.energy),
                handles=saved.handles,
                edges=np.stack([saved.edges.start, saved.edges.end], axis=1),
                weights=saved.edges.weight,
            )
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: Path) -> Saved:
    """The contents of a file of `write`; ValueError in one line if it is anything else, or damaged."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            fields = {name: archive[name] for name in archive.files}
    except (
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise ValueError(f"{path} is damaged or no saved ArapSolver: {error}") from None
    if str(fields.get("format")) != FORMAT:
        raise ValueError(f"{path} is no saved ArapSolver")
    if fields.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {fields.get('version')} of the file format, this arap_diff reads {VERSION}: "
            "save it again"
        )
    try:
        return _checked(fields)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _checked(fields: dict[str, np.ndarray]) -> Saved:
    n_vertices, energy, edges = int(fields["n_vertices"]), str(fields["energy"]), fields["edges"]
    if energy not in ("bilaplacian", "edges"):
        raise ValueError(f"unknown energy {energy!r}")
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype != np.int64:
        raise ValueError(f"edges are {edges.dtype} {edges.shape}")
    start, end = np.ascontiguousarray(edges.T)
    if edges.size and (start.min() < 0 or end.max() >= n_vertices or (start >= end).any()):
        raise ValueError("edges name vertices that do not exist")
    if (np.diff(start * n_vertices + end) <= 0).any():
        raise ValueError("edges are not sorted")
    handles = check_handles(fields["handles"], n_vertices)
    checked = Edges(start, end, check_weights(fields["weights"], len(edges)))
    check_every_component_is_held(checked, handles, n_vertices)
    return Saved(n_vertices, energy, handles, checked)
