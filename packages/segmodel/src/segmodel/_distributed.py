"""The processes that train together, those of an initialised torch.distributed group: who they are, what they agree on.

Every process knows the whole training and draws the same random numbers; what is divided is each batch. The collective
operations are called by all processes in the same order, or all of them wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

Value = TypeVar("Value")


@dataclass(frozen=True)
class Workers:
    """This process, ``rank`` counted from 0, among ``count`` that train together; alone by default."""

    rank: int = 0
    count: int = 1

    @classmethod
    def of_group(cls) -> Workers:
        """The processes of the default group, or this one alone when none is initialised."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def from_first(self, compute: Callable[[], Value]) -> Value:
        """What ``compute``, called by the first process only, returns or raises there: on every process."""
        if self.count == 1:
            return compute()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = compute()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def from_each(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def data_parallel(self, module: nn.Module, *, idle_weights: bool = False) -> nn.Module:
        """The module whose gradients are the mean over the processes, and whose weights start as the first's.

        With ``idle_weights`` the loss may leave some weights out, the same ones in every step, and ``forward`` has to
        return tensors or tuples of them.
        """
        return module if self.count == 1 else DistributedDataParallel(module, static_graph=idle_weights)

    def part_of(self, n_rows: int) -> tuple[slice, float]:
        """Which rows of a batch are this process's, and which share of the batch they are.

        Where rows do not go round, as in a small last batch, a process takes the first row with a share of 0: it cannot
        stay out of the collective backward pass.
        """
        start, stop = (n_rows * end // self.count for end in (self.rank, self.rank + 1))
        return (slice(start, stop), (stop - start) / n_rows) if start < stop else (slice(0, 1), 0.0)

    def summed(self, value: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def equalise(self, module: nn.Module) -> None:
        """Give ``module`` the first process's weights."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


def require_rows_for_all(workers: Workers, batch: int) -> None:
    """Raise ValueError when there are more processes than faces in a batch."""
    if workers.count > batch:
        raise ValueError(
            f"{workers.count} processes share batches of {batch} faces: start at most {batch} or enlarge batch"
        )
