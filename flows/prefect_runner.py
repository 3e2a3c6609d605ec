"""Stages as Prefect flows and shards as Prefect tasks, on threads, processes or Dask workers.

Prefect gives order, retries, parallel shards, logs and its UI. It carries names, never arrays, and is not asked what is
finished: that is the store's business.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from . import environment
from .errors import UserError
from .pipeline import Stage, StageContext, make_shard
from .prefect_server import temporary_server

TaskRunnerName = Literal["thread", "process", "dask"]

RETRIES = 2
RETRY_DELAY_SECONDS = 1
EVENTS_SECONDS = 10.0
INPUT_ERRORS = (UserError, ValueError, TypeError)


class PrefectRunner:
    """Runs a session as the flow ``pipeline``, each stage as a flow of its own inside it, each shard as a task.

    ``tasks`` chooses where shards run: ``thread`` (default), ``process`` or ``dask`` (needs prefect-dask), with
    ``workers`` at once. A server is taken from ``PREFECT_API_URL``; without it one is started that ends with the
    session. Inside a flow that is already running, that flow is the session.
    """

    def __init__(self, tasks: TaskRunnerName = "thread", workers: int = 2) -> None:
        environment.prepare()
        self._tasks = tasks
        self._workers = workers

    def session(self, body: Callable[[], None]) -> None:
        """Call ``body`` inside the flow ``pipeline``."""
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

        Raises the first shard's error, after the others have ended.
        """
        from prefect.futures import as_completed

        task, work = _shard_task(stage), _ShardWork(stage, context)
        futures = [task.submit(work, name) for name in names]
        failed: BaseException | None = None
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _task_runner(self) -> Any:
        from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

        if self._tasks == "thread":
            return ThreadPoolTaskRunner(max_workers=self._workers)
        if self._tasks == "process":
            return ProcessPoolTaskRunner(max_workers=self._workers)
        try:
            import distributed
            from prefect_dask import DaskTaskRunner
        except ImportError as error:
            raise UserError("--runner dask needs prefect-dask: pip install prefect-dask") from error
        logging.getLogger(distributed.__name__).setLevel(logging.ERROR)
        return DaskTaskRunner(
            cluster_kwargs={"n_workers": self._workers, "threads_per_worker": 1, "dashboard_address": None}
        )


class _ShardWork:
    """Stage and context in one plain object, which Prefect does not search for futures."""

    def __init__(self, stage: Stage, context: StageContext) -> None:
        self.stage = stage
        self.context = context


def _run_shard(work: _ShardWork, name: str) -> str:
    """The body of a shard task: make it, and say in one line when it failed for a reason that may go away."""
    try:
        return make_shard(work.stage, work.context, name)
    except INPUT_ERRORS:
        raise
    except Exception as error:
        print(f"{work.stage.name}: shard {name} failed: {error}", file=sys.stderr, flush=True)
        raise


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
