"""Loading and saving face models by name or path."""

from pathlib import Path

from .assets import asset_path, user_cache
from .face_model import FaceModel
from .face_model_file import read_face_model
from .ict import load_ict

PROCEDURAL_SIZES = {"synthetic": 6_000, "synthetic-3k": 3_000, "synthetic-35k": 35_000}
MODEL_NAMES = (*PROCEDURAL_SIZES, "ict")


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
    return read_face_model(path)
