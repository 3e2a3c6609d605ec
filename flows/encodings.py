"""Encodings of a run's faces, kept under the keys of ``dataset_builder.encoding_key``: each is computed once.

An embedding depends on its key alone: faces go through the network one by one, because the last bits of what a network
makes of a face depend on the rest of the batch. So an embedding that was looked up is, to the bit, the computed one.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_builder import Encodings, FaceEncoder, Preprocessing, encode_missing

from .errors import UserError
from .run_data import RunFaces
from .store import load_manifest
from .tables import read_table, write_table
from .versions import package_version

Known = Mapping[str, NDArray[np.float32]]

CHUNK = 256
FILE = "encodings.parquet"


class OneByOne:
    """An encoder that shows its network one face at a time."""

    def __init__(self, encoder: FaceEncoder) -> None:
        self._encoder = encoder
        self.name: str = encoder.name
        self.dim: int = encoder.dim
        self.differentiable: bool = encoder.differentiable
        self.preprocessing: Preprocessing = encoder.preprocessing
        self.weights_sha256: str = encoder.weights_sha256

    def encode(self, images: NDArray[np.uint8], five_points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Embeddings (B, E) of crops (B, 224, 224, 3) and their five points (B, 5, 2)."""
        found = np.empty((len(images), self.dim), np.float32)
        for row in range(len(images)):
            found[row] = self._encoder.encode(images[row : row + 1], five_points[row : row + 1])[0]
        return found


def encode_faces(encoder: FaceEncoder, faces: RunFaces, known: Known) -> Encodings:
    """Keys, embeddings (N, E) and which of them were computed; pictures are read some hundred at a time."""
    one_by_one = OneByOne(encoder)
    parts = [encode_missing(one_by_one, some.crops(), some.five_points, known) for some in _chunks(faces)]
    return Encodings(
        tuple(key for part in parts for key in part.keys),
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.computed for part in parts]),
    )


def write_encodings(folder: Path, faces: RunFaces, encoder: str, encodings: Encodings) -> None:
    """Write the encodings table of a train_regressors stage."""
    columns = {
        "face_id": faces.face_id,
        "encoder": [encoder] * len(faces),
        "key": list(encodings.keys),
        "embedding": encodings.embeddings,
    }
    write_table(folder / FILE, "encodings", columns, producer="dataset_builder")


def read_encodings(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Embeddings by key of a finished train_regressors stage."""
    table = read_table(folder / FILE, "encodings", columns=["key", "embedding"])
    return dict(zip(table["key"], table["embedding"], strict=True))


def finished_encodings(run_dir: Path) -> dict[str, NDArray[np.float32]]:
    """Embeddings by key of all finished train_regressors stages of a run folder that this version made."""
    version, known = package_version("dataset_builder"), dict[str, NDArray[np.float32]]()
    for folder in sorted(run_dir.glob("train_regressors-*")):
        manifest = load_manifest(folder)
        if manifest is not None and manifest.packages.get("dataset_builder") == version:
            with suppress(UserError):  # of an older contract, or damaged: they are computed again
                known |= read_encodings(folder)
    return known


def _chunks(faces: RunFaces) -> Iterator[RunFaces]:
    order = np.arange(len(faces))
    for first in range(0, len(faces), CHUNK):
        yield faces.where((order >= first) & (order < first + CHUNK))
