"""Face-parsing masks: the label orders of others mapped to ours, and exact resampling into the crop.

Every reader of a 2D parsing mask goes through here, so that no other numbering than ours
(:data:`dataset_builder.parts.LABEL_IDS`) leaves this module.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._image_files import UnusableImage, decode_image, printable, read_bytes
from .alignment import CROP_SIZE, CropTransform
from .parts import LABEL_IDS

MASK_SUFFIX = ".png"

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

CELEBAMASK_CLASSES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""Classes of CelebAMask-HQ by index (Lee et al. 2020, official merge order); l_ and r_ are the subject's."""

BISENET_CLASSES = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""Classes of the BiSeNet face parser trained on CelebAMask-HQ, by index: the same names in another order."""

CLASS_REGIONS = {
    "skin": "rest",
    "l_brow": "eyebrows",
    "r_brow": "eyebrows",
    "l_eye": "eyes",
    "r_eye": "eyes",
    "nose": "nose",
    "u_lip": "upper_lip",
    "l_lip": "lower_lip",
    "mouth": "background",
}
"""Region of each class that has one, in the order in which overlapping binary masks are painted."""

IGNORED_CLASSES = ("hair", "hat", "eye_g")
"""Classes that may hide a part: their pixels say nothing about what lies behind them."""


def labels_from_index_mask(
    mask: NDArray[np.integer], classes: tuple[str, ...] = CELEBAMASK_CLASSES, source: str = "mask"
) -> tuple[UInt8, Bool]:
    """Part labels of an index mask.

    Args:
        mask: (h, w) integer class indices into ``classes``.
        classes: class names by index, :data:`CELEBAMASK_CLASSES` or :data:`BISENET_CLASSES`.
        source: what to call the mask in an error, usually its file.

    Returns:
        labels (h, w) uint8, our ids (inner mouth, ears, neck, ... are background), and ignore (h, w) bool, true on
        hair, hat and glasses.

    Raises:
        ValueError: the mask is not a 2D integer array, or holds an index that ``classes`` lacks.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "ui":
        raise ValueError(f"{source}: an index mask is a 2D integer array, got shape {mask.shape} of {mask.dtype}")
    if mask.size and not 0 <= mask.min() <= mask.max() < len(classes):
        worst = int(mask.max()) if mask.max() >= len(classes) else int(mask.min())
        raise ValueError(f"{source}: label id {worst} is out of range, valid ids are 0..{len(classes) - 1}")
    label_of = np.array([LABEL_IDS[CLASS_REGIONS.get(name, "background")] for name in classes], np.uint8)
    ignored = np.array([name in IGNORED_CLASSES for name in classes])
    return label_of[mask], ignored[mask]


def read_mask(masks: Path, stem: str, photo: Path | None = None) -> tuple[UInt8, Bool] | None:
    """Part labels (h, w) uint8 and ignore (h, w) bool of a photo's mask, or None where there is none.

    Args:
        masks: a mask file; or a folder, of index PNGs ``{stem}.png`` in CelebAMask-HQ numbering or of the per-class
            tree of CelebAMask-HQ.
        stem: of the photo's name.
        photo: the photo itself, which is not its own mask.

    Raises:
        UnusableImage: a ValueError with a ``code``: what :mod:`dataset_builder._image_files` finds wrong with a file,
            "mask_format", "mask_label" or "mask_size" (two class masks differ in size).
    """
    if not os.path.isdir(masks):
        return _read_index_mask(masks)
    for suffix in (MASK_SUFFIX, MASK_SUFFIX.upper()):
        index_mask = masks / f"{stem}{suffix}"
        if index_mask != photo and os.path.lexists(
            index_mask
        ):  # a link to nowhere is a damaged mask, not an absent one
            return _read_index_mask(index_mask)
    return labels_from_class_folder(masks, stem) if class_masks(masks, stem) else None


