"""What a run reads from outside: the list of photographs and masks, their digest, and who is in which split."""

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".gif")


@dataclass(frozen=True)
class PhotoEntry:
    """One photograph of a source: its file, a name no other has, the person's group, whether it is clean, its split."""

    path: Path
    name: str
    group: str
    clean: bool
    split: str


def list_photos(images: Path) -> list[Path]:
    """Photo files of a folder in natural order, or the one file itself.

    A PNG beside a photo of the same stem is its mask, never a photo. Raises UserError when nothing is there.
    """
    if not images.exists():
        raise UserError(f"no photographs: {images} does not exist")
    if images.is_file():
        return [images]
    found = [path for path in images.iterdir() if path.is_file() and path.suffix.lower() in PHOTO_SUFFIXES]
    photos = {path.stem for path in found if path.suffix.lower() != ".png"}
    found = [path for path in found if path.suffix.lower() != ".png" or path.stem not in photos]
    if not found:
        raise UserError(f"no photographs: {images} holds no file ending in {', '.join(PHOTO_SUFFIXES)}")
    return sorted(found, key=lambda path: (len(path.stem) if path.stem.isdigit() else 99, path.name))


def distinct_names(photos: list[Path]) -> list[str]:
    """A name for every photo: its stem, where photos share one its file name, and else with its folder before it.

    Raises UserError where the same photo is listed twice.
    """
    names = [path.stem for path in photos]
    for longer in (lambda path: path.name, lambda path: f"{path.resolve().parent.name}-{path.name}"):
        shared = {name for name, count in Counter(names).items() if count > 1}
        names = [longer(path) if name in shared else name for path, name in zip(photos, names, strict=True)]
    if twice := [path for path, name in zip(photos, names, strict=True) if names.count(name) > 1]:
        raise UserError(f"two photographs would be named alike: {twice[0]} and {twice[1]}; leave one out or rename it")
    return names


def digest_files(paths: list[Path]) -> str:
    """One SHA-256 (hex) over the names and contents of ``paths``: the stage key of whatever reads them."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
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
    photos: list[Path], *, manifest: Path | None, clean: dict[str, float], split: Split
) -> list[PhotoEntry]:
    """Assign every photo to ``train`` or ``validation`` by its person's group, so that nobody is in both.

    ``manifest``: a CSV with a ``file`` column (matched by file name) and ``person_group``; without one every photo is
    its own group and clean. ``clean``: manifest columns and the value each must have for a photo to count as clean.
    """
    rows = _manifest_rows(manifest) if manifest else {}
    entries = []
    for path, name in zip(photos, distinct_names(photos), strict=True):
        row = rows.get(path.name, {})
        group = row.get("person_group") or path.stem
        is_clean = not rows or (bool(row) and all(_equals(row, key, value) for key, value in clean.items()))
        entries.append(PhotoEntry(path, name, group, is_clean, split.of(group)))
    return entries


def _manifest_rows(manifest: Path) -> dict[str, dict[str, str]]:
    if not manifest.is_file():
        raise UserError(f"manifest {manifest} does not exist; correct dataset.manifest or leave it out")
    with manifest.open(newline="") as lines:
        reader = csv.DictReader(lines)
        if "file" not in (reader.fieldnames or ()):
            raise UserError(f"manifest {manifest} has no column 'file'; it has {', '.join(reader.fieldnames or ())}")
        return {Path(row["file"]).name: row for row in reader}


def _equals(row: dict[str, str], key: str, value: float) -> bool:
    if key not in row:
        raise UserError(f"dataset.clean names {key!r}, which the manifest lacks; it has {', '.join(row)}")
    try:
        return float(row[key]) == value
    except ValueError:
        return False
