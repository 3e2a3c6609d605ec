"""How far a stage is: a bar with rate and time left on a terminal, an occasional plain line elsewhere."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import TaskID

T = TypeVar("T")

LINE_EVERY_SECONDS = 10.0
LINE_EVERY_FRACTION = 0.1


class Progress(Protocol):
    """What a stage reports to. ``start`` opens a count, ``advance`` moves it, ``finish`` closes it."""

    def start(self, name: str, total: int | None, unit: str = "faces") -> None:
        """Begin counting ``total`` units (None: unknown) under ``name``."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more units; ``note`` is a short remark such as the current loss."""

    def finish(self) -> None:
        """End the count."""

    def branch(self) -> "Progress":
        """A separate count that can run at the same time, for a shard in another thread."""


def track(
    progress: Progress, items: Iterable[T], name: str, total: int | None = None, unit: str = "faces"
) -> Iterator[T]:
    """Iterate over ``items``, counting each on ``progress``."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    progress.start(name, total, unit)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.finish()


class Silent:
    """Reports nothing: for tests, and for shards that run in another process."""

    def start(self, name: str, total: int | None, unit: str = "faces") -> None:
        """Ignore."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

    def branch(self) -> "Silent":
        """Itself."""
        return self


class PlainLines:
    """One line about every ten seconds or ten per cent, whichever is rarer, and one at the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._name, self._unit, self._note = "", "", ""
        self._total: int | None = None
        self._done, self._began = 0, 0.0
        self._printed_at, self._printed_done = 0.0, 0

    def start(self, name: str, total: int | None, unit: str = "faces") -> None:
        """Begin a count; prints nothing yet."""
        with self._lock:
            self._name, self._total, self._unit, self._note = name, total, unit, ""
            self._done = self._printed_done = 0
            self._began = self._printed_at = time.monotonic()

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count, and print when enough time has passed and enough was done."""
        with self._lock:
            self._done += n
            self._note = note or self._note
            enough = (self._total or 0) * LINE_EVERY_FRACTION
            late = time.monotonic() - self._printed_at >= LINE_EVERY_SECONDS
            if late and self._done - self._printed_done >= enough:
                self._print()

    def finish(self) -> None:
        """Print the final count."""
        with self._lock:
            if self._name and (self._done or not self._total):
                self._print()
            self._name = ""

    def branch(self) -> "PlainLines":
        """Another count on the same stream."""
        return PlainLines(self._stream)

    def _print(self) -> None:
        now = time.monotonic()
        self._printed_at, self._printed_done = now, self._done
        seconds = max(now - self._began, 1e-9)
        of = f"/{self._total}" if self._total else ""
        line = f"{self._name}: {self._done}{of} {self._unit}, {_rate(self._done, seconds)}/s"
        if self._total and 0 < self._done < self._total:
            line += f", {clock(seconds / self._done * (self._total - self._done))} left"
        print(line + (f" ({self._note})" if self._note else ""), file=self._stream, flush=True)


class _Display:
    """The drawn area that several bars share; it is on the screen while one of them counts."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.lock = threading.Lock()
        self.counting = 0
        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )

    def enter(self) -> None:
        with self.lock:
            self.counting += 1
            if self.counting == 1:
                self.rich.start()

    def leave(self, task: "TaskID", *, keep: bool) -> None:
        with self.lock:
            self.counting -= 1
            if not keep:
                self.rich.remove_task(task)
            if self.counting == 0:
                self.rich.stop()
                for task in self.rich.task_ids:
                    self.rich.remove_task(task)


class Bar:
    """A progress bar on the terminal, with rate and time left; a branch disappears when it has finished."""

    def __init__(self, display: _Display | None = None) -> None:
        self._branch = display is not None
        self._display = display or _Display()
        self._task: TaskID | None = None
        self._unit, self._note = "", ""
        self._done, self._began = 0, 0.0

    def start(self, name: str, total: int | None, unit: str = "faces") -> None:
        """Show a new bar."""
        self.finish()
        self._unit, self._note, self._done, self._began = unit, "", 0, time.monotonic()
        self._display.enter()
        self._task = self._display.rich.add_task(name, total=total, rate="", note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        """Move the bar and its rate."""
        if self._task is not None:
            self._done += n
            self._note = note or self._note
            rate = f"{_rate(self._done, time.monotonic() - self._began)} {self._unit}/s"
            self._display.rich.update(self._task, completed=self._done, rate=rate, note=self._note)

    def finish(self) -> None:
        """Stop counting; the bar stays on the screen, a branch goes."""
        if self._task is not None:
            self._display.leave(self._task, keep=not self._branch)
            self._task = None

    def branch(self) -> "Bar":
        """Another bar on the same display."""
        return Bar(self._display)


def make_progress(stream: TextIO | None = None) -> Progress:
    """A bar when the stream (standard error) is a terminal, plain lines otherwise."""
    stream = stream or sys.stderr
    return Bar() if stream.isatty() else PlainLines(stream)


def _rate(done: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.2g}"


def clock(seconds: float) -> str:
    """A duration in words: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
