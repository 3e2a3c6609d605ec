"""Face models in ``.npz`` files: our layout, written whole or not at all, and the others, told apart by their keys.

Our layout has one array per field of :class:`FaceModel` and its name, with the shapes, types and units given there:
``name``, ``licence``, ``mean``, ``id_basis``, ``ex_basis``, ``faces``, ``landmarks68``, ``ex_names`` and ``ex_range``
are required; ``mirror``, ``uv``, ``labels``, ``chart``, ``albedo``, ``albedo_basis`` and ``source`` may be left out.
"""

import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import archive_keys, read_archive
from .face_frame import require_face_frame
from .face_model import FaceModel
from .flame import FLAME_KEYS, load_flame
from .ict import ICT_KEYS, load_ict

_WHAT = ".npz face model"
_OPTIONAL_FIELDS = ("mirror", "uv", "labels", "chart", "albedo", "albedo_basis", "source")
_REQUIRED_FIELDS = tuple(f.name for f in fields(FaceModel) if f.name not in _OPTIONAL_FIELDS)
_FLOAT_FIELDS = dict(mean=2, id_basis=3, ex_basis=3, ex_range=2, uv=2, chart=2, albedo=2, albedo_basis=3)
_ID_FIELDS = dict(faces=2, landmarks68=1, mirror=1, labels=1)
"""Dimensions of each field that holds numbers."""


def save_face_model(model: FaceModel, path: Path) -> None:
    """Write every field of the model to an ``.npz`` at ``path``, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {f.name: getattr(model, f.name) for f in fields(FaceModel)}
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in values.items() if value is not None}
    arrays["ex_names"] = np.array(model.ex_names, dtype=np.str_)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_face_model(path: Path, *, landmarks: Path | None = None) -> FaceModel:
    """A face model from an ``.npz`` of our layout (see above), of the ICT layout, or of FLAME.

    Args:
        path: the file.
        landmarks: landmark file of FLAME, which is the only one of the three that needs one.

    Raises:
        ValueError: the file is none of these or is damaged; or its mean is no face in millimetres.
    """
    keys = archive_keys(path, _WHAT)
    if set(FLAME_KEYS) <= keys:
        return load_flame(path, landmarks=landmarks)
    if landmarks is not None:
        raise ValueError(f"{path}: has its own landmarks; leave the landmark file out")
    if {"faces", "name"} <= keys:
        return _from_arrays(read_archive(path, _WHAT), path)
    if set(ICT_KEYS) & keys:
        return load_ict(path)
    raise ValueError(
        f"{path}: neither a saved face model nor the ICT layout nor FLAME; it holds {', '.join(sorted(keys)) or '-'}"
    )


def _from_arrays(data: dict[str, NDArray], path: Path) -> FaceModel:
    missing = [key for key in _REQUIRED_FIELDS if key not in data]
    if missing:
        raise ValueError(f"{path}: the saved face model lacks {', '.join(missing)}")
    arrays = {key: _numbers(data[key], key, path) for key in (*_FLOAT_FIELDS, *_ID_FIELDS) if key in data}
    model = FaceModel(
        name=str(data["name"]),
        licence=str(data["licence"]),
        ex_names=tuple(str(name) for name in data["ex_names"].ravel()),
        source=str(data.get("source", "")),
        **arrays,
    )
    return require_face_frame(model, str(path))


def _numbers(values: NDArray, key: str, path: Path) -> NDArray:
    ids = key in _ID_FIELDS
    dtype = np.dtype(np.int64 if ids else np.float32)
    n_axes = _ID_FIELDS[key] if ids else _FLOAT_FIELDS[key]
    right_kind = values.dtype.kind in ("iu" if ids else "f")
    if not right_kind or values.ndim != n_axes or not (values.size or key.startswith("ex_")):
        raise ValueError(f"{path}: {key} is {values.shape} of {values.dtype}, expected {dtype} with {n_axes} axes")
    return values.astype(dtype, copy=False)
