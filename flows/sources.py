"""What a run reads from outside: the list of photographs and masks, their digest, and who is in which split.

Nothing here imports a package of the method before photographs are listed: a cached run asks for digests only.
"""

import csv
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from dataset_builder import PhotoFile, Rejected

BUILT_IN = "synthetic"
"""How the names of face models that are built in begin."""

WEIGHTS = {
    "facenet": "facenet_vggface2",
    "arcface": "arcface_ir_se50",
    "mobilefacenet": "mobilefacenet_112",
    "bisenet": "parsing_bisenet",
    "parsenet": "parsing_parsenet",
    "deep3dmm": "deep3dmm",
}
"""The asset with the weights of each network that has one."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif")


@dataclass(frozen=True)
class PhotoEntry:
    """One photograph of a source: its file, a name no other has, the person's group, whether it is clean, its split.

    ``masks``: the folder where its mask may be, or the mask itself.
    """

    path: Path
    name: str
    group: str
    clean: bool
    split: str
    masks: Path | None = None


def photo_source(images: Path) -> Path:
    """The folder of photographs, or the one. Raises UserError where there is nothing that could be a photograph."""
    source_files(images)
    return images


def source_files(images: Path) -> list[Path]:
    """Everything in a folder of photographs, by name, or the one file: what a stage key is of.

    Where it holds no photograph, but its subfolders do, what is in those follows each. Raises UserError where there is
    nothing that could be a photograph.
    """
    if not os.path.exists(images):
        raise UserError(f"no photographs: {images} does not exist")
    if not os.path.isdir(images):
        return [images]
    found = _listed(images)
    if not _any_photograph(found):
        found = [each for path in found for each in (path, *(_listed(path) if os.path.isdir(path) else ()))]
    if not _any_photograph(found):
        raise UserError(f"no photographs: {images} holds no file ending in {', '.join(PHOTO_SUFFIXES)}")
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=os.fsencode)
    except OSError as error:
        raise UserError(f"no photographs: {folder} cannot be read: {error.strerror or error}") from error


def _any_photograph(paths: list[Path]) -> bool:
    return any(path.suffix.lower() in PHOTO_SUFFIXES for path in paths)


def face_model_source(name: str) -> Path | None:
    """The file or folder that a face model is read from; None for one that is built in.

    Raises UserError where there is none, or where it is an asset that is missing.
    """
    if name.startswith(BUILT_IN):
        return None
    from dataset_builder import AssetMissing, face_model_path

    try:
        return face_model_path(name)
    except (AssetMissing, ValueError) as error:
        raise UserError(f"dataset.face_model: {error}") from error


def mask_source(masks: Path | None) -> Path | None:
    """The folder of the masks, or the one mask; None where none are named. Raises UserError where it is not there."""
    if masks is not None and not os.path.exists(masks):
        raise UserError(f"dataset.masks: there is no file or folder {masks}")
    return masks


def manifest_source(manifest: Path | None) -> Path | None:
    """The manifest; None where none is named. Raises UserError where it is not there."""
    if manifest is not None and not manifest.is_file():
        raise UserError(f"manifest {manifest} does not exist; correct dataset.manifest or leave it out")
    return manifest


def weights_source(setting: str, network: str, given: Path | None) -> Path | None:
    """The weights of a network that ``setting`` names: the given file, else the asset; None where it has neither.

    Raises UserError where they are not there, or the asset has another hash than the published file.
    """
    if given is not None:
        if not given.is_file():
            raise UserError(f"{setting}_weights: there is no file {given}")
        return given
    return asset_source(setting, WEIGHTS[network]) if network in WEIGHTS else None


def asset_source(setting: str, name: str) -> Path:
    """The file of an asset that ``setting`` asks for. Raises UserError where it is missing or another file."""
    from dataset_builder import AssetCorrupt, AssetMissing, asset_path

    try:
        return asset_path(name)
    except (AssetMissing, AssetCorrupt) as error:
        raise UserError(f"{setting}: {error}") from error


def other_face_model(name: str) -> str:
    """What is wrong with Deep3DMM's coefficients on the face model of that name."""
    return (
        f"dataset.estimator: deep3dmm gives coefficients of BFM's front crop, not of {name}; set dataset.face_model=bfm"
    )


def list_inputs(images: Path, masks: Path | None = None) -> "list[PhotoFile | Rejected]":
    """Every entry of a folder in natural order, masks left out: a photo to be read, or why it is none.

    Raises UserError where there is nothing that could be a photograph, or no such masks.
    """
    from dataset_builder import list_photos as entries_of

    source_files(images)
    try:
        return entries_of(images, masks)
    except ValueError as error:
        raise UserError(f"no photographs: {error}") from error


