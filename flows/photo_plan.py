"""The plan of a dataset of photographs: every entry of its folders, in shards, each to be read or set aside at once.

It is made once, before the shards, because it is about all photographs: which have the same content, and who is in
which split. It is kept beside the unfinished shards, so that a shard reads its own entries only.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dataset_builder import PhotoFile, Rejected

from .contracts import Contract, binary, scalar, string
from .real_photos import RejectedInput, rejected_input
from .settings import DatasetConfig
from .sources import PhotoEntry, Split, content_digest, list_inputs, readable, split_photos
from .tables import read_table, write_table

PLAN = Contract(
    "plan",
    1,
    {
        "path": binary(),
        "masks": binary(),
        "name": string(),
        "group": string(),
        "clean": scalar("int64"),
        "split": string(),
        "code": string(),
        "detail": string(),
    },
)


def plan_photos(section: DatasetConfig, seed: int) -> list[PhotoEntry | RejectedInput]:
    """Every entry of the folders, in their order and natural order within; copies of an earlier photo set aside.

    Raises UserError for folders without photographs, and a manifest that cannot be used.
    """
    listed = [(entry, masks) for images, masks in section.folders for entry in list_inputs(images, masks)]
    unique = _without_copies(entry for entry, _ in listed)
    kept = [(entry.path, masks) for entry, (_, masks) in zip(unique, listed, strict=True) if _is_photo(entry)]
    split = Split(seed, section.validation_share, section.n_folds, section.fold)
    paths, masks = [path for path, _ in kept], [place for _, place in kept]
    photos = iter(split_photos(paths, masks, manifest=section.manifest, clean=section.clean, split=split))
    return [rejected_input(entry) if isinstance(entry, Rejected) else next(photos) for entry in unique]


def write_plan(folder: Path, entries: list[PhotoEntry | RejectedInput], shard_size: int) -> list[str]:
    """Write the entries in equal runs and return the names of the shards."""
    names = [f"{i:05d}" for i in range(-(-len(entries) // shard_size))]
    for i, name in enumerate(names):
        rows = [_row(entry) for entry in entries[i * shard_size : (i + 1) * shard_size]]
        write_table(_file(folder, name), PLAN, {key: [row[key] for row in rows] for key in PLAN.columns})
    return names


def read_plan(folder: Path, shard: str) -> list[PhotoEntry | RejectedInput]:
    """The entries of one shard."""
    table = read_table(_file(folder, shard), PLAN)
    return [_entry(dict(zip(table, values, strict=True))) for values in zip(*table.values(), strict=True)]


def remove_plan(folder: Path) -> None:
    """Delete the plan: what became of every entry is in the tables now."""
    for path in folder.glob("plan-*.parquet"):
        path.unlink()


def _file(folder: Path, shard: str) -> Path:
    return folder / f"plan-{shard}.parquet"


def _is_photo(entry: PhotoFile | Rejected) -> bool:
    return isinstance(entry, PhotoFile)


def _without_copies(entries: Iterable[PhotoFile | Rejected]) -> list[PhotoFile | Rejected]:
    """The same entries, photos with the content of an earlier one as rejected."""
    first: dict[bytes, PhotoFile] = {}
    result: list[PhotoFile | Rejected] = []
    for entry in entries:
        digest = content_digest(entry.path) if isinstance(entry, PhotoFile) else None
        if isinstance(entry, PhotoFile) and digest is not None:
            original = first.setdefault(digest, entry)
            if original is not entry:
                detail = f"{entry.path.name}: same content as {original.path.name}"
                entry = Rejected(entry.name, entry.path, "duplicate", readable(detail))
        result.append(entry)
    return result


def _row(entry: PhotoEntry | RejectedInput) -> dict[str, bytes | str | int]:
    if isinstance(entry, RejectedInput):
        nothing: dict[str, bytes | str | int] = {"masks": b"", "name": "", "group": "", "clean": 0, "split": ""}
        return {**nothing, "path": entry.path.encode(), "code": entry.code, "detail": entry.detail}
    return {
        "path": os.fsencode(entry.path),
        "masks": b"" if entry.masks is None else os.fsencode(entry.masks),
        "name": entry.name,
        "group": entry.group,
        "clean": int(entry.clean),
        "split": entry.split,
        "code": "",
        "detail": "",
    }


def _entry(row: Mapping[str, Any]) -> PhotoEntry | RejectedInput:
    if row["code"]:
        return RejectedInput(row["path"].decode(), row["code"], row["detail"])
    masks = Path(os.fsdecode(row["masks"])) if row["masks"] else None
    path = Path(os.fsdecode(row["path"]))
    return PhotoEntry(path, row["name"], row["group"], bool(row["clean"]), row["split"], masks)
