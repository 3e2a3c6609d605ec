"""Loading and saving face models by name or path."""

import os
import tempfile
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .assets import asset_path, user_cache
from .face_model import FaceModel
from .ict import ICT_KEYS, load_ict

PROCEDURAL_SIZES = {"synthetic": 6_000, "synthetic-3k": 3_000, "synthetic-35k": 35_000}
MODEL_NAMES = (*PROCEDURAL_SIZES, "ict")
_OPTIONAL_FIELDS = ("mirror", "uv", "labels", "chart")
_REQUIRED_FIELDS = tuple(f.name for f in fields(FaceModel) if f.name not in _OPTIONAL_FIELDS)


def load_face_model(name_or_path: str | Path, *, cache_dir: Path | None = None) -> FaceModel:
    """A face model by name, or from a file.

    Args:
        name_or_path: ``"synthetic"`` (about 6,000 vertices), ``"synthetic-3k"``, ``"synthetic-35k"``: the built-in
            procedural face; ``"ict"``: the ICT face among the assets; else the path of an ``.npz`` written by
            :func:`save_face_model` or in the ICT layout (:func:`load_ict`).
        cache_dir: folder that keeps built procedural faces; by default ``$XDG_CACHE_HOME/neo3df`` or
            ``~/.cache/neo3df``.

    Raises:
        ValueError: if the name is unknown, or the file is not a face model.
    """
    name = str(name_or_path)
    if name in PROCEDURAL_SIZES:
        from .procedural import cached_procedural_face

        return cached_procedural_face(PROCEDURAL_SIZES[name], cache_dir or user_cache())
    if name == "ict":
        return load_ict(asset_path("ict_face"))
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"unknown face model {name!r}: use {', '.join(MODEL_NAMES)} or the path of an .npz file")
    return _load_file(path)


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


def _load_file(path: Path) -> FaceModel:
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
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz face model ({error})") from error


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