def class_masks(folder: Path, stem: str) -> dict[str, Path]:
    """Binary mask files ``{stem}_{class}.png`` of one photo, by class name.

    A numeric stem is looked up as CelebAMask-HQ stores it, ``folder/{id // 2000}/{id:05d}_{class}.png``, and then in
    ``folder`` itself. Absent classes have no entry; no file at all gives an empty dict.
    """
    places = [(folder, stem)]
    if stem.isascii() and stem.isdigit():
        number = int(stem)
        places = [(folder / str(number // 2000), f"{number:05d}"), (folder, f"{number:05d}"), *places]
    for place, prefix in places:
        paths = {name: place / f"{prefix}_{name}{MASK_SUFFIX}" for name in CELEBAMASK_CLASSES[1:]}
        found = {name: path for name, path in paths.items() if os.path.lexists(path)}
        if found:
            return found
    return {}


def class_mask_stem(path: Path) -> str | None:
    """Stem of the photo that a file of the per-class layout belongs to, by its name alone; None for another file."""
    for name in CELEBAMASK_CLASSES[1:]:
        if path.name.endswith(f"_{name}{MASK_SUFFIX}"):
            return class_stem(path.name.removesuffix(f"_{name}{MASK_SUFFIX}"))
    return None


def class_stem(stem: str) -> str:
    """A stem without leading zeros if it is a number: how ``00007_skin.png`` and ``7.jpg`` find each other."""
    return str(int(stem)) if stem.isascii() and stem.isdigit() else stem


def labels_from_class_folder(folder: Path, stem: str) -> tuple[UInt8, Bool]:
    """Part labels (h, w) uint8 and ignore (h, w) bool from the per-class binary PNG tree of CelebAMask-HQ.

    Classes are painted skin, brows, eyes, nose, upper lip, lower lip; then the inner mouth is cleared to background.

    Raises:
        FileNotFoundError: the tree holds no mask of this photo.
        UnusableImage: a ValueError: two masks of the photo differ in size, one is not black and white, or a file
            cannot be decoded.
    """
    paths = class_masks(folder, stem)
    if not paths:
        raise FileNotFoundError(f"{folder}: no mask named {stem}_<class>.png, such as {stem}_skin.png")
    present = {name: _read_binary(path) for name, path in paths.items()}
    shape = next(iter(present.values())).shape
    for name, mask in present.items():
        if mask.shape != shape:
            raise UnusableImage(
                "mask_size",
                f"{paths[name].name}: {mask.shape[1]}x{mask.shape[0]} px, the other classes have {shape[::-1]}",
            )
    labels = np.zeros(shape, np.uint8)
    for name, region in CLASS_REGIONS.items():
        if name in present:
            labels[present[name]] = LABEL_IDS[region]
    ignore = np.zeros(shape, bool)
    for name in IGNORED_CLASSES:
        if name in present:
            ignore |= present[name]
    return labels, ignore


def crop_labels(labels: UInt8, transform: CropTransform, size: int = CROP_SIZE) -> UInt8:
    """Labels (size, size) uint8 of a crop from the photo's label mask (h, w), by exact area averaging.

    A crop pixel takes the label that covers more than half of its area, else 0; outside the photo is 0. The mask may
    have another resolution than the photo, and ``size`` another than the standard crop's.
    """
    rows, columns = _cell_overlaps(labels.shape, transform, size)
    cropped = np.zeros((size, size), np.uint8)
    for label in np.unique(labels[labels > 0]):
        cropped[_covered(labels == label, rows, columns)] = label
    return cropped


def crop_ignore(ignore: Bool, transform: CropTransform, size: int = CROP_SIZE) -> Bool:
    """The ignore mask (h, w) bool in the crop, (size, size) bool: true where more than half of the pixel is."""
    rows, columns = _cell_overlaps(ignore.shape, transform, size)
    return _covered(ignore, rows, columns)


def _covered(mask: Bool, rows: sparse.csr_matrix, columns: sparse.csr_matrix) -> Bool:
    share = (columns @ (rows @ mask.astype(np.float64)).T).T
    return share > 0.5 + 1e-9  # an exact half must not depend on rounding


def _cell_overlaps(
    shape: tuple[int, ...], transform: CropTransform, size: int
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Share of each crop row (column) that each mask row (column) covers, (size, h) and (size, w)."""
    height, width = shape
    edges = np.linspace(0, CROP_SIZE, size + 1)
    photo_edges = transform.to_photo(np.stack([edges, edges], -1))
    x = photo_edges[:, 0] * (width / transform.photo_width)
    y = photo_edges[:, 1] * (height / transform.photo_height)
    return _overlaps(y, height), _overlaps(x, width)


def _overlaps(edges: NDArray[np.float64], n: int) -> sparse.csr_matrix:
    first, last = edges[:-1, None], edges[1:, None]
    reach = int(np.ceil(edges[1] - edges[0])) + 1
    cells = np.floor(first).astype(np.int64) + np.arange(reach)
    length = np.minimum(last, cells + 1) - np.maximum(first, cells)
    share = np.clip(length, 0, None) / (last - first)
    inside = (cells >= 0) & (cells < n) & (share > 0)
    row_ids = np.broadcast_to(np.arange(len(edges) - 1)[:, None], cells.shape)
    return sparse.csr_matrix((share[inside], (row_ids[inside], cells[inside])), shape=(len(edges) - 1, n))


def _read_index_mask(path: Path) -> tuple[UInt8, Bool]:
    shown = printable(path.name)
    image = decode_image(read_bytes(path), shown)
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise UnusableImage("mask_format", f"{shown}: a mask has one channel of label ids, this one is {image.mode}")
    indices = np.asarray(image)
    try:
        return labels_from_index_mask(indices.astype(np.uint8) if indices.dtype == bool else indices, source=shown)
    except ValueError as error:
        raise UnusableImage("mask_label", str(error)) from error


def _read_binary(path: Path) -> Bool:
    """White pixels of a black-and-white mask; the official tree stores some as RGB."""
    shown = printable(path.name)
    image = decode_image(read_bytes(path), shown)
    values = np.asarray(image.convert("L"))
    if 0 < values.max() < 128:
        raise UnusableImage("mask_format", f"{shown}: a class mask is black and white, this one reaches {values.max()}")
    return values > 127
