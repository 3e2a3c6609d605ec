"""The labelled linear faces the part VAE benchmarks train on."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from dataset_builder import FaceModel, load_face_model
from segmodel import LABEL_IDS, LinearShapes, PartLayout

FACES = ("synthetic", "synthetic-35k", "ict", "ict-11k")


def load(name: str, n_faces: int, labels: Path | None = None, seed: int = 0) -> tuple[PartLayout, LinearShapes]:
    """Part layout and random faces of a model.

    The built-in faces bring their labels. "ict", the ICT-FaceKit head as the pipeline uses it, takes them from a
    run's topology_vertices.parquet; "ict-11k" is the coarser one of ict_face.npz, its parts cut out of the skin along
    the 68 landmarks.
    """
    if name == "ict-11k":
        mean, basis, faces, found = _ict()
        coefficients = np.random.default_rng(seed).standard_normal((n_faces, basis.shape[2])).astype(np.float32)
        return PartLayout.from_labels(found, faces, mean), LinearShapes(mean, basis, coefficients)
    model = load_face_model(name)
    layout = PartLayout.from_labels(_labels(model, labels), model.faces, model.mean)
    return layout, LinearShapes(model.mean, model.id_basis, model.sample(n_faces, seed))


def _labels(model: FaceModel, table: Path | None) -> NDArray[np.int64]:
    if model.labels is not None:
        return model.labels
    if table is None:
        raise SystemExit(f"the face {model.name} has no labels: give a run's topology_vertices.parquet by --labels")
    return pq.read_table(table, columns=["label"])["label"].to_numpy()


def _ict() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Mean (V, 3) mm, basis (V, 3, K), triangles and labels of the coarse ICT face; eyeballs and teeth are rest."""
    if "NEO3DF_ASSETS" not in os.environ:
        raise SystemExit("ict-11k needs ict_face.npz in the folder that NEO3DF_ASSETS names")
    with np.load(Path(os.environ["NEO3DF_ASSETS"], "ict_face.npz")) as data:
        mean, faces = data["mean"].astype(np.float32), data["tris"].astype(np.int64)
        basis = np.ascontiguousarray(np.moveaxis(data["id_basis"], 0, -1), dtype=np.float32)
        landmarks, skin = mean[data["landmarks68"]], np.arange(len(mean)) < int(data["n_face_verts"])
    front = skin & (mean[:, 2] > landmarks[:, 2].min() - 5)

    def hull(first: int, last: int, grow: float) -> NDArray[np.bool_]:
        points = landmarks[first:last, :2]
        outward = points - points.mean(0)
        points = points + grow * outward / np.linalg.norm(outward, axis=1, keepdims=True)
        return front & (Delaunay(points).find_simplex(mean[:, :2]) >= 0)

    labels = np.full(len(mean), LABEL_IDS["rest"])
    labels[hull(17, 22, 3) | hull(22, 27, 3)] = LABEL_IDS["eyebrows"]
    labels[hull(36, 42, 2) | hull(42, 48, 2)] = LABEL_IDS["eyes"]
    labels[hull(27, 36, 4)] = LABEL_IDS["nose"]
    upper, lower = landmarks[[60, 61, 62, 63, 64]], landmarks[[60, 67, 66, 65, 64]]
    above = mean[:, 1] > np.interp(mean[:, 0], upper[:, 0], (upper[:, 1] + lower[:, 1]) / 2)
    lips = hull(48, 60, 1)
    labels[lips & above], labels[lips & ~above] = LABEL_IDS["upper_lip"], LABEL_IDS["lower_lip"]
    return mean, basis, faces, labels