def list_photos(images: Path) -> list[Path]:
    """Photo files of a folder, or of its subfolders where it holds none, in natural order; or the one file itself.

    A PNG beside a photo of the same stem is its mask, never a photo. Raises UserError when nothing is there.
    """
    from dataset_builder import PhotoFile

    return [item.path for item in list_inputs(images) if isinstance(item, PhotoFile)]


def readable(name: str) -> str:
    """A file name as text that every encoding of Unicode can hold: bytes that are no UTF-8 become ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def distinct_names(photos: Sequence[Path]) -> list[str]:
    """A name for every photo: its stem, where photos share one its file name, and else with its folder before it.

    Raises UserError where the same photo is listed twice.
    """
    names = [readable(path.stem) for path in photos]
    for longer in (lambda path: path.name, lambda path: f"{Path(os.path.abspath(path)).parent.name}-{path.name}"):
        counts = Counter(names)
        names = [readable(longer(path)) if counts[name] > 1 else name for path, name in zip(photos, names, strict=True)]
    counts = Counter(names)
    if twice := [path for path, name in zip(photos, names, strict=True) if counts[name] > 1]:
        raise UserError(f"two photographs would be named alike: {twice[0]} and {twice[1]}; leave one out or rename it")
    return names


def content_digest(path: Path) -> bytes | None:
    """SHA-256 of a regular file; None of what is no file or cannot be read. Pipes and devices are not opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None


def digest_files(paths: Sequence[Path]) -> str:
    """One SHA-256 (hex) over the names and contents of ``paths``: the stage key of whatever reads them."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.name) + (content_digest(path) or b"nothing to read"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Whom to validate on: a share of the people, or one of several folds, which together hold everyone once."""

    seed: int
    validation_share: float
    n_folds: int = 1
    fold: int | None = None

    def of(self, group: str) -> str:
        """ "train" or "validation": a hash of group and seed, so that adding photos moves nobody."""
        draw = int.from_bytes(hashlib.sha256(f"{self.seed}:{group}".encode()).digest()[:8], "big") / 2**64
        held_out = draw < self.validation_share if self.fold is None else int(draw * self.n_folds) == self.fold
        return "validation" if held_out else "train"


def split_photos(
    photos: Sequence[Path],
    masks: Sequence[Path | None] | None = None,
    *,
    manifest: Path | None,
    clean: dict[str, float],
    split: Split,
) -> list[PhotoEntry]:
    """Assign every photo to ``train`` or ``validation`` by its person's group, so that nobody is in both.

    ``masks``: where each photo's mask may be.
    ``manifest``: a CSV with a ``file`` column (matched by its path below the manifest's folder, else by file name) and
    ``person_group``; without one every photo is its own group and clean. ``clean``: manifest columns and the value each
    must have for a photo to count as clean.
    """
    rows = _ManifestRows(manifest) if manifest else None
    entries = []
    places = masks or [None] * len(photos)
    for path, name, place in zip(photos, distinct_names(photos), places, strict=True):
        row = rows.of(path) if rows else {}
        group = readable(row.get("person_group") or path.stem)
        is_clean = not rows or (bool(row) and all(_equals(row, key, value) for key, value in clean.items()))
        entries.append(PhotoEntry(path, name, group, is_clean, split.of(group), place))
    return entries


class _ManifestRows:
    """The rows of a manifest, found by a photo's path."""

    def __init__(self, manifest: Path) -> None:
        manifest_source(manifest)
        self._folder = os.path.abspath(manifest.parent)
        with manifest.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or ()
            if "file" not in columns:
                raise UserError(f"manifest {manifest} has no column 'file'; it has {', '.join(columns)}")
            self._by_path = {row["file"]: row for row in reader}
        self._by_name = {Path(file).name: row for file, row in self._by_path.items()}

    def of(self, path: Path) -> dict[str, str]:
        """The row of a photo; empty where there is none."""
        below = Path(os.path.relpath(path, self._folder)).as_posix()
        return self._by_path.get(below) or self._by_name.get(path.name, {})


def _equals(row: dict[str, str], key: str, value: float) -> bool:
    if key not in row:
        raise UserError(f"dataset.clean names {key!r}, which the manifest lacks; it has {', '.join(row)}")
    try:
        return float(row[key]) == value
    except ValueError:
        return False
