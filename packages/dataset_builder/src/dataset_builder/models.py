"""Loading face models by name or path: this module knows which loader reads what."""

from pathlib import Path

from .assets import asset_path, user_cache
from .bfm_front import ASSEMBLY_FILES, READY_FILE, bfm_asset_path, load_bfm_front
from .bfm_h5 import load_bfm_h5
from .face_model import FaceModel
from .face_model_file import read_face_model
from .flame import load_flame
from .ict import load_ict
from .ict_folder import NEUTRAL_FILE, ict_folder

PROCEDURAL_SIZES = {"synthetic": 6_000, "synthetic-3k": 3_000, "synthetic-35k": 35_000}
MODEL_NAMES = (*PROCEDURAL_SIZES, "ict", "bfm")


def face_model_path(name_or_path: str | Path) -> Path | None:
    """The file or folder that :func:`load_face_model` reads a face model from; None for one that is built in.

    Raises:
        ValueError: the name is unknown, and there is no such path.
        AssetMissing: ``"ict"`` or ``"bfm"`` is not there.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in PROCEDURAL_SIZES:
        return None
    if name == "ict":
        return asset_path("ict_face")
    if name == "bfm":
        return bfm_asset_path()
    if not path.exists():
        raise ValueError(f"unknown face model {name!r}: use {', '.join(MODEL_NAMES)} or the path of a face model")
    return path


def load_face_model(
    name_or_path: str | Path, *, cache_dir: Path | None = None, landmarks: Path | None = None
) -> FaceModel:
    """A face model by name, or from a file or folder.

    Args:
        name_or_path: ``"synthetic"`` (about 6,000 vertices), ``"synthetic-3k"``, ``"synthetic-35k"``: the built-in
            procedural face; ``"ict"`` and ``"bfm"``: the ICT face and the front crop of BFM 2009 among the assets.
            Else a path:

            - ``.npz``: written by :func:`save_face_model`, the ICT layout (:func:`load_ict`), or FLAME;
            - ``.pkl``: FLAME (:func:`load_flame`), read without running the pickle;
            - ``.h5``: BFM 2017 or 2019 (:func:`load_bfm_h5`);
            - ``.mat``: ``BFM_model_front.mat`` (:func:`load_bfm_front`);
            - a folder with the files of BFM 2009's front crop, or with the OBJ meshes of ICT-FaceKit.
        cache_dir: folder that keeps built procedural faces; by default ``$XDG_CACHE_HOME/neo3df`` or
            ``~/.cache/neo3df``.
        landmarks: file with the 68 landmarks of a FLAME or HDF5 model, instead of what lies beside it.

    Raises:
        ValueError: if the name is unknown, the file is not a face model, or ``landmarks`` is given for a model that
            has its own.
        AssetMissing: ``"ict"`` or ``"bfm"`` is not there.
        ImportError: an ``.h5`` file without h5py.
    """
    name, path = str(name_or_path), Path(name_or_path)
    suffix = "" if name in MODEL_NAMES else path.suffix.lower()
    if landmarks is not None and suffix not in (".h5", ".hdf5", ".pkl", ".npz"):
        raise ValueError(f"face model {name!r} has its own landmarks; leave the landmark file out")
    found = face_model_path(name_or_path)
    if found is None:
        from .procedural import cached_procedural_face

        return cached_procedural_face(PROCEDURAL_SIZES[name], cache_dir or user_cache())
    if name == "ict":
        return load_ict(found)
    if name == "bfm":
        return load_bfm_front(found)
    if path.is_dir():
        return _from_folder(path)
    if suffix in (".h5", ".hdf5"):
        return load_bfm_h5(path, landmarks=landmarks)
    if suffix == ".pkl":
        return load_flame(path, landmarks=landmarks)
    if suffix == ".mat":
        return load_bfm_front(path)
    return read_face_model(path, landmarks=landmarks)


def _from_folder(path: Path) -> FaceModel:
    if ict_folder(path):
        return load_ict(path)
    if any((path / name).is_file() for name in (READY_FILE, *ASSEMBLY_FILES)):
        return load_bfm_front(path)
    raise ValueError(
        f"{path}: a folder without a face model; ICT-FaceKit has {NEUTRAL_FILE}, BFM 2009 {READY_FILE} or "
        f"{ASSEMBLY_FILES[0]}"
    )
