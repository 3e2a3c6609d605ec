"""Threads that share the work on one large mesh, or on the faces of a batch."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Team:
    """Runs tasks on the calling thread and on helpers, as many in all as `torch.get_num_threads()` says.

    Helpers sleep between calls. They are started by the first call that needs them, anew in a forked process. Tasks
    that run tasks of their own do so alone.
    """

    def __init__(self) -> None:
        self._helpers: ThreadPoolExecutor | None = None
        self._process, self._lock, self._state = 0, threading.Lock(), threading.local()

    @property
    def size(self) -> int:
        """How many tasks run at the same time: 1 inside a task."""
        return 1 if getattr(self._state, "inside", False) else torch.get_num_threads()

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Results of all tasks, in their order."""
        size = min(self.size, len(tasks))
        if size < 2:
            return [task() for task in tasks]
        pool = self._pool()
        shares = [pool.submit(self._share, tasks[k::size]) for k in range(1, size)]
        results = [self._share(tasks[::size]), *(share.result() for share in shares)]
        return [results[k % size][k // size] for k in range(len(tasks))]

    def _share(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        self._state.inside = True
        try:
            return [task() for task in tasks]
        finally:
            self._state.inside = False

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._helpers is None or self._process != os.getpid():
                self._helpers, self._process = ThreadPoolExecutor(thread_name_prefix="arap"), os.getpid()
            return self._helpers
