"""Freeing the space of what a run no longer needs: outputs of older configurations, and what a kill left behind."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .atomic import TEMPORARY
from .store import MANIFEST, STAGE_FOLDER, load_run, parse_manifest, stage_folders

LEFT_BEHIND = (".work-", ".old-")


@dataclass(frozen=True)
class Garbage:
    """A file or folder that no manifest names, and its size."""

    path: Path
    bytes: int


def find_garbage(run_dir: Path) -> list[Garbage]:
    """What :func:`collect_garbage` would remove.

    Kept are the stages of the run's record, what these were made from, and everything that is not this program's.
    Stages that another process is making right now are no garbage. Raises UserError where there is no run.
    """
    kept = _reachable(run_dir)
    candidates = [folder for folder in stage_folders(run_dir) if folder.name not in kept]
    candidates += [path for path in run_dir.iterdir() if path.name.startswith(LEFT_BEHIND)]
    candidates += run_dir.glob(f".*{TEMPORARY}")
    for name in sorted(kept):
        candidates += _unnamed_files(run_dir / name)
    return [Garbage(path, _size(path)) for path in sorted(candidates) if not _in_use(run_dir, path)]


def collect_garbage(run_dir: Path) -> list[Garbage]:
    """Remove what no manifest of the run names, and return it. Raises as :func:`find_garbage`."""
    found = find_garbage(run_dir)
    for garbage in found:
        if garbage.path.is_dir():
            shutil.rmtree(garbage.path)
        else:
            garbage.path.unlink(missing_ok=True)
    return found


def _reachable(run_dir: Path) -> set[str]:
    """Names of the folders of the record's stages and of everything they were made from."""
    queue, found = list(load_run(run_dir).stages.items()), set()
    while queue:
        stage, key = queue.pop()
        name = f"{stage}-{key}"
        if name not in found:
            found.add(name)
            try:
                queue.extend(parse_manifest(run_dir / name).upstream.items())
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged: what it was made from is kept by the stages that say so themselves
    return found


def _unnamed_files(folder: Path) -> Iterator[Path]:
    """Files inside a finished stage folder that its manifest does not name."""
    try:
        named = {MANIFEST, *(entry.name for entry in parse_manifest(folder).files)}
    except (OSError, ValueError, KeyError, TypeError):
        return
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in named:
            yield path


def _in_use(run_dir: Path, path: Path) -> bool:
    """Whether another process holds the lock of the stage that a folder belongs to."""
    name = path.relative_to(run_dir).parts[0]
    for prefix in LEFT_BEHIND:
        name = name.removeprefix(prefix)
    lock = run_dir / ".locks" / f"{name}.lock"
    if not STAGE_FOLDER.fullmatch(name) or not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
