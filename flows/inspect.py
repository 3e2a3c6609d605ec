"""What is in a run: its stages with sizes, times and versions, and what became of one photograph."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .contracts import PARTS
from .errors import UserError
from .methods import method_name
from .store import Manifest, latest_outputs, load_manifest
from .tables import Columns, read_table, table_metadata


@dataclass(frozen=True)
class StageSummary:
    """A finished stage: its key, when and how long it was made, the versions that made it, and its size on disk.

    ``tables``: rows by table contract. ``upstream``: the keys of the stages it was made from.
    """

    stage: str
    key: str
    created: str
    seconds: float
    files: int
    bytes: int
    tables: dict[str, int]
    packages: dict[str, str]
    upstream: dict[str, str]


def summarise(run_dir: Path) -> list[StageSummary]:
    """The newest output of every stage of a run. Raises UserError where there is no run, or a stage is incomplete."""
    return [_summary(folder, manifest) for folder, manifest in _outputs(run_dir)]


def _summary(folder: Path, manifest: Manifest) -> StageSummary:
    rows: dict[str, int] = {}
    for entry in manifest.files:
        if entry.rows is not None:
            contract = table_metadata(folder / entry.name)["contract"]
            rows[contract] = rows.get(contract, 0) + entry.rows
    return StageSummary(
        stage=manifest.stage,
        key=manifest.key,
        created=manifest.created,
        seconds=manifest.seconds,
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files),
        tables=rows,
        packages=manifest.packages,
        upstream=manifest.upstream,
    )


@dataclass(frozen=True)
class LineageStep:
    """One place where a run mentions a photograph: the stage, the file and its table, and what is said there."""

    stage: str
    file: str
    table: str
    says: str


def lineage(run_dir: Path, photo: str) -> list[LineageStep]:
    """Every row of a run that is of one photograph, from its file to its fit, in the order of the stages.

    ``photo`` is a face_id, a file name, or the end of a path. Raises UserError where the run knows none of the kind.
    """
    found = [step for folder, manifest in _outputs(run_dir) for step in _mentions(folder, manifest, photo)]
    if not found:
        raise UserError(f"{run_dir} knows no photograph {photo!r}: give a face_id, or the name of an input file")
    return found


def _outputs(run_dir: Path) -> Iterator[tuple[Path, Manifest]]:
    for folder in latest_outputs(run_dir).values():
        manifest = load_manifest(folder)
        assert manifest is not None  # latest_outputs has just loaded it
        yield folder, manifest


def _mentions(folder: Path, manifest: Manifest, photo: str) -> Iterator[LineageStep]:
    for entry in manifest.files:
        if entry.rows:
            contract = table_metadata(folder / entry.name)["contract"]
            for says in _rows(folder / entry.name, contract, photo):
                yield LineageStep(manifest.stage, entry.name, contract, says)


def _rows(path: Path, contract: str, photo: str) -> Iterator[str]:
    """What a table says of the photograph, one line per row."""
    match contract:
        case "rejected":
            table = read_table(path, contract)
            for row, name in enumerate(table["path"]):
                if _is(photo, name):
                    yield f"set aside ({table['code'][row]}): {table['detail'][row]}"
        case "faces":
            table = read_table(path, contract, columns=["face_id", "source", "split", "landmark_residual", "clean"])
            for row in _of(table, photo):
                clean = "clean" if table["clean"][row] else "not clean"
                yield (
                    f"{table['source'][row]}, split {table['split'][row]}, {clean}, "
                    f"landmark residual {table['landmark_residual'][row]:.2f} px"
                )
        case "masks":
            table = read_table(path, contract, columns=["face_id", "source", "area"])
            for row in _of(table, photo):
                areas = ", ".join(f"{p} {a:.0f}" for p, a in zip(PARTS, table["area"][row], strict=True))
                yield f"{table['source'][row]}: {areas} px"
        case "encodings":
            table = read_table(path, contract, columns=["face_id", "encoder"])
            for row in _of(table, photo):
                yield f"encoder {table['encoder'][row]}"
        case "fits":
            table = read_table(path, contract, columns=["face_id", "method", "iou_before", "iou_after"])
            for row in _of(table, photo):
                before, after = (np.nanmean(table[f"iou_{when}"][row]) for when in ("before", "after"))
                yield f"{table['method'][row]}: mean IoU {before:.3f} before, {after:.3f} after"
        case "overlaps":
            wanted = ["face_id", "model", "step", "reference", "intersection", "union"]
            table = read_table(path, contract, columns=wanted)
            for row in _of(table, photo):
                there = table["union"][row] > 0
                iou = table["intersection"][row][there] / table["union"][row][there]
                name, reference = method_name(table["model"][row], table["step"][row]), table["reference"][row]
                yield f"{name}: mean IoU {iou.mean():.3f} with the {reference}"
        case "crops" | "latents" | "offsets" | "shapes" | "measurements":
            for _ in _of(read_table(path, contract, columns=["face_id"]), photo):
                yield "a row"


def _of(table: Columns, photo: str) -> list[int]:
    return [row for row, name in enumerate(table["face_id"]) if _is(photo, name)]


def _is(photo: str, name: str) -> bool:
    return name in (photo, Path(photo).stem) or Path(name).stem == photo or name.endswith(f"/{photo}")
