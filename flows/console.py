"""What the commands print at their end: the stage table and the headline numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from .contracts import PARTS
from .gc import Garbage
from .inspect import LineageStep, StageSummary
from .methods import in_headline
from .pipeline import PlannedStage, StageOutcome
from .progress import clock
from .tables import read_table
from .verify import Damage

MEAN_OF_FIVE = "mean_of_five"
PLAIN_WIDTH = 120


def print_stages(outcomes: Sequence[StageOutcome], seconds: float, console: Console | None = None) -> None:
    """One line per stage: ran or cached, seconds, rows and folder; below them the total."""
    table = Table("stage", "", _right("seconds"), _right("rows"), "folder", box=None, pad_edge=False)
    for outcome in outcomes:
        table.add_row(outcome.name, outcome.status, f"{outcome.seconds:.1f}", str(outcome.rows), _short(outcome.folder))
    ran = sum(outcome.status == "ran" for outcome in outcomes)
    console = console or _console()
    console.print(table)
    console.print(f"{ran} ran, {len(outcomes) - ran} cached, {clock(seconds)} in all", highlight=False)


def print_plan(planned: Sequence[PlannedStage], console: Console | None = None) -> None:
    """What a run would do, for ``--dry-run``."""
    words = {"run": "would run", "cached": "cached", "unknown": "depends on what runs before it"}
    table = Table("stage", "", "key", box=None, pad_edge=False)
    for stage in planned:
        table.add_row(stage.name, words[stage.status], stage.key or "")
    (console or _console()).print(table)


def print_headline(evaluate_folder: Path, console: Console | None = None) -> None:
    """The IoU per part of our methods and of fitted rivals, from the ``metrics`` table of evaluate, if it has one."""
    path = next(iter(sorted(evaluate_folder.rglob("metrics*.parquet"))), None)
    if path is None:
        return
    metrics = read_table(path, "metrics")
    rows = zip(metrics["method"], metrics["part"], metrics["metric"], metrics["value"], strict=True)
    values = {(method, _headline(part, metric)): value for method, part, metric, value in rows}
    columns = [name for name in (*PARTS, MEAN_OF_FIVE) if any(name == found for _, found in values)]
    if not columns:
        return
    table = Table("IoU", *(_right(name.replace("_", " ")) for name in columns), box=None, pad_edge=False)
    for method in dict.fromkeys(method for method, name in values if name and in_headline(*_method(method))):
        table.add_row(method, *(_number(values.get((method, name), np.nan)) for name in columns))
    (console or _console()).print(table)


def print_summaries(stages: Sequence[StageSummary], console: Console | None = None) -> None:
    """Stages of a run, and where its bytes and its seconds are."""
    console = console or _console()
    table = Table("stage", "key", "made", *map(_right, ("seconds", "files", "MB")), "rows", box=None, pad_edge=False)
    for stage in stages:
        rows = ", ".join(f"{name} {n}" for name, n in stage.tables.items())
        numbers = f"{stage.seconds:.1f}", str(stage.files), f"{stage.bytes / 1e6:.1f}"
        table.add_row(stage.stage, stage.key, stage.created[:16].replace("T", " "), *numbers, rows)
    console.print(table)
    versions = {name: version for stage in stages for name, version in stage.packages.items()}
    console.print(", ".join(f"{name} {version}" for name, version in sorted(versions.items())), highlight=False)
    total = sum(stage.bytes for stage in stages) / 1e6
    console.print(f"{sum(stage.seconds for stage in stages):.1f} s, {total:.1f} MB in all", highlight=False)


def print_lineage(steps: Sequence[LineageStep], console: Console | None = None) -> None:
    """What became of one photograph, stage by stage."""
    table = Table("stage", "file", "what it says", box=None, pad_edge=False)
    for step in steps:
        table.add_row(step.stage, step.file, step.says)
    (console or _console()).print(table)


def print_damages(damages: Sequence[Damage], console: Console | None = None) -> None:
    """One line per damaged file, with what mends it."""
    console = console or _console()
    for damage in damages:
        console.print(f"{damage.path}: {damage.what}; {damage.remedy}", highlight=False, soft_wrap=True)
    console.print(f"{len(damages)} damaged" if damages else "every file is what was written", highlight=False)


def print_garbage(found: Sequence[Garbage], *, dry_run: bool, console: Console | None = None) -> None:
    """What was removed, or would be, and how much room it took."""
    console = console or _console()
    for garbage in found:
        console.print(f"{garbage.path} ({garbage.bytes / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    total = sum(garbage.bytes for garbage in found) / 1e6
    console.print(f"{total:.1f} MB {'to be freed' if dry_run else 'freed'}", highlight=False)


def _headline(part: str, metric: str) -> str:
    """The headline column that a metric belongs to, or nothing."""
    if metric == MEAN_OF_FIVE:
        return MEAN_OF_FIVE
    return part if metric == "iou" else ""


def _method(name: str) -> tuple[str, str]:
    """Model and step of a method's name; all of it is the model where it names no step."""
    model, comma, step = name.rpartition(", ")
    return (model, step) if comma else (name, "")


def _console() -> Console:
    """Standard output; as wide as the tables where nobody looks at it in a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _right(title: str) -> Column:
    return Column(title, justify="right")


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _short(folder: Path) -> str:
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)


def print_reconstructions(
    faces: Sequence[tuple[str, float | None, float | None]],
    rejected: Sequence[tuple[str, str, str]],
    out: Path,
    console: Console | None = None,
) -> None:
    """One line per face, mean IoU of its parts before and after where it had a mask; then the inputs set aside."""
    console = console or _console()
    table = Table("face", _right("IoU before"), _right("IoU after"), "folder", box=None, pad_edge=False)
    for name, before, after in faces:
        numbers = (_number(np.nan if value is None else value) for value in (before, after))
        table.add_row(name, *numbers, _short(out / name))
    console.print(table)
    for path, code, detail in rejected:
        console.print(f"set aside: {path} ({code}): {detail}", highlight=False, soft_wrap=True)
    console.print(f"{len(faces)} faces, {len(rejected)} set aside", highlight=False)
