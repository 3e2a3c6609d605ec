"""Stages as Prefect flows and shards as Prefect tasks, on threads, processes or Dask workers here and elsewhere.

Prefect gives order, retries, parallel shards, logs and its UI. It carries names, never arrays, and is not asked what is
finished: that is the store's business.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from . import dask_cluster, environment, store
from .errors import UserError
from .pipeline import Stage, StageContext, make_shard
from .prefect_server import temporary_server
from .versions import package_version

TaskRunnerName = Literal["thread", "process", "dask"]

RETRIES = 2
RETRY_DELAY_SECONDS = 1
EVENTS_SECONDS = 10.0
SHARED_FOLDER_SECONDS = 90.0  # network file systems may remember for a minute that a file was not there
INPUT_ERRORS = (UserError, ValueError, TypeError)


class PrefectRunner:
    """Runs a session as the flow ``pipeline``, each stage as a flow of its own inside it, each shard as a task.

    ``tasks`` chooses where shards run: ``thread`` (default), ``process`` or ``dask``, with ``workers`` at once, or the
    address of a Dask scheduler (``tcp://host:8786``), which has its own workers; ``dask`` means the scheduler of
    ``NEO3DF_DASK_SCHEDULER`` where that is set. A server is taken from ``PREFECT_API_URL``; without it one is started
    that ends with the session. Inside a flow that is already running, that flow is the session.

    Raises UserError where prefect-dask is needed and not installed.
    """

    def __init__(self, tasks: TaskRunnerName | str = "thread", workers: int = 2) -> None:
        environment.prepare()
        self._tasks = (dask_cluster.configured_scheduler() or tasks) if tasks == "dask" else tasks
        self._scheduler = None if self._tasks in get_args(TaskRunnerName) else self._tasks
        self._dask = self._tasks == "dask" or self._scheduler is not None
        self._workers = workers
        if self._dask:
            dask_cluster.require_dask()

    def session(self, body: Callable[[], None]) -> None:
        """Call ``body`` inside the flow ``pipeline``. Raises UserError where the Dask scheduler does not answer."""
        if self._scheduler is not None:
            dask_cluster.require_scheduler(self._scheduler)
        from prefect.context import FlowRunContext

        if FlowRunContext.get() is not None:
            body()
            return
        with _api():
            _as_flow("pipeline", body, None)()

    def stage(self, stage: Stage, body: Callable[[], None]) -> None:
        """Call ``body`` inside a flow of the stage's name; its shards, if it has any, run on the chosen workers."""
        _as_flow(stage.name, body, None if stage.shards is None else self._task_runner())()

    def shards(self, stage: Stage, context: StageContext, names: Sequence[str]) -> Iterator[str]:
        """Submit every shard as a task and yield the names as they finish. A failed shard is tried twice more.

        Raises the first shard's error, after the others have ended, and UserError at once where a worker's output does
        not arrive in this machine's run folder.
        """
        from prefect.futures import as_completed

        task, work = _shard_task(stage), _ShardWork(stage, context)
        futures = [task.submit(work, name) for name in names]
        failed: BaseException | None = None
        for future in as_completed(futures):
            try:
                name = future.result()
            except Exception as error:
                failed = failed or error
                continue
            _await_mark(context.out, name)
            yield name
        if failed is not None:
            raise dask_cluster.explained(failed) if self._dask else failed

    def _task_runner(self) -> Any:
        from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

        if self._tasks == "thread":
            return ThreadPoolTaskRunner(max_workers=self._workers)
        if self._tasks == "process":
            return ProcessPoolTaskRunner(max_workers=self._workers)
        from prefect_dask import DaskTaskRunner

        if self._scheduler is None:
            local = {"n_workers": self._workers, "threads_per_worker": 1, "dashboard_address": None}
            return DaskTaskRunner(cluster_kwargs=local)
        from prefect.settings import PREFECT_API_URL

        dask_cluster.require_workers(self._scheduler, PREFECT_API_URL.value())
        return DaskTaskRunner(address=self._scheduler)


class _ShardWork:
    """Stage, context and package versions in one plain object, which Prefect does not search for futures."""

    def __init__(self, stage: Stage, context: StageContext) -> None:
        self.stage = stage
        self.context = context
        self.versions = {name: package_version(name) for name in ("flows", *stage.packages)}

    def require_same_place(self) -> None:
        """Raise UserError where the process that makes the shard lacks the run folder or has other packages."""
        here = socket.gethostname()
        if not self.context.out.is_dir():
            raise UserError(f"worker on {here} does not see {self.context.out}; share the run folder at this path")
        for name, wanted in self.versions.items():
            if (found := package_version(name)) != wanted:
                raise UserError(f"worker on {here} has {name} {found}, the run {wanted}; install the same version")


def _run_shard(work: _ShardWork, name: str) -> str:
    """The body of a shard task: make it, and say in one line when it failed for a reason that may go away."""
    work.require_same_place()
    try:
        return make_shard(work.stage, work.context, name)
    except INPUT_ERRORS:
        raise
    except Exception as error:
        print(f"{work.stage.name}: shard {name} failed: {error}", file=sys.stderr, flush=True)
        raise


def _await_mark(out: Path, name: str, seconds: float = SHARED_FOLDER_SECONDS) -> None:
    """Wait until this machine sees that the shard is finished."""
    deadline = time.monotonic() + seconds
    while not store.shard_done(out, name):
        if time.monotonic() > deadline:
            raise UserError(f"shard {name} was made, but not in {out} of this machine; is the run folder shared?")
        time.sleep(0.1)


def _as_flow(name: str, body: Callable[[], None], task_runner: Any) -> Callable[[], None]:
    from prefect import flow

    def call() -> None:
        body()

    return flow(name=name, task_runner=task_runner, validate_parameters=False, persist_result=False)(call)


def _worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Not where the input is at fault: the same error would come again."""
    return not isinstance(state.data, INPUT_ERRORS)


def _shard_task(stage: Stage) -> Any:
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    return task(
        name=f"{stage.name}_shard",
        task_run_name=stage.name + "/{name}",
        retries=RETRIES,
        retry_delay_seconds=RETRY_DELAY_SECONDS,
        retry_condition_fn=_worth_retrying,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(_run_shard)


@contextmanager
def _api() -> Iterator[None]:
    """A reachable Prefect API: the configured one, or a temporary server for this process and its workers."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return
    # Without watchers, heartbeats only cost: each flow waits a second for its heartbeat thread to end.
    quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_server() as url, temporary_settings({PREFECT_API_URL: url, **quiet}):
        os.environ["PREFECT_API_URL"] = url
        try:
            yield
        finally:
            # After a failure events may still be queued; without a server they would be retried for a minute.
            logging.getLogger(EventsWorker.__name__).setLevel(logging.ERROR)
            EventsWorker.drain_all(timeout=EVENTS_SECONDS)
            del os.environ["PREFECT_API_URL"]
