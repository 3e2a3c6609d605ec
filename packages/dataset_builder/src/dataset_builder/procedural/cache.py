"""On-disk cache of the procedural face: building 35,000 vertices takes seconds, reading them does not."""

import hashlib
import os
import tempfile
import zipfile
import zlib
from dataclasses import fields
from importlib import resources
from pathlib import Path

import numpy as np

from ..face_model import FaceModel
from .model import build_procedural_face

_GENERATOR = (
    "outlines.py",
    "chart.py",
    "mesh.py",
    "height.py",
    "handles.py",
    "identity.py",
    "expressions.py",
    "model.py",
)


def generator_hash() -> str:
    """SHA-256 (hex) of the source of the generator: any change of its code or its tables makes a new key."""
    digest = hashlib.sha256()
    for name in _GENERATOR:
        digest.update(resources.files(__package__).joinpath(name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def cached_procedural_face(n_vertices: int, cache_dir: str | os.PathLike[str], seed: int = 0) -> FaceModel:
    """The procedural face, read from ``cache_dir`` or built and stored there (temporary file, then rename).

    Args:
        n_vertices: as for :func:`build_procedural_face`.
        cache_dir: folder, made when missing. A file that cannot be read is built again.
        seed: as for :func:`build_procedural_face`.
    """
    key = hashlib.sha256(f"{generator_hash()}:{n_vertices}:{seed}".encode()).hexdigest()[:16]
    path = Path(cache_dir) / f"procedural-{n_vertices}-{key}.npz"
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        model = build_procedural_face(n_vertices, seed)
    _write(model, path)
    return model


def _write(model: FaceModel, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f.name: np.asarray(getattr(model, f.name)) for f in fields(model) if getattr(model, f.name) is not None}
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> FaceModel:
    with np.load(path, allow_pickle=False) as stored:
        values = {name: stored[name] for name in stored.files}
    return FaceModel(
        name=str(values["name"]),
        licence=str(values["licence"]),
        mean=values["mean"],
        id_basis=values["id_basis"],
        ex_basis=values["ex_basis"],
        faces=values["faces"],
        landmarks68=values["landmarks68"],
        ex_names=tuple(str(name) for name in values["ex_names"]),
        ex_range=values["ex_range"],
        mirror=values["mirror"],
        uv=values["uv"],
        labels=values["labels"],
        chart=values["chart"],
    )
