"""One thread per browser tab: jobs in order, and only the newest of a row of jobs of one kind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Job:
    key: str
    due: float
    run: Callable[[], None]


class Worker:
    """Does the jobs of one tab, one after the other, and shows the result once for all jobs that were waiting.

    A job that is submitted while the last waiting job has the same key takes its place: while a face is being rebuilt,
    a moving slider leaves one value behind, the newest. A delayed job waits for its time as long as nothing follows it.
    """

    def __init__(self, show: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Start the thread.

        Args:
            show: called after the jobs that were waiting are done.
            failed: called with the exception of a job or of ``show``; the thread goes on.
        """
        self._show, self._failed = show, failed
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._busy = self._closed = False
        self._thread = threading.Thread(target=self._run, name="editor-tab", daemon=True)
        self._thread.start()

    def submit(self, key: str, job: Callable[[], None], delay: float = 0.0) -> None:
        """Have a job done; ``delay`` seconds from now at the earliest, unless another job follows it before."""
        with self._changed:
            if self._jobs and self._jobs[-1].key == key:
                self._jobs.pop()
            self._jobs.append(_Job(key, time.monotonic() + delay, job))
            self._changed.notify_all()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait until nothing is left to do; False when that takes longer than ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or not (self._jobs or self._busy), seconds)

    def close(self) -> None:
        """Forget what waits and end the thread after the job at hand."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while jobs := self._take():
            for job in jobs:
                self._attempt(job.run)
            self._attempt(self._show)

    def _take(self) -> list[_Job]:
        """All jobs whose time has come, at least one; none when closed."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not self._closed:
                rest = self._jobs[-1].due - time.monotonic() if self._jobs else None
                if rest is not None and (rest <= 0 or len(self._jobs) > 1):
                    ready = len(self._jobs) if rest <= 0 else len(self._jobs) - 1
                    jobs, self._jobs = self._jobs[:ready], self._jobs[ready:]
                    self._busy = True
                    return jobs
                self._changed.wait(rest)
            return []

    def _attempt(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:  # a tab outlives its mistakes: they are shown, not raised in a thread
            self._failed(error)
