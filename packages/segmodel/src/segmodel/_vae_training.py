"""The training loop of the stacked part VAEs, as a state that can be saved after any epoch and taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segmodel._distributed import Workers
from segmodel._optimise import cosine_with_warmup, require_finite
from segmodel._stack import StackedFit, VaeStack
from segmodel.vae_settings import VaeSettings


@dataclass(frozen=True)
class StackedFaces:
    """Coordinates of P regions, zero-padded to rank r, mm: ``train (P, N, r)``, ``held_out (P, M, r)``.

    ``n_vertices (P,)`` of the regions turns squared errors into squared errors per vertex.
    """

    train: Tensor
    held_out: Tensor
    fit: StackedFit
    n_vertices: Tensor


class VaeTraining:
    """One Adam over all networks; their parameters are disjoint, so this equals training them side by side.

    ``workers`` divide every batch and average their gradients by size, so that all of them take the step that one
    process would: the loss is a mean over faces. What is random or compared is drawn alike or decided by the first.

    ``history`` holds the summed training loss of each epoch; ``held_out_mm``, with patience only, each epoch's held-out
    RMS of each region. ``kept_epoch`` numbers, from 1, the epoch each region's weights are of; 0 is the start.
    """

    def __init__(
        self, stack: VaeStack, faces: StackedFaces, settings: VaeSettings, workers: Workers | None = None
    ) -> None:
        self._workers = workers or Workers()
        self._loss = self._workers.data_parallel(stack)
        self.history: list[float] = []
        self.held_out_mm: list[list[float]] = []
        self._stack, self._faces, self._settings = stack, faces, settings
        self._optimiser = torch.optim.Adam(stack.parameters(), lr=settings.peak_lr, fused=True)
        batches = -(-faces.train.shape[1] // settings.batch)
        self._schedule = cosine_with_warmup(self._optimiser, settings.n_epochs * batches)
        self._generator = torch.Generator(settings.device).manual_seed(settings.seed)
        self._best = {name: tensor.clone() for name, tensor in stack.state_dict().items()}
        self._best_mm = self._workers.from_first(self._held_out_mm) if settings.patience is not None else []
        self._best_epoch = [0] * len(faces.train)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or, with patience, nothing has improved for long enough."""
        patience = self._settings.patience
        waited = patience is not None and self.epoch - max(self._best_epoch) >= patience
        return waited or self.epoch >= self._settings.n_epochs

    @property
    def kept_epoch(self) -> list[int]:
        """The epoch whose weights :meth:`finish` leaves in the stack, per region."""
        patient = self._settings.patience is not None
        return list(self._best_epoch) if patient else [self.epoch] * len(self._best_epoch)

    def run_epoch(self) -> float:
        """Train one epoch and return its mean loss (mm^2 and weighted nats, summed over regions).

        Raises FloatingPointError when it is not finite.
        """
        n, device = self._faces.train.shape[1], self._settings.device
        total = torch.zeros((), device=device)
        for rows in torch.randperm(n, generator=self._generator, device=device).split(self._settings.batch):
            total += self._step(rows) * len(rows)
        mean = float(self._workers.summed(total)) / n
        self.history.append(require_finite(mean, f"the VAE loss of epoch {self.epoch + 1}"))
        if self._settings.patience is not None:
            self._measure()
        return self.history[-1]

    def finish(self) -> None:
        """Drop the gradients and, with patience, put each region's best weights into the stack, alike everywhere."""
        self._optimiser.zero_grad()
        if self._settings.patience is not None:
            self._stack.load_state_dict(self._best)
        self._workers.equalise(self._stack)

    def state(self) -> dict[str, Any]:
        """Everything :meth:`restore` needs to continue as if nothing had happened: tensors, numbers and lists."""
        return {
            "weights": self._stack.state_dict(),
            "adam": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "generator": self._generator.get_state(),
            "history": self.history,
            "held_out_mm": self.held_out_mm,
            "best": self._best,
            "best_mm": self._best_mm,
            "best_epoch": self._best_epoch,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a training of the same settings and faces where :meth:`state` left it."""
        self._stack.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["adam"])
        self._schedule.load_state_dict(state["schedule"])
        self._generator.set_state(state["generator"])
        self.history, self.held_out_mm = state["history"], state["held_out_mm"]
        self._best, self._best_mm, self._best_epoch = state["best"], state["best_mm"], state["best_epoch"]

    def _step(self, rows: Tensor) -> Tensor:
        """Take one step and return this process's share of the batch's loss: the shares add up to it."""
        settings, (own, share) = self._settings, self._workers.part_of(len(rows))
        size = (len(self._faces.train), len(rows), self._stack.latent_dim)
        noise = torch.randn(size, generator=self._generator, device=settings.device)[:, own]
        coordinates = self._faces.train[:, rows[own]]
        terms = self._loss(coordinates, self._faces.fit, noise, getattr(torch, settings.precision))
        loss = share * (terms.fit + settings.lambda_kl * terms.kl).sum()
        self._optimiser.zero_grad()
        (self._workers.count * loss).backward()  # the gradients are averaged over the processes, and have to be summed
        self._optimiser.step()
        self._schedule.step()
        return loss.detach()

    def _measure(self) -> None:
        """Regions whose held-out error is at a new minimum give their weights to the best ones."""
        self.held_out_mm.append(self._workers.from_first(self._held_out_mm))
        for i, value in enumerate(self.held_out_mm[-1]):
            if value < self._best_mm[i]:
                self._best_mm[i], self._best_epoch[i] = value, self.epoch
                for name, tensor in self._stack.state_dict().items():
                    self._best[name][i] = tensor[i]

    @torch.no_grad()
    def _held_out_mm(self) -> list[float]:
        """Held-out RMS of every region with z = mu."""
        error = self._stack.decode(self._stack.encode(self._faces.held_out)[0]) - self._faces.held_out
        return (error.double().square().sum(dim=2).mean(dim=1) / self._faces.n_vertices).sqrt().tolist()
