"""Reading photographs and their masks from disk: what can be used comes out as `Photo`, the rest as `Rejected`."""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .masks import class_masks, labels_from_class_folder, labels_from_index_mask

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif")
MASK_SUFFIX = ".png"

RejectionCode = Literal["unreadable", "too_small", "mask_size", "mask_label", "no_face"]


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo, upright.

    Attributes:
        name: the file's stem, or its full name where two photos of the folder share a stem.
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
    """A photo that cannot be used: ``code`` for counting, ``detail`` one line for the user."""

    name: str
    path: Path
    code: RejectionCode
    detail: str


class _Unusable(Exception):
    def __init__(self, code: RejectionCode, detail: str) -> None:
        super().__init__(detail)
        self.code: RejectionCode = code


def read_photos(images: Path, masks: Path | None = None, *, min_side: int = 64) -> Iterator[Photo | Rejected]:
    """Photos of a folder (not its subfolders) in natural order, or one photo.

    A mask belongs to the photo of the same stem: an index PNG ``{stem}.png`` in CelebAMask-HQ numbering, or the
    per-class tree of CelebAMask-HQ. A photo without one is kept, with ``mask`` None. Where a folder holds N.jpg and
    N.png, the PNG is taken for a mask and never for a photo. EXIF orientation is applied.

    Args:
        images: folder or file.
        masks: folder of masks (it may be ``images`` itself), or one mask file if ``images`` is a file.
        min_side: a photo whose shorter side is below this many pixels is rejected.

    Raises:
        ValueError: a path does not exist, the folder holds no photo, or a single mask is given for a folder.
    """
    images = Path(images)
    masks = None if masks is None else Path(masks)
    if not images.exists():
        raise ValueError(f"{images}: no such photo or folder")
    if masks is not None and not masks.exists():
        raise ValueError(f"{masks}: no such mask or folder")
    if masks is not None and masks.is_file() and images.is_dir():
        raise ValueError(f"{masks} is one mask, but {images} is a folder: give the folder of the masks")
    paths = _photo_files(images) if images.is_dir() else [images]
    if not paths:
        raise ValueError(f"{images}: no photo in this folder (looked for {' '.join(PHOTO_SUFFIXES)})")
    stems = Counter(path.stem for path in paths)
    return (_read(path.stem if stems[path.stem] == 1 else path.name, path, masks, min_side) for path in paths)


def _photo_files(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES]
    photo_stems = {path.stem for path in paths if path.suffix.lower() != MASK_SUFFIX}
    paths = [path for path in paths if path.suffix.lower() != MASK_SUFFIX or path.stem not in photo_stems]
    return sorted(paths, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    pieces = re.split(r"(\d+)", path.name)
    return [(int(piece), "") if i % 2 else (0, piece.lower()) for i, piece in enumerate(pieces)], path.name


def _read(name: str, path: Path, masks: Path | None, min_side: int) -> Photo | Rejected:
    try:
        content = _bytes_of(path)
        image = np.asarray(_decode(content, path).convert("RGB"))
        height, width = image.shape[:2]
        if min(height, width) < min_side:
            raise _Unusable("too_small", f"{path.name}: {width}x{height} px, the shorter side must be {min_side} px")
        labels = None if masks is None else _read_mask(path, masks, (height, width))
    except _Unusable as problem:
        return Rejected(name, path, problem.code, str(problem))
    mask, ignore = labels or (None, None)
    return Photo(name, path, image, mask, ignore, hashlib.sha256(content).hexdigest())


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Unusable("unreadable", f"{path.name}: {error.strerror or error}") from error


def _decode(content: bytes, path: Path) -> Image.Image:
    """Image with every pixel decoded (a truncated file fails here) and EXIF orientation applied."""
    if path.suffix.lower() in (".heic", ".heif"):
        _register_heif(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content))
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _Unusable("unreadable", f"{path.name}: {error}") from error


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise _Unusable("unreadable", f"{path.name}: HEIC photos need pillow-heif: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()


def _read_mask(photo: Path, masks: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    index_mask = masks if masks.is_file() else masks / f"{photo.stem}{MASK_SUFFIX}"
    if index_mask.is_file() and index_mask != photo:
        labels, ignore = _read_index_mask(index_mask)
    elif masks.is_dir() and class_masks(masks, photo.stem):
        try:
            labels, ignore = labels_from_class_folder(masks, photo.stem)
        except ValueError as error:
            raise _Unusable("mask_size", str(error)) from error
        except (OSError, SyntaxError) as error:
            raise _Unusable("unreadable", f"masks of {photo.name}: {error}") from error
    else:
        return None
    # Proportions equal to within one mask pixel, the most that rounding a resized mask can do.
    if abs(labels.shape[0] - labels.shape[1] * size[0] / size[1]) > max(1.0, size[0] / size[1]):
        raise _Unusable(
            "mask_size",
            f"{index_mask.name}: {labels.shape[1]}x{labels.shape[0]} px has other proportions than "
            f"{photo.name}, {size[1]}x{size[0]} px",
        )
    return labels, ignore


def _read_index_mask(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    image = _decode(_bytes_of(path), path)
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise _Unusable("mask_size", f"{path.name}: a mask has one channel of label ids, this one is {image.mode}")
    indices = np.asarray(image)
    if indices.dtype == bool:
        indices = indices.astype(np.uint8)
    try:
        return labels_from_index_mask(indices, source=path.name)
    except ValueError as error:
        raise _Unusable("mask_label", str(error)) from error
