"""Photographs on their way into crop space: read, detect, align, place landmarks, resample masks; or set aside."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_builder import (
    FaceDetector,
    LandmarkDetector,
    Photo,
    Rejected,
    align_face,
    crop_ignore,
    crop_labels,
    largest_face,
    read_photos,
)

from .sources import PhotoEntry


@dataclass(frozen=True)
class PreparedPhoto:
    """One face in the 224-pixel crop: picture, 68 landmarks in crop pixels, part label image and where it came from."""

    face_id: str
    source: str
    split: str
    clean: bool
    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labels: NDArray[np.uint8]
    ignore: NDArray[np.bool_]
    has_mask: bool
    sha256: str
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    identity: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class RejectedInput:
    """An input that was set aside: its path, a reason code, and the reason in words."""

    path: str
    code: str
    detail: str


class PhotoPreparer:
    """Holds the detector and the landmark networks for as many photos as come."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._landmarks = LandmarkDetector()

    def prepare(self, photo: Photo, entry: PhotoEntry) -> PreparedPhoto | RejectedInput:
        """Crop, landmarks and masks of the largest face of ``photo``; a photo they cannot be had of is set aside."""
        try:
            return self._prepare(photo, entry)
        except ValueError as error:
            return RejectedInput(str(photo.path), "unusable", f"{photo.path.name}: {error}")

    def _prepare(self, photo: Photo, entry: PhotoEntry) -> PreparedPhoto | RejectedInput:
        face = largest_face(photo, self._detector)
        if isinstance(face, Rejected):
            return rejected_input(face)
        aligned = align_face(photo.image, face.five_points)
        transform = aligned.transform
        landmarks = transform.to_crop(self._landmarks.detect(photo.image, face.box))
        labels, ignore = np.zeros((224, 224), np.uint8), np.zeros((224, 224), bool)
        if photo.mask is not None:
            labels = crop_labels(photo.mask, transform)
            if photo.ignore is not None:
                ignore = crop_ignore(photo.ignore, transform)
        return PreparedPhoto(
            face_id=entry.name,
            source="photo",
            split=entry.split,
            clean=entry.clean,
            crop=aligned.image,
            landmarks=landmarks.astype(np.float32),
            labels=labels,
            ignore=ignore,
            has_mask=photo.mask is not None,
            sha256=photo.sha256,
            scale=np.asarray(transform.scale, np.float32),
            offset=np.asarray(transform.offset, np.float32),
        )


def prepare_photos(entries: Iterable[PhotoEntry], masks: Path | None) -> Iterator[PreparedPhoto | RejectedInput]:
    """One result for every entry; a photo that cannot be used never stops the others."""
    preparer = PhotoPreparer()
    for entry in entries:
        for item in read_photos(entry.path, masks):
            if isinstance(item, Rejected):
                yield rejected_input(item)
            else:
                yield preparer.prepare(item, entry)


def rejected_input(rejected: Rejected) -> RejectedInput:
    """The table row of a photo that was set aside."""
    return RejectedInput(str(rejected.path), rejected.code, rejected.detail)
