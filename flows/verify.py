"""Is a run on disk what its stages wrote: every file's hash compared, and what to do about each that differs."""

from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .sealed import read_json_sealed
from .store import MANIFEST, RUN, FileEntry, Manifest, parse_manifest, sha256_file, stage_folders


@dataclass(frozen=True)
class Damage:
    """One file that is not what was written: where it is, what is wrong with it, and what mends it."""

    path: Path
    what: str
    remedy: str


def verify_run(run_dir: Path) -> list[Damage]:
    """Everything in a run folder that is missing, truncated or altered: its record, its stages of all keys, its copies.

    A missing or unreadable record is a damage too. Raises UserError where there is no run folder at all.
    """
    if not run_dir.is_dir():
        raise UserError(f"there is no run folder {run_dir}")
    folders = stage_folders(run_dir)
    if not folders and not (run_dir / RUN).exists():
        raise UserError(f"{run_dir} is not a run folder: no {RUN}; make one with neo3df run")
    found = []
    for folder in folders:
        found += _folder_damages(folder)
    try:
        record = read_json_sealed(run_dir / RUN)
        stages, published = dict(record["stages"]), dict(record["published"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"delete it and run again: {run_dir} keeps what is finished"
        return [*found, Damage(run_dir / RUN, _reason(error), remedy)]
    present = {folder.name for folder in folders}
    for stage, key in stages.items():
        if f"{stage}-{key}" not in present:
            found.append(Damage(run_dir / f"{stage}-{key}", "missing", "run again"))
    for name, sha256 in published.items():
        if what := _difference(run_dir / name, sha256):
            found.append(Damage(run_dir / name, what, f"neo3df report {run_dir}"))
    return found


def _folder_damages(folder: Path) -> list[Damage]:
    stage = folder.name.rpartition("-")[0]
    remedy = f"neo3df run --refresh {stage}"
    try:
        manifest: Manifest = parse_manifest(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Damage(folder / MANIFEST, _reason(error), remedy)]
    differences = ((entry, _entry_difference(folder, entry)) for entry in manifest.files)
    return [Damage(folder / entry.name, what, remedy) for entry, what in differences if what]


def _entry_difference(folder: Path, entry: FileEntry) -> str:
    path = folder / entry.name
    if path.is_file() and path.stat().st_size != entry.bytes:
        return f"{path.stat().st_size} bytes instead of {entry.bytes}"
    return _difference(path, entry.sha256)


def _difference(path: Path, sha256: str) -> str:
    """What is wrong with one file; nothing if its bytes are the recorded ones."""
    try:
        return "" if sha256_file(path) == sha256 else "altered"
    except OSError as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return f"unreadable: {str(error).splitlines()[0]}" if str(error) else "unreadable"
