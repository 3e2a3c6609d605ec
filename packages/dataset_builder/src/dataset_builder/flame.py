"""FLAME (Li, Bolkart, Black, Li, Romero 2017), the linear head of the Max Planck Institute, as a `FaceModel`.

Only what is linear is kept: identity and expression. Jaw, neck and eyes turn by joints in FLAME and stay at rest here,
so a wide open mouth, which FLAME makes with its jaw joint, is out of reach. The model's licence does not allow
redistribution; nothing of it is part of this package.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import checked_numbers, read_archive
from .face_frame import outward_faces, require_face_frame
from .face_model import FaceModel, Int64
from .landmark_files import read_landmark_embedding, read_landmark_ids, sidecar
from .restricted_pickle import Record, read_pickle

LICENCE = "FLAME licence of MPI for Intelligent Systems (2020: research; 2023: CC-BY-4.0); cite Li et al., TOG 2017"
FLAME_KEYS = ("v_template", "shapedirs", "f")
EMBEDDING_FILES = (
    "landmark_embedding.npy",
    "flame_static_embedding.pkl",
    "flame_static_embedding_68.pkl",
    "flame_dynamic_embedding.npy",
)
_N_EXPRESSION = 100
_MM_PER_METRE = 1000.0


def load_flame(path: Path, *, landmarks: Path | None = None) -> FaceModel:
    """FLAME from ``.pkl`` or ``.npz``: all identity modes (300) and 100 expressions, in standard deviations.

    A pickle is read by :func:`dataset_builder.restricted_pickle.read_pickle`, which runs nothing.

    Args:
        path: file with ``v_template`` (V, 3) metres, ``shapedirs`` (V, 3, Ni + 100) and ``f`` (F, 3).
        landmarks: file with the 68 landmarks: vertex ids (``.txt``), or points on triangles (``.npy``, ``.npz``,
            ``.pkl``). By default they are looked for beside the model: ``<stem>.landmarks68.txt``, DECA's
            ``landmark_embedding.npy``, or FLAME's ``flame_static_embedding.pkl`` (51 points) together with
            ``flame_dynamic_embedding.npy`` (the jaw).

    Raises:
        ValueError: the file is no FLAME, its landmarks are missing, or it is not in metres.
    """
    data = read_archive(path, "NumPy archive of FLAME", FLAME_KEYS) if path.suffix == ".npz" else read_pickle(path)
    _require_keys(data, path)
    template = _numbers(data, "v_template", (None, 3), path)
    v = len(template)
    directions = _numbers(data, "shapedirs", (v, 3, None), path).astype(np.float32)
    n_identity = directions.shape[2] - _N_EXPRESSION
    if n_identity < 1:
        raise ValueError(
            f"{path}: shapedirs has {directions.shape[2]} modes, FLAME has identities and then {_N_EXPRESSION} "
            "expressions"
        )
    faces = _numbers(data, "f", (None, 3), path, below=v).astype(np.int64)
    ids, landmark_source = _landmarks(path, landmarks, faces, v)
    mean = template.astype(np.float64) * _MM_PER_METRE
    mean -= mean.mean(0)
    model = FaceModel(
        name="flame",
        licence=LICENCE,
        mean=mean.astype(np.float32),
        id_basis=directions[..., :n_identity] * np.float32(_MM_PER_METRE),
        ex_basis=directions[..., n_identity:] * np.float32(_MM_PER_METRE),
        faces=outward_faces(faces, mean),
        landmarks68=ids,
        ex_names=tuple(f"expression_{i:02d}" for i in range(_N_EXPRESSION)),
        ex_range=np.tile(np.array([-3, 3], np.float32), (_N_EXPRESSION, 1)),
        source=f"{path.name}, landmarks of {landmark_source}",
    )
    return require_face_frame(model, str(path))


def _landmarks(path: Path, given: Path | None, faces: Int64, n_vertices: int) -> tuple[Int64, str]:
    if given is None and sidecar(path).is_file():
        given = sidecar(path)
    if given is not None and given.suffix == ".txt":
        return read_landmark_ids(given, n_vertices), given.name
    found = [given] if given else [file for name in EMBEDDING_FILES if (file := path.parent / name).is_file()]
    if not found:
        raise ValueError(
            f"{path}: FLAME does not hold its landmarks; put landmark_embedding.npy (of DECA), or "
            "flame_static_embedding.pkl with flame_dynamic_embedding.npy (of FLAME), or "
            f"{sidecar(path).name} with 68 vertex ids beside it"
        )
    return read_landmark_embedding(found, faces), ", ".join(file.name for file in found)


def _require_keys(content: Any, path: Path) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not FLAME, the pickle holds a {type(content).__name__}")
    missing = [key for key in FLAME_KEYS if key not in content]
    if missing:
        raise ValueError(f"{path}: not FLAME, the file lacks {', '.join(missing)}")


def _numbers(
    data: dict[str, Any], key: str, shape: tuple[int | None, ...], path: Path, below: int | None = None
) -> NDArray:
    if isinstance(data[key], Record):
        raise ValueError(f"{path}: {key} is a {data[key].name or 'record'}, not an array of numbers")
    return checked_numbers(data[key], shape, f"{path}: {key}", below=below)
