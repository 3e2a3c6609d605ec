"""The ICT face as it is published: a folder of OBJ meshes, one per mode, all with the vertices of the neutral one.

The folder is ``FaceXModel`` of ICT-VGL/ICT-FaceKit, in centimetres (MIT licence).
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .face_model import Float32, Int64

NEUTRAL_FILE = "generic_neutral_mesh.obj"
N_NARROW = 6_706
"""Vertices of the narrow face area, which come first."""

# The 68 landmarks of Multi-PIE among the vertices, as the kit's page lists them.
LANDMARKS68 = np.fromstring(
    """
    1225 1888 1052 367 1719 1722 2199 1447 966 3661 4390 3927 3924 2608 3272 4088 3443 268 493 1914 2044 1401 3615 4240
    4114 2734 2509 978 4527 4942 4857 1140 2075 1147 4269 3360 1507 1542 1537 1528 1518 1511 3742 3751 3756 3721 3725
    3732 5708 5695 2081 0 4275 6200 6213 6346 6461 5518 5957 5841 5702 5711 5533 6216 6207 6470 5517 5966
    """,
    np.int64,
    sep=" ",
)

_CONFIG_FILE = "vertex_indices.json"
_MM_PER_CM = 10.0


def ict_folder(path: Path) -> Path | None:
    """The folder with the meshes: ``path`` itself or its ``FaceXModel``; None if neither holds the neutral mesh."""
    return next((folder for folder in (path, path / "FaceXModel") if (folder / NEUTRAL_FILE).is_file()), None)


def read_ict_folder(folder: Path) -> dict[str, NDArray]:
    """The arrays of the ICT layout (see :func:`dataset_builder.ict.load_ict`) of the narrow face, mm, from the meshes.

    Identities are ``identity000.obj`` onwards; the expressions are those that ``vertex_indices.json`` lists.

    Raises:
        ValueError: a file is missing, unreadable, or has another number of vertices than the neutral mesh.
    """
    neutral_path = folder / NEUTRAL_FILE
    n_all, neutral = _narrow_vertices(neutral_path)
    identities = sorted(folder.glob("identity[0-9]*.obj"))
    if not identities:
        raise ValueError(f"{folder}: lacks identity000.obj and its successors, the modes of the ICT face")
    names = _expression_names(folder)

    def modes(paths: list[Path]) -> Float32:
        stack = np.empty((len(paths), N_NARROW, 3), np.float32)
        for row, path in enumerate(paths):
            n_found, vertices = _narrow_vertices(path)
            if n_found != n_all:
                raise ValueError(f"{path}: has {n_found} vertices, the neutral mesh {n_all}; is the file truncated?")
            stack[row] = (vertices - neutral) * _MM_PER_CM
        return stack

    return {
        "mean": (neutral * _MM_PER_CM).astype(np.float32),
        "id_basis": modes(identities),
        "ex_basis": modes([folder / f"{name}.obj" for name in names]),
        "ex_names": np.array(names),
        "landmarks68": LANDMARKS68,
        "n_narrow_verts": np.array(N_NARROW),
        **_narrow_polygons(neutral_path, n_all),
    }


def _expression_names(folder: Path) -> list[str]:
    path = folder / _CONFIG_FILE
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["expressions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: needed for the names of the expressions, not readable ({error!r})") from error
    missing = [f"{name}.obj" for name in names if not (folder / f"{name}.obj").is_file()]
    if missing or not names:
        raise ValueError(f"{folder}: lacks {', '.join(missing) or 'any expression'}, which {_CONFIG_FILE} lists")
    return [str(name) for name in names]


def _lines(path: Path, kind: str) -> list[str]:
    """What follows ``kind`` on the lines of an OBJ file that begin with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable OBJ mesh ({error})") from error
    start = f"{kind} "
    return [line[len(start) :] for line in text.splitlines() if line.startswith(start)]


def _rows(lines: list[str], width: int, path: Path, kind: str) -> NDArray[np.float64]:
    try:
        numbers = np.array(" ".join(lines).split(), np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: a '{kind}' line holds no number ({error})") from error
    if numbers.size != width * len(lines) or not np.isfinite(numbers).all():
        raise ValueError(f"{path}: each '{kind}' line must hold {width} finite numbers; is the file truncated?")
    return numbers.reshape(-1, width)


def _narrow_vertices(path: Path) -> tuple[int, NDArray[np.float64]]:
    """Number of vertices of a mesh, and those of the narrow face (N_NARROW, 3) in centimetres."""
    lines = _lines(path, "v")
    if len(lines) < N_NARROW:
        raise ValueError(f"{path}: has {len(lines)} vertices, the ICT face {N_NARROW} or more; is the file truncated?")
    return len(lines), _rows(lines[:N_NARROW], 3, path, "v")


def _narrow_polygons(path: Path, n_vertices: int) -> dict[str, NDArray]:
    """Quads of the narrow face, and its texture coordinates per corner if the mesh has them."""
    corners = [[corner.split("/") for corner in line.split()] for line in _lines(path, "f")]
    try:
        vertex = [np.array([corner[0] for corner in polygon], np.int64) - 1 for polygon in corners]
    except ValueError as error:
        raise ValueError(f"{path}: an 'f' line holds no vertex number ({error})") from error
    if any(ids.min() < 0 or ids.max() >= n_vertices for ids in vertex):
        raise ValueError(f"{path}: an 'f' line names a vertex outside 1 to {n_vertices}")
    inside = [row for row, ids in enumerate(vertex) if ids.max() < N_NARROW]
    if not inside or any(len(vertex[row]) != 4 for row in inside):
        raise ValueError(f"{path}: the narrow face must be made of quads")
    quads = np.stack([vertex[row] for row in inside])
    uv = _rows([" ".join(line.split()[:2]) for line in _lines(path, "vt")], 2, path, "vt")
    polygons = {"quads": quads}
    if len(uv) and all(len(corner) > 1 and corner[1] for row in inside for corner in corners[row]):
        uv_ids = np.array([[corner[1] for corner in corners[row]] for row in inside], np.int64) - 1
        if uv_ids.min() < 0 or uv_ids.max() >= len(uv):
            raise ValueError(f"{path}: an 'f' line names a texture coordinate outside 1 to {len(uv)}")
        polygons |= {"uv": uv.astype(np.float32), "tris": _halves(quads), "tris_uv": _halves(uv_ids)}
    return polygons


def _halves(quads: Int64) -> Int64:
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
