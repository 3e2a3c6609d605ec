"""The ICT face (Li et al. 2020): the public linear face with expressions, as a `FaceModel` with closed eyes of its own.

Li, Bladin, Zhao, Chinara, Ingraham, Xiang, Ren, Prasad, Kishore, Xing, Li: "Learning Formation of Physically-Based Face
Attributes", CVPR 2020.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from ._arrays import checked_numbers, read_archive
from .eye_caps import Cap, boundary_loops, cap_hole
from .face_frame import require_face_frame
from .face_model import FaceModel, Float32, Int64
from .ict_folder import ict_folder, read_ict_folder
from .subdivision import midpoint_subdivision

LICENCE = "MIT, (c) 2020 USC ICT; cite Li et al., CVPR 2020"
ICT_KEYS = ("mean", "id_basis", "ex_basis", "ex_names", "quads", "landmarks68", "n_narrow_verts")
_UV_KEYS = ("uv", "tris", "tris_uv")
_RIM_VERTICES = 42
_CAP_RINGS = 3
_COARSE_FACES = 13_708  # narrow face and caps before subdivision
_MIRROR_TOLERANCE_MM = 0.1


def load_ict(path: Path, *, subdivisions: int = 1) -> FaceModel:
    """The ICT narrow face with capped lid openings, subdivided at its edge midpoints.

    Only the front of the head is kept. Each lid opening is closed by a flat cap (three rings and a centre) that takes
    the place of the eyeball, so that the eye is a part of the surface. One subdivision gives 27,628 vertices and
    54,832 triangles with a mean edge of 1.4 mm. The origin is the centroid of the mean's vertices. Expressions run
    from 0 to 1. The triangles of the caps are the last ones (:func:`eye_cap_vertices`).

    Args:
        path: the published folder of OBJ meshes (``FaceXModel``, or the folder that holds it), or a NumPy archive
            with ``mean`` (V, 3) mm, ``id_basis`` (100, V, 3) mm per standard deviation, ``ex_basis`` (53, V, 3),
            ``ex_names``, ``quads`` (Q, 4), ``landmarks68`` and ``n_narrow_verts`` (the vertices of the narrow face
            come first); ``uv`` with ``tris`` and ``tris_uv`` is optional.
        subdivisions: midpoint subdivisions of the whole mesh.

    Raises:
        ValueError: if the file or folder is not the ICT face, or its mesh is not the mirrored face with two lid
            openings.
    """
    folder = ict_folder(path)
    data = read_ict_folder(folder) if folder else _read(path)
    n_narrow = int(data["n_narrow_verts"])
    quads = data["quads"].astype(np.int64)
    quads = quads[(quads < n_narrow).all(1)]
    mean = data["mean"][:n_narrow].astype(np.float64)
    mirror = mirror_map(mean)
    if mirror is None:
        raise ValueError(f"{path}: the mean face is not mirrored in x = 0; is this the ICT face in millimetres?")
    faces = _split_quads(quads, mean, mirror)
    caps = _lid_caps(faces, mean, mirror, path)

    operator = sparse.vstack([sparse.identity(n_narrow, format="csr"), *(cap.weights for cap in caps)], format="csr")
    shift = np.cumsum([0, *(cap.weights.shape[0] for cap in caps[:-1])])
    cap_faces = [np.where(cap.faces < n_narrow, cap.faces, cap.faces + s) for cap, s in zip(caps, shift, strict=True)]
    fine = midpoint_subdivision(np.concatenate([faces, *cap_faces]), operator.shape[0], subdivisions)
    operator = (fine.operator @ operator).astype(np.float32)

    mean_fine = operator @ data["mean"][:n_narrow]
    mean_fine -= mean_fine.mean(0, dtype=np.float64).astype(np.float32) * [0, 1, 1]
    uv = _vertex_uv(data, n_narrow)
    model = FaceModel(
        name="ict",
        licence=LICENCE,
        mean=mean_fine.astype(np.float32),
        id_basis=_carry(operator, data["id_basis"], n_narrow),
        ex_basis=_carry(operator, data["ex_basis"], n_narrow),
        faces=fine.faces,
        landmarks68=_nearest_landmarks(data["landmarks68"], data["mean"], n_narrow),
        ex_names=tuple(str(name) for name in data["ex_names"]),
        ex_range=np.tile(np.array([0, 1], np.float32), (len(data["ex_names"]), 1)),
        mirror=mirror_map(mean_fine),
        uv=None if uv is None else operator @ uv,
        source="ICT-FaceKit (github.com/ICT-VGL/ICT-FaceKit), narrow face",
    )
    return require_face_frame(model, str(path))


def eye_cap_vertices(model: FaceModel) -> Int64:
    """Ids of the vertices inside the lid openings of :func:`load_ict`'s face, lid rims left out.

    Raises:
        ValueError: if the model is not the ICT face.
    """
    n_faces = len(model.faces)
    if model.name != "ict" or n_faces % _COARSE_FACES:
        raise ValueError(f"only the face model 'ict' has eye caps, got {model.name!r} with {n_faces} triangles")
    n_cap_faces = 2 * _RIM_VERTICES * (2 * _CAP_RINGS + 1) * (n_faces // _COARSE_FACES)
    return np.setdiff1d(model.faces[-n_cap_faces:], model.faces[:-n_cap_faces])


def mirror_map(vertices: NDArray[np.floating], tolerance: float = _MIRROR_TOLERANCE_MM) -> Int64 | None:
    """For each vertex (V, 3) the vertex at its mirror image in x = 0, or None if the shape is not mirrored.

    The map (V,) int64 is an involution and exact within ``tolerance`` mm.
    """
    distance, partner = cKDTree(vertices).query(vertices * [-1, 1, 1])
    mirrored = distance.max() <= tolerance and np.array_equal(partner[partner], np.arange(len(vertices)))
    return partner.astype(np.int64) if mirrored else None


def _read(path: Path) -> dict[str, NDArray]:
    data = read_archive(path, "NumPy archive of the ICT face")
    missing = [key for key in ICT_KEYS if key not in data]
    if missing:
        raise ValueError(f"{path}: not the ICT face, the archive lacks {', '.join(missing)}")
    v = len(checked_numbers(data["mean"], (None, 3), f"{path}: mean"))
    n_narrow = checked_numbers(data["n_narrow_verts"], (), f"{path}: n_narrow_verts")
    if not 0 < n_narrow <= v:
        raise ValueError(f"{path}: n_narrow_verts is {n_narrow}, expected 1 to {v}")
    if data["ex_names"].ndim != 1 or data["ex_names"].dtype.kind != "U":
        raise ValueError(f"{path}: ex_names must be a list of names, got {data['ex_names'].dtype}")
    checked_numbers(data["id_basis"], (None, v, 3), f"{path}: id_basis")
    checked_numbers(data["ex_basis"], (len(data["ex_names"]), v, 3), f"{path}: ex_basis", may_be_empty=True)
    checked_numbers(data["quads"], (None, 4), f"{path}: quads", below=v)
    checked_numbers(data["landmarks68"], (68,), f"{path}: landmarks68", below=v)
    if set(_UV_KEYS) <= data.keys():
        n_uv = len(checked_numbers(data["uv"], (None, 2), f"{path}: uv"))
        n_triangles = len(checked_numbers(data["tris"], (None, 3), f"{path}: tris", below=v))
        checked_numbers(data["tris_uv"], (n_triangles, 3), f"{path}: tris_uv", below=n_uv)
    return data


def _split_quads(quads: Int64, mean: NDArray[np.float64], mirror: Int64) -> Int64:
    """Two triangles per quad along its shorter diagonal on the symmetrised mean, so that the mesh is mirrored too."""
    symmetric = (mean + mean[mirror] * [-1, 1, 1]) / 2
    a, b, c, d = quads.T
    first = np.square(symmetric[a] - symmetric[c]).sum(1) <= np.square(symmetric[b] - symmetric[d]).sum(1)
    along_ac = np.stack([a, b, c, a, c, d], 1)
    along_bd = np.stack([a, b, d, b, c, d], 1)
    return np.where(first[:, None], along_ac, along_bd).reshape(-1, 3)


def _lid_caps(faces: Int64, mean: NDArray[np.float64], mirror: Int64, path: Path) -> tuple[Cap, Cap]:
    rims = [loop for loop in boundary_loops(faces) if len(loop) == _RIM_VERTICES]
    rims.sort(key=lambda rim: mean[rim, 0].mean())
    if len(rims) != 2 or set(mirror[rims[0]]) != set(rims[1]):
        raise ValueError(f"{path}: expected two mirrored lid openings of {_RIM_VERTICES} vertices, found {len(rims)}")
    left = cap_hole(rims[1], len(mean), _CAP_RINGS)
    right = cap_hole(mirror[rims[1]], len(mean), _CAP_RINGS)
    return Cap(right.weights, right.faces[:, ::-1]), left


def _carry(operator: sparse.csr_matrix, basis: NDArray, n_narrow: int) -> Float32:
    modes = np.moveaxis(basis[:, :n_narrow].astype(np.float32), 0, -1)
    return (operator @ modes.reshape(n_narrow, -1)).reshape(operator.shape[0], *modes.shape[1:])


def _nearest_landmarks(landmarks: NDArray, mean: NDArray, n_narrow: int) -> Int64:
    return cKDTree(mean[:n_narrow]).query(mean[landmarks])[1].astype(np.int64)


def _vertex_uv(data: dict[str, NDArray], n_narrow: int) -> Float32 | None:
    """Texture coordinates (n_narrow, 2) of the narrow face, or None where a seam gives a vertex more than one."""
    if not set(_UV_KEYS) <= data.keys():
        return None
    inside = (data["tris"] < n_narrow).all(1)
    vertex, corner_uv = data["tris"][inside].ravel(), data["uv"][data["tris_uv"][inside].ravel()]
    uv = np.zeros((n_narrow, 2), np.float32)
    uv[vertex] = corner_uv
    return uv if np.abs(uv[vertex] - corner_uv).max() < 1e-6 else None
