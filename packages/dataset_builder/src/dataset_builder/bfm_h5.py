"""The Basel Face Models of 2017 and 2019 (HDF5 of Scalismo) as a `FaceModel`; needs h5py.

Gerig, Morel-Forster, Blumer, Egger, Luethi, Schoenborn, Vetter: "Morphable Face Models - An Open Framework", FG 2018.
The files are licensed by the University of Basel for research; nothing of them is part of this package.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .face_frame import outward_faces, require_face_frame
from .face_model import FaceModel, Float32, Int64
from .landmark_files import read_landmark_ids, sidecar
from .named_landmarks import landmarks_from_named_points

LICENCE = "Basel Face Model licence (research, non-commercial); cite Gerig et al., FG 2018"

# Points that the file names, by their number among the 68; lips that touch count once.
NAMED_LANDMARKS = {
    "center.chin.tip": 8,
    "center.nose.tip": 30,
    "center.nose.attachement_to_philtrum": 33,
    "right.eye.corner_outer": 36,
    "right.eye.corner_inner": 39,
    "left.eye.corner_inner": 42,
    "left.eye.corner_outer": 45,
    "right.lips.corner": 48,
    "center.lips.upper.outer": 51,
    "left.lips.corner": 54,
    "center.lips.lower.outer": 57,
    "center.lips.upper.inner": 62,
}


def load_bfm_h5(path: Path, *, landmarks: Path | None = None) -> FaceModel:
    """BFM 2017 or 2019 with all its shape, expression and colour modes, in millimetres and standard deviations.

    The mean of the expression model is no neutral face; it becomes the first expression, ``mean_expression`` from 0
    to 1, so that zeros are the neutral face and the file's own faces have it at 1.

    Args:
        path: ``model2017-1_bfm_nomouth.h5``, ``model2019_face12.h5`` or another crop: groups ``shape``, and if there
            ``expression`` and ``color``, each with ``model/mean``, ``pcaBasis`` and ``pcaVariance``; triangles in
            ``shape/representer/cells``.
        landmarks: text file with 68 vertex ids. By default ``<stem>.landmarks68.txt`` beside the model is taken, else
            the named points of the file's metadata are completed by :func:`landmarks_from_named_points`.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file is no such model, its landmarks are missing, or its mean is no face in millimetres.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(f"reading {path} needs h5py: pip install 'neo3df-dataset-builder[bfm]'") from error
    try:
        with h5py.File(path, "r") as file:
            return require_face_frame(_face_model(file, path, landmarks), str(path))
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); is it truncated?") from error


def _face_model(file: Any, path: Path, landmarks: Path | None) -> FaceModel:
    mean, id_basis = _linear(file, "shape", path)
    v = len(mean)
    if "expression" in file:
        offset, ex_basis = _linear(file, "expression", path, v)
        names = [f"expression_{i:02d}" for i in range(ex_basis.shape[2])]
        low, high = [-3.0] * len(names), [3.0] * len(names)
        if offset.any():
            ex_basis = np.concatenate([offset[..., None], ex_basis], -1)
            names, low, high = ["mean_expression", *names], [0.0, *low], [1.0, *high]
        ex_range = np.array([low, high], np.float32).T
    else:
        ex_basis, names, ex_range = np.zeros((v, 3, 0), np.float32), [], np.zeros((0, 2), np.float32)
    albedo, albedo_basis = _linear(file, "color", path, v) if "color" in file else (None, None)
    if albedo is not None and albedo_basis is not None and albedo.max() > 2:  # in 0 to 255
        albedo, albedo_basis = albedo / np.float32(255), albedo_basis / np.float32(255)
    ids, landmark_source = _landmarks(file, mean, path, landmarks)
    centroid = mean.mean(0, dtype=np.float64)
    return FaceModel(
        name=path.stem,
        licence=LICENCE,
        mean=(mean - centroid).astype(np.float32),
        id_basis=id_basis,
        ex_basis=ex_basis,
        faces=outward_faces(_triangles(file, v, path), mean),
        landmarks68=ids,
        ex_names=tuple(names),
        ex_range=ex_range,
        albedo=albedo,
        albedo_basis=albedo_basis,
        source=f"{path.name}, landmarks of {landmark_source}",
    )


def _linear(file: Any, group: str, path: Path, v: int | None = None) -> tuple[Float32, Float32]:
    """Mean (V, 3) and modes (V, 3, M), each as long as one standard deviation, of a group of the file."""
    mean, basis, variance = (
        _dataset(file, f"{group}/model/{name}", path).astype(np.float32) for name in ("mean", "pcaBasis", "pcaVariance")
    )
    if mean.ndim != 1 or len(mean) % 3 or (v is not None and len(mean) != 3 * v):
        expected = "three numbers a vertex" if v is None else f"({3 * v},)"
        raise ValueError(f"{path}: {group}/model/mean has shape {mean.shape}, expected {expected}")
    if basis.shape != (len(mean), len(variance)):
        raise ValueError(
            f"{path}: {group}/model/pcaBasis has shape {basis.shape}, expected ({len(mean)}, {len(variance)})"
        )
    if variance.min(initial=0) < 0:
        raise ValueError(f"{path}: {group}/model/pcaVariance holds {variance.min()}, a variance below 0")
    return mean.reshape(-1, 3), (basis * np.sqrt(variance)).reshape(-1, 3, len(variance))


def _triangles(file: Any, v: int, path: Path) -> Int64:
    cells = _dataset(file, "shape/representer/cells", path)
    if cells.ndim == 2 and cells.shape[0] == 3 and cells.shape[1] != 3:  # one column per triangle
        cells = cells.T
    if cells.ndim != 2 or cells.shape[1] != 3 or not cells.size or cells.min() < 0 or cells.max() >= v:
        raise ValueError(f"{path}: shape/representer/cells {cells.shape} must be triangles of vertices 0 to {v - 1}")
    return np.ascontiguousarray(cells, np.int64)


def _dataset(file: Any, key: str, path: Path) -> NDArray:
    if key not in file:
        raise ValueError(f"{path}: lacks {key}")
    values = np.asarray(file[key][()])
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {key} holds {values.dtype}, expected numbers")
    return values


def _landmarks(file: Any, mean: Float32, path: Path, given: Path | None) -> tuple[Int64, str]:
    if given is None and sidecar(path).is_file():
        given = sidecar(path)
    if given is not None:
        return read_landmark_ids(given, len(mean)), given.name
    key = "metadata/landmarks/json"
    if key not in file:
        raise ValueError(f"{path}: holds no landmarks; put {sidecar(path).name} with 68 vertex ids beside it")
    named = _named_points(file[key][()], path)
    points = {number: named[name] for name, number in NAMED_LANDMARKS.items() if name in named}
    return landmarks_from_named_points(points, mean, str(path)), f"its {len(points)} named points"


def _named_points(raw: Any, path: Path) -> dict[str, NDArray[np.float64]]:
    text = raw if isinstance(raw, bytes | str) else np.asarray(raw).tobytes()
    try:
        entries = json.loads(text)
        pairs = entries.items() if isinstance(entries, dict) else ((e["id"], e["coordinates"]) for e in entries)
        points = {str(name): np.array(xyz, np.float64) for name, xyz in pairs}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: metadata/landmarks/json is no list of named points ({error})") from error
    bad = [name for name, point in points.items() if point.shape != (3,)]
    if bad:
        raise ValueError(f"{path}: the landmark {bad[0]!r} is no point of three numbers")
    return points
