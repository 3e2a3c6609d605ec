"""Face models on disk: our ``.npz`` layout, written whole or not at all, and the ICT layout told by its keys."""

import os
import tempfile
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .face_model import FaceModel
from .ict import ICT_KEYS, load_ict

_OPTIONAL_FIELDS = ("mirror", "uv", "labels", "chart")
_REQUIRED_FIELDS = tuple(f.name for f in fields(FaceModel) if f.name not in _OPTIONAL_FIELDS)


def save_face_model(model: FaceModel, path: Path) -> None:
    """Write every field of the model to an ``.npz`` at ``path``, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {f.name: getattr(model, f.name) for f in fields(FaceModel)}
    arrays = {key: np.asarray(value) for key, value in values.items() if value is not None}
    arrays["ex_names"] = np.array(model.ex_names, dtype=np.str_)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_face_model(path: Path) -> FaceModel:
    """A face model from an ``.npz`` of :func:`save_face_model` or in the ICT layout; ValueError for anything else."""
    data = _read(path)
    if {"faces", "name"} <= data.keys():
        return _from_arrays(data, path)
    if set(ICT_KEYS) & data.keys():
        return load_ict(path)
    raise ValueError(
        f"{path}: neither a saved face model nor the ICT layout; it holds {', '.join(sorted(data)) or '-'}"
    )


def _read(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: not a readable .npz face model ({type(error).__name__}); write one with save_face_model"
        ) from error


def _from_arrays(data: dict[str, NDArray], path: Path) -> FaceModel:
    missing = [key for key in _REQUIRED_FIELDS if key not in data]
    if missing:
        raise ValueError(f"{path}: the saved face model lacks {', '.join(missing)}")
    return FaceModel(
        name=str(data["name"]),
        licence=str(data["licence"]),
        mean=data["mean"],
        id_basis=data["id_basis"],
        ex_basis=data["ex_basis"],
        faces=data["faces"],
        landmarks68=data["landmarks68"],
        ex_names=tuple(str(name) for name in data["ex_names"]),
        ex_range=data["ex_range"],
        mirror=data.get("mirror"),
        uv=data.get("uv"),
        labels=data.get("labels"),
        chart=data.get("chart"),
    )
