"""Photographs on their way into crop space: read, detect, align, place landmarks, resample masks; or set aside."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dataset_builder import (
    FaceDetector,
    FaceParser,
    LandmarkDetector,
    Photo,
    PhotoFile,
    Rejected,
    align_face,
    crop_ignore,
    crop_labels,
    largest_face,
    read_photo,
)

from .sources import PhotoEntry, readable


@dataclass(frozen=True)
class PreparedPhoto:
    """One face in the 224-pixel crop: picture, 68 landmarks in crop pixels, part label image and where it came from.

    ``mask_source``: "file", "synthetic", the name of the parser, or "" where there are no labels. ``person``: whom it
    shows, "" where that is not known.
    """

    face_id: str
    source: str
    split: str
    clean: bool
    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    labels: NDArray[np.uint8]
    ignore: NDArray[np.bool_]
    mask_source: str
    sha256: str
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    identity: NDArray[np.float32] | None = None
    person: str = ""

    @property
    def has_mask(self) -> bool:
        """Whether there are labels."""
        return self.mask_source != ""


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
            return unusable(entry, error)

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
            mask_source="" if photo.mask is None else "file",
            sha256=photo.sha256,
            scale=np.asarray(transform.scale, np.float32),
            offset=np.asarray(transform.offset, np.float32),
            person=entry.group,
        )


def prepare_photos(entries: Iterable[PhotoEntry | RejectedInput]) -> Iterator[PreparedPhoto | RejectedInput]:
    """One result for every entry; a photo that cannot be used never stops the others."""
    preparer = PhotoPreparer()
    for entry in entries:
        if isinstance(entry, RejectedInput):
            yield entry
            continue
        photo = read_photo(PhotoFile(entry.name, entry.path), entry.masks)
        yield rejected_input(photo) if isinstance(photo, Rejected) else preparer.prepare(photo, entry)


def parse_unmasked(photos: Sequence[PreparedPhoto], parser: FaceParser) -> list[PreparedPhoto]:
    """The photos, those without a mask with the labels of a parser; one in which it sees no face stays without."""
    waiting = [row for row, photo in enumerate(photos) if not photo.has_mask]
    result = list(photos)
    if waiting:
        parsed = parser.parse(np.stack([photos[row].crop for row in waiting]))
        for row, labels, ignore in zip(waiting, parsed.labels, parsed.ignore, strict=True):
            if labels.any():
                result[row] = replace(photos[row], labels=labels, ignore=ignore, mask_source=parser.name)
    return result


def rejected_input(rejected: Rejected) -> RejectedInput:
    """The table row of a photo that was set aside."""
    return RejectedInput(readable(str(rejected.path)), rejected.code, readable(rejected.detail))


def unusable(entry: PhotoEntry, problem: ValueError) -> RejectedInput:
    """The table row of a photo whose face cannot be cut out or estimated."""
    return RejectedInput(readable(str(entry.path)), "unusable", readable(f"{entry.path.name}: {problem}"))
