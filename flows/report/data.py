"""What one report is made from: a finished run, or several with disjoint validation faces, read as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..settings import RunConfig
from ..stages import STAGES
from ..store import Manifest, find_output, load_manifest, load_run, stage_folder
from ..tables import Columns, read_table

OF_A_MACHINE = ("images", "masks", "manifest", "parser_weights", "encoder_weights", "estimator_weights")
"""Settings that name places of one machine."""

MAY_DIFFER = frozenset({"seed", "run_dir", "dataset.fold", "evaluate.n_examples"})
"""Settings that runs in one report need not share, beside places."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its settings, and the newest output folder and manifest of every stage it has."""

    folder: Path
    config: Mapping[str, Any]
    outputs: Mapping[str, Path]
    manifests: Mapping[str, Manifest]


@dataclass(frozen=True)
class Metrics:
    """The ``metrics`` table of one stage; of several runs, the mean weighted by what each number was taken over."""

    rows: Columns

    @cached_property
    def _values(self) -> dict[tuple[str, str, str], list[tuple[float, int]]]:
        found: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
        rows = zip(*(self.rows[name] for name in ("method", "part", "metric", "value", "n")), strict=True)
        for method, part, metric, value, n in rows:
            found.setdefault((method, part, metric), []).append((float(value), max(int(n), 1)))
        return found

    def value(self, method: str, part: str, metric: str) -> float:
        """One number; NaN where it was not measured."""
        values, weights = zip(*self._values.get((method, part, metric), [(np.nan, 1)]), strict=True)
        return float(np.average(values, weights=weights))

    @property
    def measured(self) -> list[tuple[str, str, str]]:
        """(method, part, metric) in the order of the table."""
        return list(self._values)

    def has(self, metric: str) -> bool:
        """Whether there is such a metric at all."""
        return any(key[2] == metric for key in self._values)


@dataclass(frozen=True)
class Evidence:
    """The runs of a report; tables of the same stage and name are read as one."""

    runs: tuple[Run, ...]

    @property
    def config(self) -> Mapping[str, Any]:
        """Settings of the first run, which the others share as far as it matters."""
        return self.runs[0].config

    def table(self, stage: str, name: str, columns: Sequence[str] | None = None) -> Columns | None:
        """All rows of ``<name>*.parquet`` of a stage; None where no run has any."""
        files = [path for run in self.runs for path in self._files(run, stage, name)]
        return read_table(files, name, columns=columns) if files else None

    def first_table(self, stage: str, name: str) -> Columns | None:
        """The same of the first run alone."""
        files = self._files(self.runs[0], stage, name)
        return read_table(files, name) if files else None

    def metrics(self, stage: str) -> Metrics | None:
        """The ``metrics.parquet`` of a stage; None where no run has one."""
        paths = [run.outputs[stage] / "metrics.parquet" for run in self.runs if stage in run.outputs]
        files = [path for path in paths if path.is_file()]
        return Metrics(read_table(files, "metrics")) if files else None

    def together(self, name: str) -> Columns | None:
        """All rows of a table of our own methods and of their rivals; None where there is none of ours."""
        ours, rivals = (self.table(stage, name) for stage in ("evaluate", "compare_rivals"))
        return ours if ours is None or rivals is None else joined([ours, rivals])

    @staticmethod
    def _files(run: Run, stage: str, name: str) -> list[Path]:
        return sorted(run.outputs[stage].glob(f"{name}*.parquet")) if stage in run.outputs else []


def joined(tables: Sequence[Columns]) -> Columns:
    """The rows of tables that have the same columns, one after the other."""
    return {
        key: list(chain.from_iterable(values)) if isinstance(values[0], list) else np.concatenate(values)
        for key in tables[0]
        if (values := [table[key] for table in tables])
    }


def load_evidence(folders: Sequence[Path]) -> Evidence:
    """The finished runs in these folders.

    Raises UserError, in one line, where a run has no evaluation or a stage of it was made from what has changed since,
    where settings or face models differ, and where two runs have a validation face in common.
    """
    runs = tuple(_load(Path(folder)) for folder in folders)
    for run in runs[1:]:
        _require_same_settings(runs[0], run)
        _require_same_face_model(runs[0], run)
    _require_disjoint(runs)
    return Evidence(runs)


def _load(folder: Path) -> Run:
    record = load_run(folder)
    find_output(folder, "evaluate")
    outputs = {stage.name: find_output(folder, stage.name) for stage in STAGES if stage.name in record.stages}
    manifests = {name: manifest for name, path in outputs.items() if (manifest := load_manifest(path)) is not None}
    for manifest in manifests.values():
        _require_current(folder, manifest, manifests)
    return Run(folder, _with_defaults(record.config), outputs, manifests)


def _require_current(folder: Path, manifest: Manifest, newest: Mapping[str, Manifest]) -> None:
    """Refuse a stage that was made from an older output than the one the report would show beside it."""
    for name, key in manifest.upstream.items():
        used = load_manifest(stage_folder(folder, name, key))
        if used is not None and name in newest and used.content != newest[name].content:
            raise UserError(
                f"{manifest.stage} of {folder} was made from an older {name} than the newest one; run neo3df run again"
            )


def _require_same_settings(first: Run, other: Run) -> None:
    ours, theirs = settings_of(first), settings_of(other)
    for key in dict.fromkeys([*ours, *theirs]):
        if key not in MAY_DIFFER and ours.get(key) != theirs.get(key):
            raise UserError(
                f"{first.folder} and {other.folder} differ in {key}: {ours.get(key)} and {theirs.get(key)}; "
                "a report is of runs with the same settings"
            )


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, and what an older one did not know yet as it is by default."""
    defaults = RunConfig().model_dump(mode="json")
    return {
        key: {**default, **config.get(key, {})} if isinstance(default, dict) else config.get(key, default)
        for key, default in defaults.items()
    }


def settings_of(run: Run) -> dict[str, Any]:
    """All settings of a run as section.key, but for the places of a machine."""
    settings = {}
    for section, values in run.config.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            if key not in OF_A_MACHINE:
                settings[f"{section}.{key}" if key else section] = value
    return settings


def _require_same_face_model(first: Run, other: Run) -> None:
    def digest(run: Run) -> str | None:
        entries = run.manifests["build_dataset"].files
        return next((entry.sha256 for entry in entries if entry.name == "face_model.npz"), None)

    if digest(first) != digest(other):
        raise UserError(f"{first.folder} and {other.folder} are of different face models; report them one by one")


def _require_disjoint(runs: Sequence[Run]) -> None:
    owner: dict[str, Path] = {}
    for run in runs:
        files = sorted(run.outputs["evaluate"].glob("overlaps*.parquet"))
        for face in dict.fromkeys(read_table(files, "overlaps", columns=["face_id"])["face_id"]):
            if face in owner:
                raise UserError(
                    f"face {face} is a validation face of {owner[face]} and of {run.folder}: give runs of one fold each"
                )
            owner[face] = run.folder
