"""Reading photographs and their masks from disk: what can be used comes out as `Photo`, the rest as `Rejected`."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ._image_files import UnusableImage, decode_image, printable, read_bytes, rgb_pixels
from .masks import MASK_SUFFIX, class_mask_stem, class_stem, read_mask

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
)  # fmt: skip
"""Endings, in any case, by which a file of a folder is taken for a photo."""

RejectionCode = Literal[
    "not_a_file", "not_a_photo", "unreadable", "too_large", "too_small", "pixel_type", "duplicate",
    "mask_format", "mask_size", "mask_label", "mask_empty", "no_face",
]  # fmt: skip
"""Why an input was set aside; the README says what each means."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo, upright.

    Attributes:
        name: the file's stem, or its full name where two photos of the folder share a stem; printable.
        path: the file.
        image: (H, W, 3) uint8 RGB.
        mask: (h, w) uint8 part labels, at the mask's own resolution but the photo's proportions; None without a mask.
        ignore: (h, w) bool, where something hides the face (hair, hat, glasses); None without a mask.
        sha256: hex digest of the file.
    """

    name: str
    path: Path
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    ignore: NDArray[np.bool_] | None
    sha256: str


@dataclass(frozen=True)
class Rejected:
    """An input that cannot be used: ``code`` for counting, ``detail`` one printable line for the user."""

    name: str
    path: Path
    code: RejectionCode
    detail: str


@dataclass(frozen=True)
class PhotoFile:
    """A file that is a photo by its name: ``name`` is to become :attr:`Photo.name`."""

    name: str
    path: Path


def list_photos(images: Path, masks: Path | None = None) -> list[PhotoFile | Rejected]:
    """What a folder holds, in natural order: photos by name, and everything that is none; or one photo.

    Subfolders are entered, one level, where the folder itself holds no photo (FFHQ's layout), and else not. The masks
    are left out: their folder, or, where it is ``images`` itself, a PNG beside another photo of the same stem and the
    per-class files of CelebAMask-HQ.

    Raises:
        ValueError: a path does not exist, the folder cannot be read or holds no photo, or a single mask is given for a
            folder.
    """
    images = Path(images)
    masks = None if masks is None else Path(masks)
    if not os.path.exists(images):
        raise ValueError(f"{images}: no such photo or folder")
    if masks is not None and not os.path.exists(masks):
        raise ValueError(f"{masks}: no such mask or folder")
    if not os.path.isdir(images):
        return [PhotoFile(printable(images.stem), images)]
    if masks is not None and not os.path.isdir(masks):
        raise ValueError(f"{masks} is one mask, but {images} is a folder: give the folder of the masks")
    entries = _folder_entries(images, masks)
    if not _any_photo(entries):
        entries = _distinct([each for entry in entries for each in _entered(entry, masks)])
    if not _any_photo(entries):
        raise ValueError(f"{images}: no photo in this folder (looked for {' '.join(PHOTO_SUFFIXES)})")
    return entries


def read_photos(images: Path, masks: Path | None = None, *, min_side: int = 64) -> Iterator[Photo | Rejected]:
    """Photos of a folder, as :func:`list_photos` finds them, in natural order; or one photo. A result for every entry.

    A mask belongs to the photo of the same stem: an index PNG ``{stem}.png`` in CelebAMask-HQ numbering, or the
    per-class tree of CelebAMask-HQ. A photo without one is kept, with ``mask`` None. Where a folder holds N.jpg and
    N.png, the PNG is taken for a mask and never for a photo. EXIF orientation is applied, the first frame of an
    animation taken, and of files with the same content the first.

    Args:
        images: folder or file.
        masks: folder of masks (it may be ``images`` itself), or one mask file if ``images`` is a file.
        min_side: a photo whose shorter side is below this many pixels is rejected.

    Raises:
        ValueError: see :func:`list_photos`.
    """
    entries = list_photos(images, masks)
    return _read_all(entries, None if masks is None else Path(masks), min_side)


def read_photo(file: PhotoFile, masks: Path | None = None, *, min_side: int = 64) -> Photo | Rejected:
    """One photo of :func:`list_photos`, with its mask; see :func:`read_photos`. Never raises for what a file holds."""
    path, shown = file.path, printable(file.path.name)
    try:
        content = read_bytes(path)
        image = rgb_pixels(decode_image(content, shown), shown)
        height, width = image.shape[:2]
        if min(height, width) < min_side:
            raise UnusableImage("too_small", f"{shown}: {width}x{height} px, the shorter side must be {min_side} px")
        labels = None if masks is None else _mask_of(path, masks, (height, width))
    except UnusableImage as problem:
        return Rejected(file.name, path, cast(RejectionCode, problem.code), str(problem))
    mask, ignore = labels or (None, None)
    return Photo(file.name, path, image, mask, ignore, hashlib.sha256(content).hexdigest())


def _read_all(entries: list[PhotoFile | Rejected], masks: Path | None, min_side: int) -> Iterator[Photo | Rejected]:
    first: dict[str, str] = {}
    for entry in entries:
        item = read_photo(entry, masks, min_side=min_side) if isinstance(entry, PhotoFile) else entry
        if isinstance(item, Photo) and (original := first.setdefault(item.sha256, item.path.name)) != item.path.name:
            detail = printable(f"{item.path.name}: same content as {original}")
            item = Rejected(item.name, item.path, "duplicate", detail)
        yield item


def _folder_entries(folder: Path, masks: Path | None) -> list[PhotoFile | Rejected]:
    try:
        paths = sorted(folder.iterdir(), key=_natural_key)
    except OSError as error:
        raise ValueError(f"{folder}: {error.strerror or error}") from error
    return _entries(_without_masks(paths, masks))


def _entered(entry: PhotoFile | Rejected, masks: Path | None) -> list[PhotoFile | Rejected]:
    """What a subfolder with photos holds; any other entry as it is."""
    if not os.path.isdir(entry.path):
        return [entry]
    try:
        below = _folder_entries(entry.path, masks)
    except ValueError as error:
        return [Rejected(entry.name, entry.path, "unreadable", printable(str(error)))]
    detail = printable(f"{entry.path.name}: a folder without photos")
    return below if _any_photo(below) else [Rejected(entry.name, entry.path, "not_a_file", detail)]


def _any_photo(entries: list[PhotoFile | Rejected]) -> bool:
    return any(isinstance(entry, PhotoFile) for entry in entries)


def _distinct(entries: list[PhotoFile | Rejected]) -> list[PhotoFile | Rejected]:
    """The same entries, names that subfolders share with their folder before them."""
    counts = Counter(entry.name for entry in entries)
    shared = [counts[entry.name] > 1 for entry in entries]
    return [
        replace(entry, name=printable(f"{entry.path.parent.name}-{entry.path.name}")) if more else entry
        for entry, more in zip(entries, shared, strict=True)
    ]


def _without_masks(paths: list[Path], masks: Path | None) -> list[Path]:
    """Entries of a folder of photos but for the masks that are going to be read, and the folders that hold them."""
    if masks is None or not paths:
        return paths
    among_photos = os.path.samefile(paths[0].parent, masks)
    pictures = _picture_stems(paths)
    stems = {class_stem(path.stem) for path in paths if path.suffix.lower() in PHOTO_SUFFIXES}

    def is_mask(path: Path) -> bool:
        if os.path.isdir(path):
            return os.path.samefile(path, masks) or (among_photos and path.name.isdecimal())
        is_png = path.suffix.lower() == MASK_SUFFIX
        return among_photos and is_png and (path.stem in pictures or class_mask_stem(path) in stems)

    return [path for path in paths if not is_mask(path)]


def _picture_stems(paths: list[Path]) -> set[str]:
    """Stems of the photos that no mask can be: all but PNGs."""
    return {path.stem for path in paths if path.suffix.lower() in PHOTO_SUFFIXES and path.suffix.lower() != MASK_SUFFIX}


def _entries(paths: list[Path]) -> list[PhotoFile | Rejected]:
    stems = Counter(path.stem for path in paths if path.suffix.lower() in PHOTO_SUFFIXES)
    pictures = _picture_stems(paths)
    return [_entry(path, printable(path.stem if stems[path.stem] == 1 else path.name), pictures) for path in paths]


def _entry(path: Path, name: str, pictures: set[str]) -> PhotoFile | Rejected:
    shown, suffix = printable(path.name), path.suffix.lower()
    if os.path.isdir(path):
        return Rejected(name, path, "not_a_file", f"{shown}: a folder; subfolders are not entered")
    if suffix not in PHOTO_SUFFIXES:
        return Rejected(name, path, "not_a_photo", f"{shown}: not a photo by its name ({' '.join(PHOTO_SUFFIXES)})")
    if suffix == MASK_SUFFIX and path.stem in pictures:
        return Rejected(name, path, "not_a_photo", f"{shown}: beside a photo of that name, a PNG is taken for its mask")
    return PhotoFile(name, path)


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    pieces = re.split(r"(\d+)", path.name)
    return [(int(piece), "") if i % 2 else (0, piece.lower()) for i, piece in enumerate(pieces)], path.name


def _mask_of(photo: Path, masks: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """The photo's mask, which must have its proportions."""
    found = read_mask(masks, photo.stem, photo=photo)
    if found is None:
        return None
    labels, ignore = found
    mask_name = f"{photo.stem}{MASK_SUFFIX}" if os.path.isdir(masks) else masks.name
    # Proportions equal to within one mask pixel, the most that rounding a resized mask can do.
    if abs(labels.shape[0] - labels.shape[1] * size[0] / size[1]) > max(1.0, size[0] / size[1]):
        raise UnusableImage(
            "mask_size",
            f"{mask_name}: {labels.shape[1]}x{labels.shape[0]} px has other proportions than "
            f"{photo.name}, {size[1]}x{size[0]} px",
        )
    if not labels.any() and not ignore.any():
        raise UnusableImage("mask_empty", f"{mask_name}: nothing but background; remove it if there is no mask")
    return found
