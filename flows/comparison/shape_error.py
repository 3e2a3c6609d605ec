"""How far a method's neutral faces are from the true ones, region by region."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_builder import FaceModel
from segmodel import PartLayout

from ..contracts import REGIONS
from ..methods import ESTIMATE, TRUTH
from ..run_data import RunFaces
from .method_rows import Method, method_rows

CHUNK = 16


@dataclass(frozen=True)
class ShapeErrors:
    """Root mean square distance in mm of the vertices of N neutral faces from where they ought to be.

    Attributes:
        rms: (N, 6) over the vertices of each region, in REGIONS order.
        rms_face: (N,) over all vertices.
    """

    rms: NDArray[np.float32]
    rms_face: NDArray[np.float32]


def shape_reference(faces: RunFaces) -> str:
    """TRUTH where the photographs were made of a known identity, else ESTIMATE."""
    return ESTIMATE if faces.true_identity is None else TRUTH


def shape_errors(
    shapes: NDArray[np.float32], faces: RunFaces, face_model: FaceModel, layout: PartLayout
) -> ShapeErrors:
    """Errors of neutral ``shapes`` (N, V, 3) mm, in the order of ``faces``, against `shape_reference`.

    A vertex counts for the region of its label. Nothing is aligned: neutral faces share one frame.
    """
    wanted = (len(faces), layout.n_vertices, 3)
    if shapes.shape != wanted:
        raise ValueError(f"shapes are {shapes.shape}: give one neutral shape for each face, {wanted}")
    identity = faces.identity if faces.true_identity is None else faces.true_identity
    square = np.empty(shapes.shape[:2], np.float64)
    for first in range(0, len(faces), CHUNK):
        rows = slice(first, first + CHUNK)
        square[rows] = np.square(shapes[rows] - face_model.shape(identity[rows]), dtype=np.float64).sum(2)
    regions = [np.sqrt(square[:, layout.core(region)].mean(1)) for region in REGIONS]
    return ShapeErrors(np.stack(regions, 1).astype(np.float32), np.sqrt(square.mean(1)).astype(np.float32))


def shape_error_columns(faces: RunFaces, errors: Mapping[Method, ShapeErrors]) -> dict[str, object]:
    """Columns of the ``shape_errors`` table of methods whose errors are in the order of the faces."""
    return {
        **method_rows(faces, list(errors)),
        "reference": [shape_reference(faces)] * (len(errors) * len(faces)),
        "rms": np.concatenate([e.rms for e in errors.values()]),
        "rms_face": np.concatenate([e.rms_face for e in errors.values()]),
    }
