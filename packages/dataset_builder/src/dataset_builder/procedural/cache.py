"""On-disk cache of the procedural face: building 35,000 vertices takes seconds, reading them does not."""

import hashlib
import os
from importlib import resources
from pathlib import Path

from ..face_model import FaceModel
from ..face_model_file import read_face_model, save_face_model
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
    if path.is_file():
        try:
            return read_face_model(path)
        except ValueError:
            pass  # damaged: built again below
    model = build_procedural_face(n_vertices, seed)
    save_face_model(model, path)
    return model
