"""Stages and the order they run in: what is finished is read from disk, what is not is handed to a runner.

Because a key depends on the content of what a stage reads, each stage is decided when its upstreams are done. A run in
which nothing is left to do touches no runner at all.
"""

import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from . import store
from .config import RunConfig
from .errors import UserError
from .progress import Progress, Silent


@dataclass(frozen=True)
class StageContext:
    """What a stage function gets: the configuration, the folders of what it needs, and an empty or half-full ``out``.

    Read from the configuration only what the stage's ``config`` function returns: the rest is not part of its key.
    ``out`` keeps the files of finished shards after an interruption, so write files with fixed names.
    """

    config: RunConfig
    inputs: Mapping[str, Path]
    out: Path
    run_dir: Path
    progress: Progress = field(default_factory=Silent, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "progress": Silent()}


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline, as plain functions.

    ``config`` returns the JSON-like slice of the configuration that decides the result, ``needs`` are stage names and
    ``packages`` the packages whose version does. ``spares`` returns which of ``needs`` a configuration does without.
    ``require`` raises UserError where a file from outside that the stage reads is missing; it is asked before anything
    runs. A stage with ``shards`` (names, each a valid file name) and ``run_shard`` first makes every unfinished shard,
    in any order and possibly at once, then calls ``run`` for what concerns all of them. Under torchrun every process
    calls the ``run`` of a stage that is marked ``together``: see :mod:`flows.torchrun`.
    """

    name: str
    config: Callable[[RunConfig], Mapping[str, Any]]
    run: Callable[[StageContext], None] | None = None
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    shards: Callable[[StageContext], Sequence[str]] | None = None
    run_shard: Callable[[StageContext, str], None] | None = None
    spares: Callable[[RunConfig], Collection[str]] = lambda config: ()
    require: Callable[[RunConfig], None] = lambda config: None
    together: bool = False

    def __post_init__(self) -> None:
        if (self.shards is None) != (self.run_shard is None):
            raise ValueError(f"stage {self.name}: shards and run_shard go together")
        if self.run is None and self.shards is None:
            raise ValueError(f"stage {self.name} has nothing to run")


@dataclass(frozen=True)
class StageOutcome:
    """What happened to one stage."""

    name: str
    status: Literal["ran", "cached"]
    seconds: float
    rows: int
    key: str
    folder: Path


@dataclass(frozen=True)
class PlannedStage:
    """A stage as it would be treated now; ``unknown`` where an upstream has to run first."""

    name: str
    status: Literal["run", "cached", "unknown"]
    key: str | None


class Runner(Protocol):
    """Carries out stage bodies: ``session`` encloses all that is left, ``stage`` one stage, ``shards`` its shards."""

    def session(self, body: Callable[[], None]) -> None:
        """Call ``body`` once, with whatever the runner needs set up around it."""

    def stage(self, stage: Stage, body: Callable[[], None]) -> None:
        """Call ``body`` once, inside a session."""

    def shards(self, stage: Stage, context: StageContext, names: Sequence[str]) -> Iterator[str]:
        """Make the shards, yielding each name when it is finished."""


class PlainRunner:
    """Runs everything here, one after the other, without Prefect."""

    def session(self, body: Callable[[], None]) -> None:
        """Call ``body``."""
        body()

    def stage(self, stage: Stage, body: Callable[[], None]) -> None:
        """Call ``body``."""
        body()

    def shards(self, stage: Stage, context: StageContext, names: Sequence[str]) -> Iterator[str]:
        """Make one shard after the other."""
        for name in names:
            make_shard(stage, context, name)
            yield name


def make_shard(stage: Stage, context: StageContext, shard: str) -> str:
    """Make one shard unless it is finished already, and return its name; safe to call twice."""
    assert stage.run_shard is not None
    if not store.shard_done(context.out, shard):
        stage.run_shard(replace(context, progress=context.progress.branch()), shard)
        store.mark_shard(context.out, shard)
    return shard


class Pipeline:
    """A run: the stages, the configuration, and which stages are selected or forced.

    ``only`` limits the run to the named stages and what they need; ``refresh`` makes the named stages again, and
    ``begin`` one and all that depend on it. With ``alone`` the stages of ``only`` run by themselves, and what they need
    must be finished. Raises UserError for an unknown name.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        config: RunConfig,
        *,
        only: Sequence[str] = (),
        refresh: Sequence[str] = (),
        begin: str | None = None,
        alone: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._stages = in_order(_for_config(stage, config) for stage in stages)
        by_name = {stage.name: stage for stage in self._stages}
        for name in (*only, *refresh, *([] if begin is None else [begin])):
            if name not in by_name:
                raise UserError(f"there is no stage {name!r}; stages are {', '.join(by_name)}")
        self._selected = _with_needs(by_name, only) if only else set(by_name)
        self._allowed = set(only) if alone else self._selected
        self._refresh = set(refresh) | {name for name in by_name if begin in _with_needs(by_name, [name])}
        self._config = config
        self._run_dir = Path(config.run_dir)
        self._progress = progress or Silent()
        self._done: dict[str, store.Manifest] = {}

    def plan(self) -> list[PlannedStage]:
        """What a run would do now, without doing it. Raises UserError where a file it would read is missing."""
        planned: list[PlannedStage] = []
        done: dict[str, store.Manifest] = {}
        for stage in self._pending():
            if any(name not in done for name in stage.needs):
                stage.require(self._config)
                planned.append(PlannedStage(stage.name, "unknown", None))
                continue
            key = self._key(stage, done)
            manifest = store.load_manifest(store.stage_folder(self._run_dir, stage.name, key))
            if manifest is not None and stage.name not in self._refresh:
                done[stage.name] = manifest
                planned.append(PlannedStage(stage.name, "cached", key))
            else:
                stage.require(self._config)
                planned.append(PlannedStage(stage.name, "run", key))
        return planned

    def execute(self, runner: Runner | Callable[[], Runner] | None = None) -> list[StageOutcome]:
        """Bring every selected stage to its finished output and say what was done.

        ``runner`` may be a function that makes one; it is called only when a stage has to run.
        """
        outcomes: list[StageOutcome] = []
        pending = list(self._pending())
        while pending and (outcome := self._cached(pending[0])) is not None:
            outcomes.append(outcome)
            pending.pop(0)
        if pending:
            self._refuse_other(pending[0])
            for stage in pending:
                stage.require(self._config)
            chosen = _make(runner)
            chosen.session(lambda: outcomes.extend(self._bring(stage, chosen) for stage in pending))
        return outcomes

    def _pending(self) -> Iterator[Stage]:
        return (stage for stage in self._stages if stage.name in self._selected)

    def _key(self, stage: Stage, done: Mapping[str, store.Manifest]) -> str:
        upstream = {name: done[name] for name in stage.needs}
        return store.stage_key(stage.name, stage.config(self._config), upstream, stage.packages)

    def _cached(self, stage: Stage) -> StageOutcome | None:
        """The outcome of a stage that is finished and not to be refreshed."""
        if stage.name in self._refresh:
            return None
        key = self._key(stage, self._done)
        manifest = store.load_manifest(store.stage_folder(self._run_dir, stage.name, key))
        return None if manifest is None else self._record(stage, manifest, "cached", 0.0)

    def _record(
        self, stage: Stage, manifest: store.Manifest, status: Literal["ran", "cached"], seconds: float
    ) -> StageOutcome:
        self._done[stage.name] = manifest
        store.record_stage(self._run_dir, stage.name, manifest.key, self._config.model_dump(mode="json"))
        folder = store.stage_folder(self._run_dir, stage.name, manifest.key)
        return StageOutcome(stage.name, status, seconds, manifest.rows, manifest.key, folder)

    def _bring(self, stage: Stage, runner: Runner) -> StageOutcome:
        """Load or make one stage, whose upstreams are done."""
        if (outcome := self._cached(stage)) is not None:
            return outcome
        self._refuse_other(stage)
        key, began = self._key(stage, self._done), time.monotonic()
        with store.building(self._run_dir, stage.name, key):
            manifest = self._finished_meanwhile(stage, key)
            if manifest is not None:
                return self._record(stage, manifest, "cached", time.monotonic() - began)
            began = time.monotonic()
            manifest = self._make(stage, key, runner)
        return self._record(stage, manifest, "ran", time.monotonic() - began)

    def _refuse_other(self, stage: Stage) -> None:
        if stage.name not in self._allowed:
            raise UserError(
                f"stage {stage.name} is not finished in {self._run_dir} for this configuration; "
                f"run neo3df run --only {stage.name} first"
            )

    def _finished_meanwhile(self, stage: Stage, key: str) -> store.Manifest | None:
        """What another process, or an interrupted commit, has left complete."""
        if stage.name in self._refresh:
            shutil.rmtree(store.work_folder(self._run_dir, stage.name, key), ignore_errors=True)
            return None
        found = store.load_manifest(store.stage_folder(self._run_dir, stage.name, key))
        return found or store.adopt(self._run_dir, stage.name, key)

    def _make(self, stage: Stage, key: str, runner: Runner) -> store.Manifest:
        began = time.monotonic()
        out = store.work_folder(self._run_dir, stage.name, key)
        out.mkdir(parents=True, exist_ok=True)
        inputs = {name: store.stage_folder(self._run_dir, name, self._done[name].key).resolve() for name in stage.needs}
        for folder in inputs.values():
            store.require_intact(folder)
        context = StageContext(self._config, inputs, out.resolve(), self._run_dir.resolve(), self._progress)
        runner.stage(stage, lambda: _body(stage, context, runner))
        return store.commit(
            self._run_dir,
            stage.name,
            key,
            config=stage.config(self._config),
            upstream={name: self._done[name] for name in stage.needs},
            packages=stage.packages,
            seconds=time.monotonic() - began,
        )


