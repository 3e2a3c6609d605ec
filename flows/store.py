"""The record of what is finished: stage keys, manifests, locks, and the pointer file of a run folder.

A stage's output is a folder ``<stage>-<key>`` with a ``manifest.json``. The key is a digest of the stage's name, its
part of the configuration, the content hashes of everything it reads and the versions of the packages it uses. So a
stage is finished when the folder of its key holds a manifest whose files are all there; nothing else is asked.
Unfinished work lives in ``.work-<stage>-<key>`` and becomes the stage folder by one rename.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .atomic import TEMPORARY, replacing, sync_folder
from .errors import UserError
from .machine import this_machine
from .sealed import read_json_sealed, write_json_sealed
from .versions import package_version

MANIFEST = "manifest.json"
DONE = ".done"
RUN = "run.json"
STAGE_FOLDER = re.compile(r"[a-z_]+-[0-9a-f]{16}")


@dataclass(frozen=True)
class FileEntry:
    """One output file: its path inside the stage folder, sha256, size, and rows where it is a table."""

    name: str
    sha256: str
    bytes: int
    rows: int | None


@dataclass(frozen=True)
class Manifest:
    """What a finished stage made, out of what, how long it took and on which kind of machine ("" if not recorded)."""

    stage: str
    key: str
    files: tuple[FileEntry, ...]
    config: dict[str, Any]
    upstream: dict[str, str]
    packages: dict[str, str]
    seconds: float
    created: str
    machine: str = ""

    @property
    def content(self) -> str:
        """Digest of the files' names and hashes: equal bytes, equal content, whenever they were made."""
        return digest([[entry.name, entry.sha256] for entry in self.files])

    @property
    def rows(self) -> int:
        """Rows of all tables together."""
        return sum(entry.rows or 0 for entry in self.files)


def digest(value: Any) -> str:
    """A 16-digit hexadecimal digest of a JSON-like value; dictionaries hash independently of their order.

    Raises ValueError for a value that JSON cannot hold.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    except TypeError as error:
        raise ValueError(f"cannot hash a stage configuration: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is neither a number, a text, a list nor a mapping of these")


def stage_key(
    stage: str, config: Mapping[str, Any], upstream: Mapping[str, Manifest], packages: tuple[str, ...]
) -> str:
    """The key of a stage: it changes when the configuration, an upstream file or a package version does."""
    contents = {name: manifest.content for name, manifest in upstream.items()}
    versions = {name: package_version(name) for name in packages}
    return digest({"stage": stage, "config": dict(config), "upstream": contents, "packages": versions})


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stage_folder(run_dir: Path, stage: str, key: str) -> Path:
    """Where the finished output of a key lives."""
    return run_dir / f"{stage}-{key}"


def work_folder(run_dir: Path, stage: str, key: str) -> Path:
    """Where unfinished output of a key lives; the same on a rerun, so that finished shards are kept."""
    return run_dir / f".work-{stage}-{key}"


def stage_folders(run_dir: Path) -> list[Path]:
    """Every finished or once finished stage folder of a run, of all keys, by name."""
    return sorted(path for path in run_dir.iterdir() if path.is_dir() and STAGE_FOLDER.fullmatch(path.name))


def parse_manifest(folder: Path) -> Manifest:
    """The manifest of a stage folder, whatever became of its files.

    Raises OSError, ValueError, TypeError or KeyError where there is none, or its bytes have changed.
    """
    values = read_json_sealed(folder / MANIFEST)
    files = tuple(FileEntry(**entry) for entry in values.pop("files"))
    return Manifest(files=files, **values)


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage folder; None where it, or a file at its recorded size, is missing."""
    try:
        manifest = parse_manifest(folder)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    for entry in manifest.files:
        path = folder / entry.name
        if not path.is_file() or path.stat().st_size != entry.bytes:
            return None
    return manifest


def verify(folder: Path, *, tables: bool = True) -> list[str]:
    """Names of the files in a stage folder, with or without its tables, that no longer have the recorded SHA-256."""
    manifest = load_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} is not a finished stage: no complete {MANIFEST}")
    entries = (entry for entry in manifest.files if tables or not entry.name.endswith(".parquet"))
    return [entry.name for entry in entries if sha256_file(folder / entry.name) != entry.sha256]


def commit(
    run_dir: Path,
    stage: str,
    key: str,
    *,
    config: Mapping[str, Any],
    upstream: Mapping[str, Manifest],
    packages: tuple[str, ...],
    seconds: float,
) -> Manifest:
    """Turn the work folder of a key into its finished folder, manifest last, and return the manifest.

    An existing folder of the key with the same content is kept as it is.
    """
    work, final = work_folder(run_dir, stage, key), stage_folder(run_dir, stage, key)
    shutil.rmtree(work / DONE, ignore_errors=True)
    for leftover in (work / MANIFEST, *work.rglob(f"*{TEMPORARY}")):
        leftover.unlink(missing_ok=True)
    manifest = Manifest(
        stage=stage,
        key=key,
        files=tuple(_entries(work)),
        config=json.loads(json.dumps(dict(config), default=_plain)),
        upstream={name: found.key for name, found in upstream.items()},
        packages={name: package_version(name) for name in packages},
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
    )
    existing = load_manifest(final)
    if existing is not None and existing.content == manifest.content and not verify(final):
        shutil.rmtree(work)
        return existing
    write_json_sealed(work / MANIFEST, asdict(manifest))
    _promote(work, final)
    return manifest


