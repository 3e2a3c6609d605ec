"""The faces of a run as arrays: which rows are wanted, and their crops, masks and estimates."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dataset_builder import FaceEstimate, five_points

from .errors import UserError
from .run_model import Pose
from .settings import Photos
from .tables import Columns, read_table, row_count


@dataclass(frozen=True)
class RunFaces:
    """N faces of a run, one row each: see the ``faces`` and ``masks`` tables for units.

    ``rows`` (N,): their places in the tables, ascending. ``mask_source``: "file", "synthetic", a parser's name, or ""
    where there is no mask. ``person``: whom a face belongs to; what is drawn anew for a confidence interval.
    ``true_identity``: what synthetic photographs were made of, None for others.
    """

    folder: Path
    rows: NDArray[np.int64]
    face_id: list[str]
    person: NDArray[np.str_]
    split: NDArray[np.str_]
    clean: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    mask_source: NDArray[np.str_]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    angles: NDArray[np.float32]
    translation: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    true_identity: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.face_id)

    @property
    def pose(self) -> Pose:
        """Estimated expression and pose as tensors."""
        return Pose(*(torch.from_numpy(np.array(x)) for x in (self.expression, self.angles, self.translation)))

    @property
    def estimate(self) -> FaceEstimate:
        """The landmark estimate that was stored."""
        residual = np.zeros((len(self), 68), np.float32)
        return FaceEstimate(self.identity, self.expression, self.angles, self.translation, residual)

    @property
    def five_points(self) -> NDArray[np.float32]:
        """Five points (N, 5, 2) of the landmarks, crop pixels."""
        return np.stack([five_points(marks) for marks in self.landmarks]).astype(np.float32)

    def where(self, chosen: NDArray[np.bool_]) -> "RunFaces":
        """The faces for which ``chosen`` (N,) holds."""
        keep = np.flatnonzero(chosen)
        arrays = {k: v[keep] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return RunFaces(folder=self.folder, face_id=[self.face_id[i] for i in keep], **arrays)

    def crops(self) -> NDArray[np.uint8]:
        """Pictures (N, 224, 224, 3)."""
        files = self._read("crops", ["image"])
        encoded = [table["image"][row] for table, rows in files for row in rows]
        return np.stack([np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded])

    def masks(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Part label images (N, 224, 224) and the pixels to ignore (N, 224, 224)."""
        files = self._read("masks", ["labels", "ignore"])
        labels, ignore = zip(*((table["labels"][rows], table["ignore"][rows]) for table, rows in files), strict=True)
        return np.concatenate(labels), np.concatenate(ignore).astype(bool)

    def _read(self, name: str, columns: Sequence[str]) -> Iterator[tuple[Columns, NDArray[np.int64]]]:
        """Each file of a table that holds some of these faces, and which of its rows they are."""
        first = 0
        for path in sorted(self.folder.glob(f"{name}-*.parquet")):
            count = row_count(path)
            rows = self.rows[(self.rows >= first) & (self.rows < first + count)] - first
            first += count
            if len(rows):
                yield read_table(path, name, columns=columns), rows


def load_faces(folder: Path) -> RunFaces:
    """All faces of a finished build_dataset stage."""
    table = read_table(sorted(folder.glob("faces-*.parquet")), "faces")
    sources = read_table(sorted(folder.glob("masks-*.parquet")), "masks", columns=["source"])["source"]
    return RunFaces(
        folder=folder,
        rows=np.arange(len(table["face_id"])),
        face_id=table["face_id"],
        person=np.array(table.get("person", table["face_id"])),
        split=np.array(table["split"]),
        clean=table["clean"].astype(bool),
        has_mask=table["has_mask"].astype(bool),
        mask_source=np.array(sources),
        true_identity=table.get("true_identity"),
        **{key: table[key] for key in ("identity", "expression", "angles", "translation", "landmarks")},
    )


def training_faces(faces: RunFaces) -> RunFaces:
    """Training faces, clean or not."""
    return faces.where(faces.split == "train")


def masked_training_faces(faces: RunFaces) -> RunFaces:
    """Clean training faces with a mask: what labels are voted by and regressors fine-tuned on.

    Raises UserError where there is none.
    """
    found = faces.where((faces.split == "train") & faces.clean & faces.has_mask)
    return _some(found, len(faces), "clean training", "lower dataset.validation_share")


def validation_faces(faces: RunFaces, photos: Photos = "clean") -> RunFaces:
    """Validation faces with a mask, the clean ones or all: what is measured on. UserError where there is none."""
    found = faces.where((faces.split == "validation") & faces.has_mask & (faces.clean | (photos == "all")))
    kind = "clean validation" if photos == "clean" else "validation"
    return _some(found, len(faces), kind, "raise dataset.validation_share")


def _some(found: RunFaces, count: int, kind: str, remedy: str) -> RunFaces:
    if not len(found):
        raise UserError(
            f"none of the {count} faces is a {kind} face with a mask; give dataset.masks, ask less of "
            f"dataset.clean, or {remedy}"
        )
    return found
