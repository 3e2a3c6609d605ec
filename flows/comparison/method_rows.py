"""Tables with a row per face and method: which rows there are, and their overlaps and label images."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fitting import PartOverlap

from ..methods import MASK, Method
from ..run_data import RunFaces

LabelImages = NDArray[np.uint8]
COUNTS = ("intersection", "union", "predicted_area", "target_area")


def method_rows(faces: RunFaces, methods: Sequence[Method]) -> dict[str, object]:
    """Columns face_id, person, model and step: all faces of the first method, then of the next."""
    return {
        "face_id": faces.face_id * len(methods),
        "person": [str(person) for person in faces.person] * len(methods),
        "model": [model for model, _ in methods for _ in faces.face_id],
        "step": [step for _, step in methods for _ in faces.face_id],
    }


def overlap_columns(
    faces: RunFaces, overlaps: Mapping[Method, PartOverlap], reference: str = MASK
) -> dict[str, object]:
    """Columns of the ``overlaps`` table of methods whose overlaps are in the order of the faces."""
    columns = {**method_rows(faces, list(overlaps)), "reference": [reference] * (len(overlaps) * len(faces))}
    return columns | {key: np.concatenate([getattr(o, key) for o in overlaps.values()]) for key in COUNTS}


def label_columns(faces: RunFaces, images: Mapping[Method, LabelImages]) -> dict[str, object]:
    """Columns of the ``drawn_labels`` table of methods whose label images (N, 224, 224) are in the order of the faces.

    It has no column for the person.
    """
    columns = method_rows(faces, list(images))
    del columns["person"]
    return {**columns, "labels": np.concatenate(list(images.values()))}