def _body(stage: Stage, context: StageContext, runner: Runner) -> None:
    """Everything a stage computes: its unfinished shards, then the rest."""
    print(f"{stage.name}: started", file=sys.stderr, flush=True)
    if stage.shards is not None:
        names = list(stage.shards(context))
        missing = [name for name in names if not store.shard_done(context.out, name)]
        if len(missing) < len(names):
            print(f"{stage.name}: {len(names) - len(missing)} of {len(names)} shards kept", file=sys.stderr, flush=True)
        context.progress.start(stage.name, len(missing), "shards")
        try:
            for _ in runner.shards(stage, context, missing):
                context.progress.advance()
        finally:
            context.progress.finish()
    if stage.run is not None:
        stage.run(context)


def _make(runner: Runner | Callable[[], Runner] | None) -> Runner:
    if runner is None:
        return PlainRunner()
    return runner() if callable(runner) else runner


def _for_config(stage: Stage, config: RunConfig) -> Stage:
    spared = stage.spares(config)
    return replace(stage, needs=tuple(name for name in stage.needs if name not in spared))


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """The stages, each after what it needs, otherwise as given. Raises ValueError for a cycle or a gap."""
    waiting = list(stages)
    ordered: list[Stage] = []
    while waiting:
        known = {stage.name for stage in ordered}
        ready = next((stage for stage in waiting if known.issuperset(stage.needs)), None)
        if ready is None:
            names = ", ".join(stage.name for stage in waiting)
            raise ValueError(f"stages {names} need each other, or a stage that is not given")
        ordered.append(ready)
        waiting.remove(ready)
    return ordered


def _with_needs(by_name: Mapping[str, Stage], names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(by_name[name].needs)
    return found
