"""The 68 landmarks of face models that come without them, from a file beside the model."""

from pathlib import Path
from typing import Any

import numpy as np

from ._arrays import read_archive
from .face_model import Int64
from .restricted_pickle import read_pickle, read_pickled_npy

SIDECAR_SUFFIX = ".landmarks68.txt"
_N_INNER = 51  # of the 68, those that are not on the jaw


def sidecar(model_path: Path) -> Path:
    """Where the landmark file of a model is looked for: ``face.landmarks68.txt`` beside ``face.h5``."""
    return model_path.with_name(model_path.stem + SIDECAR_SUFFIX)


def read_landmark_ids(path: Path, n_vertices: int) -> Int64:
    """The 68 vertex ids, counted from 0, of a text file with nothing but them.

    Raises:
        ValueError: not 68 whole numbers in 0..n_vertices - 1.
    """
    try:
        ids = np.array(path.read_text(encoding="utf-8").split(), np.int64)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a list of 68 vertex ids ({error})") from error
    if ids.shape != (68,) or ids.min() < 0 or ids.max() >= n_vertices:
        raise ValueError(f"{path}: holds {ids.size} vertex ids, expected 68 in 0 to {n_vertices - 1}")
    return ids


def read_landmark_embedding(paths: list[Path], faces: Int64) -> Int64:
    """The 68 vertex ids of landmarks that are given as points on triangles, as FLAME's are.

    Each landmark becomes the corner of its triangle with the greatest weight. Layouts: all 68 in one file
    (``full_lmk_faces_idx`` and ``full_lmk_bary_coords``, or ``lmk_face_idx`` and ``lmk_b_coords`` with 68 rows), or
    the 51 inner ones (``lmk_face_idx``, or ``static_lmk_faces_idx``) and the jaw of each head turn
    (``dynamic_lmk_faces_idx``, or a second file), of which the frontal one is taken.

    Args:
        paths: ``.pkl``, ``.npy`` or ``.npz`` files; the first is asked first.
        faces: (F, 3) triangles of the model.

    Raises:
        ValueError: unreadable, or not 68 landmarks together.
    """
    inner: Int64 | None = None
    jaw: Int64 | None = None
    for path in paths:
        fields = _fields(path)
        for prefix in ("full_lmk", "static_lmk", "lmk", "dynamic_lmk"):
            corners = _heaviest_corners(fields, prefix, faces, path)
            if corners is None:
                continue
            if corners.ndim == 2:  # one row per head turn, the first from the front
                corners = corners[0]
            if len(corners) == 68:
                return corners
            if len(corners) == _N_INNER:
                inner = corners
            elif len(corners) == 68 - _N_INNER:
                jaw = corners
    if inner is None or jaw is None:
        lacking = " and ".join(
            name for name, part in (("the 17 of the jaw", jaw), ("the 51 inner ones", inner)) if part is None
        )
        raise ValueError(f"{', '.join(map(str, paths))}: no 68 landmarks, {lacking} are missing")
    return np.concatenate([jaw, inner])


def _fields(path: Path) -> dict[str, Any]:
    if path.suffix == ".npz":
        return read_archive(path, "landmark embedding")
    content = read_pickle(path) if path.suffix == ".pkl" else read_pickled_npy(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a landmark embedding, it holds a {type(content).__name__}")
    return content


def _heaviest_corners(fields: dict[str, Any], prefix: str, faces: Int64, path: Path) -> Int64 | None:
    """Vertex ids (...,) of the landmarks under ``prefix``, or None if there are none."""
    triangles = next((fields[key] for key in (f"{prefix}_faces_idx", f"{prefix}_face_idx") if key in fields), None)
    weights = next((fields[key] for key in (f"{prefix}_bary_coords", f"{prefix}_b_coords") if key in fields), None)
    if triangles is None or weights is None:
        return None
    triangles, weights = np.asarray(triangles), np.asarray(weights)
    if triangles.dtype.kind not in "iu" or weights.shape != (*triangles.shape, 3):
        raise ValueError(
            f"{path}: {prefix} has ids {triangles.shape} and weights {weights.shape}, expected (N,), (N, 3)"
        )
    if not triangles.size or triangles.min() < 0 or triangles.max() >= len(faces):
        raise ValueError(f"{path}: {prefix} names triangles outside 0 to {len(faces) - 1}")
    corner = weights.argmax(-1)
    return np.take_along_axis(faces[triangles.astype(np.int64)], corner[..., None], -1)[..., 0]