def _promote(work: Path, final: Path) -> None:
    """Rename a complete work folder to its final name, moving an older one aside first."""
    old = final.with_name(f".old-{final.name}")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    work.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def adopt(run_dir: Path, stage: str, key: str) -> Manifest | None:
    """Finish a commit that was cut off between the manifest and the rename; None where there was none."""
    work = work_folder(run_dir, stage, key)
    manifest = load_manifest(work)
    if manifest is not None:
        _promote(work, stage_folder(run_dir, stage, key))
    return manifest


def _entries(folder: Path) -> Iterator[FileEntry]:
    from .tables import row_count

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            rows = row_count(path) if path.suffix == ".parquet" else None
            yield FileEntry(path.relative_to(folder).as_posix(), sha256_file(path), path.stat().st_size, rows)


def shard_done(work: Path, shard: str) -> bool:
    """Whether a shard was finished in this work folder, now or in an earlier, interrupted run."""
    return (work / DONE / shard).exists()


def mark_shard(work: Path, shard: str) -> None:
    """Record that all files of a shard are written."""
    with replacing(work / DONE / shard):
        pass


@contextmanager
def building(run_dir: Path, stage: str, key: str) -> Iterator[None]:
    """Hold the lock of one key, after any other process that builds it; the system frees a dead owner's lock."""
    folder = run_dir / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{stage}-{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{stage}: another process is making it; waiting", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class RunRecord:
    """The pointer file of a run folder: the newest key of every stage, and the configuration it was made with.

    ``published``: SHA-256 of the files that were put into the run folder itself, by their path in it.
    """

    stages: dict[str, str]
    config: dict[str, Any]
    published: dict[str, str] = field(default_factory=dict)


def record_stage(run_dir: Path, stage: str, key: str, config: Mapping[str, Any]) -> None:
    """Point the run's record at a stage's newest key. Older keys stay on disk."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(_lock_path(run_dir)):
        found = _read_record(run_dir) or RunRecord({}, {})
        stages = {**found.stages, stage: key}
        plain = json.loads(json.dumps(config, default=_plain))
        _write_record(run_dir, found, replace(found, stages=stages, config=plain))


def record_published(run_dir: Path, files: Iterable[Path]) -> None:
    """Note in the run's record what bytes these files of the run folder have."""
    with FileLock(_lock_path(run_dir)):
        found = load_run(run_dir)
        hashes = {path.relative_to(run_dir).as_posix(): sha256_file(path) for path in files}
        _write_record(run_dir, found, replace(found, published=hashes))


def _write_record(run_dir: Path, found: RunRecord, fresh: RunRecord) -> None:
    if fresh != found:
        write_json_sealed(run_dir / RUN, asdict(fresh))


def _lock_path(run_dir: Path) -> Path:
    folder = run_dir / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "run.lock"


def _read_record(run_dir: Path) -> RunRecord | None:
    try:
        return RunRecord(**read_json_sealed(run_dir / RUN))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{run_dir / RUN} is damaged ({error}); delete it and run again") from error


def load_run(run_dir: Path) -> RunRecord:
    """The record of a run folder. Raises UserError where there is none."""
    record = _read_record(run_dir)
    if record is None:
        raise UserError(f"{run_dir} is not a run folder: no {RUN}; make one with neo3df run")
    return record


def latest_outputs(run_dir: Path) -> dict[str, Path]:
    """The newest finished output folder of every stage of a run, by stage name.

    Raises UserError where ``run_dir`` is no run folder or an output is incomplete.
    """
    return {stage: find_output(run_dir, stage) for stage in load_run(run_dir).stages}


def find_output(run_dir: Path, stage: str) -> Path:
    """The newest finished output folder of a stage in a run. Raises UserError where there is none."""
    key = load_run(run_dir).stages.get(stage)
    if key is None:
        raise UserError(f"{run_dir} has no output of stage {stage}; run neo3df run first")
    folder = stage_folder(run_dir, stage, key)
    if load_manifest(folder) is None:
        raise UserError(f"{folder} is incomplete; run neo3df run again")
    require_intact(folder)
    return folder


def require_intact(folder: Path) -> None:
    """Raise UserError where a file of a finished stage is not what was written; tables are left to their own readers,
    which check every byte they return."""
    if altered := verify(folder, tables=False):
        stage = folder.name.rpartition("-")[0]
        raise UserError(f"{folder / altered[0]} has changed since it was written; run neo3df run --refresh {stage}")


def timings(run_dir: Path) -> list[tuple[str, float, int]]:
    """Stage, seconds it took when it was made, and rows it wrote, for every stage of a run."""
    manifests = [load_manifest(folder) for folder in latest_outputs(run_dir).values()]
    return [(found.stage, found.seconds, found.rows) for found in manifests if found is not None]
