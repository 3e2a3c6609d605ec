"""The best iterate of every photo of a fit, and which photos are finished and why."""

from __future__ import annotations

import torch
from torch import Tensor

STALL = 1e-4
"""A loss counts as improved if it falls by more than this share of its best value."""


class Best:
    """Keeps the steps of the lowest loss of each photo; a finished photo keeps what it has.

    Args:
        steps: (B, N) steps of the start, which is what a photo keeps that never gets a finite loss.
        patience: a photo is finished when its loss has not improved for this many updates; None for never.

    Attributes:
        steps: (B, N) best steps.
        loss: (B,) float64, CPU, their loss.
        iteration: (B,) int64, CPU, when they were reached.
        finished: (B,) bool, CPU.
        reasons: why a photo was set aside, "" for the others.
    """

    def __init__(self, steps: Tensor, patience: int | None) -> None:
        self._start = steps.detach().clone()
        self.steps = self._start.clone()
        self.loss = torch.full((len(steps),), torch.inf, dtype=torch.float64)
        self.iteration = torch.zeros(len(steps), dtype=torch.int64)
        self.finished = torch.zeros(len(steps), dtype=torch.bool)
        self.reasons = [""] * len(steps)
        self._patience = patience
        self._reference = self.loss.clone()
        self._since = torch.zeros(len(steps), dtype=torch.int64)

    def update(self, loss: Tensor, steps: Tensor, iteration: int) -> None:
        """Record the (B,) loss of the current (B, N) steps."""
        better = (loss < self.loss) & ~self.finished
        self.loss = torch.where(better, loss, self.loss)
        self.iteration[better] = iteration
        self.steps = torch.where(better.to(steps.device)[:, None], steps.detach(), self.steps)
        progress = loss < self._reference * (1 - STALL)
        self._reference = torch.where(progress, loss, self._reference)
        self._since = torch.where(progress, 0, self._since + 1)
        if self._patience is not None:
            self.finished |= self._since >= self._patience

    def restart(self, loss_of_start: Tensor, patience: int | None) -> None:
        """Forget the iterates of photos that are not finished: losses are measured anew, from the (B,) start's on."""
        active = ~self.finished
        self.loss = torch.where(active, loss_of_start, self.loss)
        self.iteration[active] = 0
        self.steps = torch.where(active.to(self.steps.device)[:, None], self._start, self.steps)
        self._patience = patience
        self._reference = torch.full_like(self.loss, torch.inf)
        self._since = torch.zeros_like(self._since)

    def set_aside(self, bad: Tensor, reason: str) -> None:
        """Finish the (B,) bad photos that are not finished yet."""
        for photo in (bad & ~self.finished).nonzero().flatten().tolist():
            self.reasons[photo] = reason
            self.finished[photo] = True

    def forget(self, bad: Tensor, reason: str) -> None:
        """Put the (B,) bad photos back to the start, whatever they had, and name the reason."""
        for photo in bad.nonzero().flatten().tolist():
            self.reasons[photo] = reason
            self.finished[photo] = True
            self.steps[photo] = self._start[photo]
            self.iteration[photo] = 0
