"""What a run reads from outside: the list of photographs and masks, their digest, and who is in which split."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic")


@dataclass(frozen=True)
class PhotoEntry:
    """One photograph of a source: its file, the person's group, whether it is clean, and its split."""

    path: Path
    group: str
    clean: bool
    split: str


def list_photos(images: Path, *, share_folder: bool = False) -> list[Path]:
    """Photo files of a folder in natural order, or the one file itself.

    ``share_folder``: masks lie in the same folder, so that a PNG beside a photo of the same stem is its mask.
    Raises UserError when nothing is there.
    """
    if not images.exists():
        raise UserError(f"no photographs: {images} does not exist")
    if images.is_file():
        return [images]
    found = [path for path in images.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES]
    if share_folder:
        photos = {path.stem for path in found if path.suffix.lower() != ".png"}
        found = [path for path in found if path.suffix.lower() != ".png" or path.stem not in photos]
    if not found:
        raise UserError(f"no photographs: {images} holds no file ending in {', '.join(PHOTO_SUFFIXES)}")
    return sorted(found, key=lambda path: (len(path.stem) if path.stem.isdigit() else 99, path.name))


def digest_files(paths: list[Path]) -> str:
    """One SHA-256 (hex) over the names and contents of ``paths``: the stage key of whatever reads them."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def split_photos(
    photos: list[Path], *, manifest: Path | None, clean: dict[str, float], validation_share: float, seed: int
) -> list[PhotoEntry]:
    """Assign every photo to ``train`` or ``validation`` by its person's group, so that nobody is in both.

    ``manifest``: a CSV with a ``file`` column (matched by file name) and ``person_group``; without one every photo is
    its own group and clean. ``clean``: manifest columns and the value each must have for a photo to count as clean.
    The split is a hash of group and seed, so that adding photos moves nobody.
    """
    rows = _manifest_rows(manifest) if manifest else {}
    entries = []
    for path in photos:
        row = rows.get(path.name, {})
        group = row.get("person_group") or path.stem
        is_clean = not rows or (bool(row) and all(_equals(row, key, value) for key, value in clean.items()))
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
        entries.append(PhotoEntry(path, group, is_clean, "validation" if draw < validation_share else "train"))
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
