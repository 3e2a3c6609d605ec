"""Training divided among the processes that torchrun starts, of which one alone keeps the run.

``torchrun --nproc-per-node 2 -m flows.cli run -c run.yaml`` starts the command twice. The first process does what it
always does: it owns the run folder, its lock and its manifests. The others wait. When the first comes to a stage that
is marked ``together`` it calls them by the store torchrun keeps, all of them form a ``torch.distributed`` group, and
every one calls the stage's ``run``; the training functions of segmodel find the group and divide their batches. What
the others write goes to a folder that is thrown away. Between such stages there is no group: a training that the first
process does by itself has nobody to wait for.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .config import RunConfig
from .errors import AnotherFailed, UserError
from .pipeline import Stage, StageContext

if TYPE_CHECKING:
    from torch.distributed import Store

PATIENCE = timedelta(days=30)  # while the first process is busy alone; a process that dies ends the others at once


class Team:
    """The processes that torchrun has started, seen from the one with this ``rank`` of ``count``."""

    def __init__(self, store: "Store", rank: int, count: int) -> None:
        self._store, self.rank, self.count = store, rank, count
        self._calls = 0

    @contextmanager
    def leading(self, stages: Sequence[Stage]) -> Iterator[list[Stage]]:
        """The stages as the first process runs them, calling the others; at the end it sends them home."""
        try:
            yield [replace(stage, run=self._calling(stage)) if stage.together else stage for stage in stages]
        finally:
            self._call(None)

    def follow(self, stages: Sequence[Stage], config: RunConfig) -> None:
        """Take part in what the first process calls for, until it sends the others home.

        Raises UserError where the stage fails here, AnotherFailed where it failed elsewhere first.
        """
        by_name = {stage.name: stage for stage in stages}
        while (call := self._next_call()) is not None:
            stage, inputs = by_name[call["stage"]], {name: Path(path) for name, path in call["inputs"].items()}
            with tempfile.TemporaryDirectory(prefix="neo3df-") as scratch:
                self._run_together(stage, StageContext(config, inputs, Path(scratch), Path(call["run_dir"])))

    def _calling(self, stage: Stage) -> Callable[[StageContext], None]:
        def run(context: StageContext) -> None:
            inputs = {name: str(path) for name, path in context.inputs.items()}
            self._call({"stage": stage.name, "inputs": inputs, "run_dir": str(context.run_dir)})
            self._run_together(stage, context)

        return run

    def _call(self, call: Mapping[str, object] | None) -> None:
        self._calls += 1
        self._store.set(f"call-{self._calls}", json.dumps(call))

    def _next_call(self) -> dict | None:
        self._calls += 1
        call: dict | None = json.loads(self._store.get(f"call-{self._calls}"))
        return call

    def _run_together(self, stage: Stage, context: StageContext) -> None:
        from torch import distributed

        assert stage.run is not None
        meeting = distributed.PrefixStore(f"group-{self._calls}", self._store)
        distributed.init_process_group("gloo", store=meeting, rank=self.rank, world_size=self.count, timeout=PATIENCE)
        try:
            stage.run(context)
        except Exception as error:
            me = str(self.rank)
            first = self._store.compare_set(f"failed-{self._calls}", "", me).decode()
            if first != me:
                raise AnotherFailed(f"{stage.name}: process {first} of {self.count} failed") from error
            if self.rank == 0:
                raise
            raise UserError(f"{stage.name}: process {me} of {self.count} failed: {error}") from error
        finally:
            distributed.destroy_process_group()


def joined() -> Team | None:
    """The team of this process, or None where torchrun has not started it, or started it alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        return None
    from torch.distributed import rendezvous

    store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    return Team(store, rank, count)
