"""The Basel Face Model 2009, front crop of Deep3DFaceRecon: 35,709 vertices, 80 identities, 64 expressions, 80 colours.

Paysan, Knothe, Amberg, Romdhani, Vetter: "A 3D Face Model for Pose and Illumination Invariant Face Recognition", AVSS
2009; expressions of Guo et al. 2018; crop and landmarks of Deng et al. 2019. The files are licensed for research only
and come from the University of Basel and the authors; nothing of them is part of this package.

The Basel files are in micrometres, the ready ``BFM_model_front.mat`` in decimetres; what comes out is in millimetres.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from .alignment import CANONICAL_FIVE_POINTS_DM, five_points
from .assets import AssetMissing, asset_folders
from .face_frame import outward_faces, require_face_frame
from .face_model import FaceModel, Float32, Int64

LICENCE = (
    "Basel Face Model licence (research, non-commercial); cite Paysan et al. 2009, Guo et al. 2018, Deng et al. 2019"
)
READY_FILE = "BFM_model_front.mat"
BASEL_FILE = "01_MorphableModel.mat"
ASSEMBLY_FILES = (
    BASEL_FILE,
    "Exp_Pca.bin",
    "std_exp.txt",
    "BFM_front_idx.mat",
    "BFM_exp_idx.mat",
    "facemodel_info.mat",
)
CANONICAL_FILE = "similarity_Lm3D_all.mat"
N_IDENTITY, N_EXPRESSION, N_ALBEDO = 80, 64, 80

_MM_PER_DM = 100.0
_MM_PER_MICROMETRE = 1e-3
_CANONICAL_TOLERANCE_DM = 1e-3


def load_bfm_front(path: Path) -> FaceModel:
    """The front crop from a ready ``BFM_model_front.mat``, or assembled from the files it is made of.

    The mean is moved so that the centroid of its vertices is the origin, as the Deep3DMM network expects.

    Args:
        path: ``BFM_model_front.mat``, or a folder with it, or a folder with the six files ``01_MorphableModel.mat``,
            ``Exp_Pca.bin``, ``std_exp.txt``, ``BFM_front_idx.mat``, ``BFM_exp_idx.mat`` and ``facemodel_info.mat``. If
            ``similarity_Lm3D_all.mat`` lies beside them, its landmarks must be the ones that crops are aligned to.

    Raises:
        ValueError: a file is missing, unreadable or of another layout, or the mean is no face in these units.
    """
    folder = path if path.is_dir() else path.parent
    ready = folder / READY_FILE if path.is_dir() else path
    if (folder / CANONICAL_FILE).is_file():
        _check_canonical_points(folder / CANONICAL_FILE)
    if ready.is_file():
        return require_face_frame(_from_ready_file(ready), str(ready))
    missing = [name for name in ASSEMBLY_FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: the BFM front crop needs {READY_FILE}, or {', '.join(missing)} as well")
    return require_face_frame(_assembled(folder), str(folder))


def bfm_asset_path() -> Path:
    """Where the front crop lies among the assets: ``BFM_model_front.mat``, or the folder with what it is made of.

    Raises:
        AssetMissing: there is none; the message names the files and where they go.
    """
    folders = asset_folders()
    for folder in folders:
        for place in (folder, folder / "BFM"):
            if (place / READY_FILE).is_file():
                return place / READY_FILE
            if (place / BASEL_FILE).is_file():
                return place
    places = " or ".join(str(folder / "BFM") for folder in folders)
    raise AssetMissing(
        f"load_face_model('bfm') needs {READY_FILE}, or {', '.join(ASSEMBLY_FILES)} (licence: research only, from "
        f"faces.dmi.unibas.ch and the Deep3DFaceRecon_pytorch page): put them at {places}."
    )


def _from_ready_file(path: Path) -> FaceModel:
    keys = ("meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "keypoints")
    data = _read_mat(path, keys)
    v = data["meanshape"].size // 3
    return _face_model(
        mean=_points(data["meanshape"], v, path, "meanshape") * _MM_PER_DM,
        id_basis=_modes(data["idBase"], v, N_IDENTITY, path, "idBase") * _MM_PER_DM,
        ex_basis=_modes(data["exBase"], v, N_EXPRESSION, path, "exBase") * _MM_PER_DM,
        albedo=_points(data["meantex"], v, path, "meantex") / 255,
        albedo_basis=_modes(data["texBase"], v, N_ALBEDO, path, "texBase") / 255,
        faces=_indices(data["tri"], v, path, "tri").reshape(-1, 3),
        landmarks=_indices(data["keypoints"], v, path, "keypoints").ravel(),
        source=path.name,
    )


def _assembled(folder: Path) -> FaceModel:
    keys = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV")
    basel_path, info_path = folder / BASEL_FILE, folder / "facemodel_info.mat"
    basel = _read_mat(basel_path, keys)
    info = _read_mat(info_path, ("tri", "keypoints"))
    n_basel = basel["shapeMU"].size // 3
    front = _read_mat(folder / "BFM_front_idx.mat", ("idx",))["idx"]
    trim = _read_mat(folder / "BFM_exp_idx.mat", ("trimIndex",))["trimIndex"]
    in_basel = _indices(trim, n_basel, folder / "BFM_exp_idx.mat", "trimIndex").ravel()
    in_expression = _indices(front, len(in_basel), folder / "BFM_front_idx.mat", "idx").ravel()
    chosen = in_basel[in_expression]

    def scaled(kind: str, count: int) -> Float32:
        modes = _modes(basel[f"{kind}PC"], n_basel, count, basel_path, f"{kind}PC")[chosen]
        return modes * _deviations(basel[f"{kind}EV"], count, basel_path, f"{kind}EV")

    v = len(chosen)
    return _face_model(
        mean=_points(basel["shapeMU"], n_basel, basel_path, "shapeMU")[chosen] * _MM_PER_MICROMETRE,
        id_basis=scaled("shape", N_IDENTITY) * _MM_PER_MICROMETRE,
        ex_basis=_expressions(folder, len(in_basel))[in_expression] * _MM_PER_MICROMETRE,
        albedo=_points(basel["texMU"], n_basel, basel_path, "texMU")[chosen] / 255,
        albedo_basis=scaled("tex", N_ALBEDO) / 255,
        faces=_indices(info["tri"], v, info_path, "tri").reshape(-1, 3),
        landmarks=_indices(info["keypoints"], v, info_path, "keypoints").ravel(),
        source=", ".join(ASSEMBLY_FILES),
    )


def _face_model(
    *,
    mean: NDArray[np.floating],
    id_basis: NDArray[np.floating],
    ex_basis: NDArray[np.floating],
    albedo: NDArray[np.floating],
    albedo_basis: NDArray[np.floating],
    faces: Int64,
    landmarks: Int64,
    source: str,
) -> FaceModel:
    centred = mean - mean.mean(0, dtype=np.float64)
    return FaceModel(
        name="bfm",
        licence=LICENCE,
        mean=centred.astype(np.float32),
        id_basis=id_basis.astype(np.float32),
        ex_basis=ex_basis.astype(np.float32),
        faces=outward_faces(faces, centred),
        landmarks68=landmarks,
        ex_names=tuple(f"expression_{i:02d}" for i in range(ex_basis.shape[2])),
        ex_range=np.tile(np.array([-3, 3], np.float32), (ex_basis.shape[2], 1)),
        albedo=albedo.astype(np.float32),
        albedo_basis=albedo_basis.astype(np.float32),
        source=source,
    )


def _expressions(folder: Path, n_vertices: int) -> Float32:
    """Expression modes (n_vertices, 3, 64) in micrometres: an int32 count, the mean, then one vector per mode."""
    path = folder / "Exp_Pca.bin"
    content = path.read_bytes()
    count = struct.unpack("<i", content[:4])[0] if len(content) >= 4 else 0
    expected = 4 + 12 * n_vertices * (1 + count)
    if count < N_EXPRESSION or len(content) != expected:
        raise ValueError(
            f"{path}: {len(content)} bytes for {count} expressions of {n_vertices} vertices, expected {expected} bytes "
            f"and {N_EXPRESSION} or more expressions; is the file truncated?"
        )
    modes = np.frombuffer(content, "<f4", offset=4 + 12 * n_vertices).reshape(count, n_vertices, 3)[:N_EXPRESSION]
    deviations_path = folder / "std_exp.txt"
    try:
        deviations = np.array(deviations_path.read_text(encoding="utf-8").split(), np.float64)
    except ValueError as error:
        raise ValueError(f"{deviations_path}: not a list of numbers ({error})") from error
    return np.moveaxis(modes, 0, -1) * _deviations(deviations, N_EXPRESSION, deviations_path, "the list")


def _check_canonical_points(path: Path) -> None:
    landmarks = _read_mat(path, ("lm",))["lm"]
    if landmarks.shape != (68, 3):
        raise ValueError(f"{path}: lm has shape {landmarks.shape}, expected (68, 3)")
    in_file = np.stack([five_points(landmarks[:, [k, k]])[:, 0] for k in range(3)], 1)
    apart = np.abs(in_file - CANONICAL_FIVE_POINTS_DM).max()
    if not apart <= _CANONICAL_TOLERANCE_DM:
        raise ValueError(
            f"{path}: its five points are {apart:.3g} dm from those that crops are aligned to; this is not the file of "
            "Deep3DFaceRecon"
        )


def _read_mat(path: Path, keys: tuple[str, ...]) -> dict[str, NDArray]:
    try:
        data = loadmat(path, variable_names=keys)
    except (
        *(OSError, ValueError, TypeError, LookupError, EOFError, MemoryError, NotImplementedError),
        *(MatReadError, struct.error, zlib.error),
    ) as error:
        raise ValueError(f"{path}: not a readable MATLAB file ({type(error).__name__}); is it truncated?") from error
    missing = [key for key in keys if key not in data]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}")
    arrays = {key: np.asarray(data[key]) for key in keys}
    for key, values in arrays.items():
        if values.dtype.kind not in "fiu":
            raise ValueError(f"{path}: {key} holds {values.dtype}, expected numbers")
    return arrays


def _points(values: NDArray, n_vertices: int, path: Path, key: str) -> Float32:
    if values.size != 3 * n_vertices or not n_vertices:
        raise ValueError(f"{path}: {key} has {values.size} numbers, expected three for each of {n_vertices} vertices")
    return values.astype(np.float32).reshape(n_vertices, 3)


def _modes(values: NDArray, n_vertices: int, count: int, path: Path, key: str) -> Float32:
    if values.ndim != 2 or values.shape[0] != 3 * n_vertices or values.shape[1] < count:
        raise ValueError(f"{path}: {key} has shape {values.shape}, expected ({3 * n_vertices}, {count} or more)")
    return values[:, :count].astype(np.float32).reshape(n_vertices, 3, count)


def _deviations(values: NDArray, count: int, path: Path, key: str) -> Float32:
    if values.size < count:
        raise ValueError(f"{path}: {key} has {values.size} standard deviations, expected {count} or more")
    return values.ravel()[:count].astype(np.float32)


def _indices(values: NDArray, n_vertices: int, path: Path, key: str) -> Int64:
    """The ids of a file, which count from 1, as ids from 0."""
    ids = values.astype(np.int64) - 1
    if not ids.size or ids.min() < 0 or ids.max() >= n_vertices:
        least, most = (ids.min() + 1, ids.max() + 1) if ids.size else ("none", "none")
        raise ValueError(f"{path}: {key} holds ids {least} to {most}, expected 1 to {n_vertices}")
    return ids
