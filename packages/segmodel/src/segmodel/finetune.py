"""Fine-tuning against 2D face parsing: shapes stay near the 3D truth, parts move to their masks (NEO-3DF eq. 2)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from segmodel._distributed import Workers, require_rows_for_all
from segmodel._finetune_loss import (
    AugmentedEncodings,
    BatchTerms,
    MaskSource,
    Problem,
    RenderParts,
    Rows,
    Terms,
    parsing_loss,
    shape_loss,
)
from segmodel._optimise import cosine_with_warmup, frozen, require_finite, split_rows
from segmodel.checkpoint import require_same_training
from segmodel.linear import LinearShapes
from segmodel.pieces import LatentModel
from segmodel.regressors import ImageRegressors

__all__ = [
    "AugmentedEncodings",
    "FineTuneLoss",
    "FineTuneReport",
    "FineTuneSettings",
    "MaskSource",
    "RenderParts",
    "Rows",
    "fine_tune",
    "parsing_loss",
    "shape_loss",
]


@dataclass(frozen=True)
class FineTuneSettings:
    """Weights and schedule of fine-tuning.

    Attributes:
        lambda_shape, lambda_kl: weights of the shape term (mm^2) and of the KL summed over the F_i (nats).
        lambda_parts: weight of the parsing term; None balances it once, at the start, so that its gradient is
            ``balance`` times as long as that of the shape term.
        balance: see ``lambda_parts``.
        balance_batches: how many training batches the balance is measured on.
        epochs, batch: passes over the training photos and photos per step.
        lr, encoder_lr: Adam rates of the F_i and the offset regressor, and of the encoder.
        encoding_noise: standard deviation of the noise added to the encodings of training photos, in their own standard
            deviations: on new photos an encoder errs more than on those it was trained on.
        min_mask_px: a part whose target has fewer pixels is hidden in that photo and left out of the parsing term.
        patience: stop after that many epochs without a lower validation loss.
        seed, validation_fraction: of the split and the batches, unless the validation rows are given.
    """

    lambda_shape: float = 1.0
    lambda_parts: float | None = None
    lambda_kl: float = 0.01
    balance: float = 1.0
    balance_batches: int = 4
    epochs: int = 10
    batch: int = 16
    lr: float = 1e-4
    encoder_lr: float = 1e-5
    encoding_noise: float = 0.0
    min_mask_px: float = 20.0
    patience: int = 3
    seed: int = 0
    validation_fraction: float = 0.1

    def total(self, terms: Terms, lambda_parts: float) -> Tensor:
        """The weighted sum of the terms."""
        return self.lambda_shape * terms.shape + lambda_parts * terms.parts + self.lambda_kl * terms.kl


@dataclass(frozen=True)
class FineTuneLoss:
    """Means over photos: weighted ``total``; ``shape`` mm^2; ``parts``, squared mask error per target pixel; ``kl``."""

    total: float
    shape: float
    parts: float
    kl: float


@dataclass(frozen=True)
class FineTuneReport:
    """What happened.

    The ``lambda_parts`` used; ``history``, one ``{"epoch", "split", "total", "shape", "parts", "kl"}`` per epoch and
    split (validation starts at epoch 0, before any step); the ``best_epoch`` kept; wall seconds.
    """

    lambda_parts: float
    history: list[dict[str, float | int | str]]
    best_epoch: int
    seconds: float


def fine_tune(
    model: LatentModel,
    regressors: ImageRegressors,
    encode: Callable[[Rows], Tensor],
    shapes: LinearShapes,
    render_parts: RenderParts,
    target_masks: MaskSource,
    soften: Callable[[Tensor], Tensor] | None = None,
    settings: FineTuneSettings | None = None,
    validation_rows: ArrayLike | None = None,
    augmented: AugmentedEncodings | None = None,
) -> FineTuneReport:
    """Train the F_i, the offset regressor and the encoder on 3D shape and 2D parsing together (NEO-3DF eq. 2).

    ``L = lambda_shape * shape_loss + lambda_parts * parsing_loss + lambda_kl * KL``; decoders are frozen, faces are not
    blended. The networks are changed in place and left, in eval mode, at the epoch with the lowest validation loss.
    A model of whole faces has no offset regressor; everything else is the same for it.

    Where a ``torch.distributed`` group is initialised and every process calls this with the same arguments, they divide
    each batch of ``settings.batch`` photos, and those of validation too, and come to what one process would, up to
    rounding, all of them. Each encodes, renders and compares its own photos.

    Args:
        encode: rows ``(B,)`` to encodings ``(B, E)``. If it is a ``torch.nn.Module`` its parameters are trained too, in
            eval mode, so that batch statistics and dropout stay fixed.
        shapes: N neutral target faces.
        render_parts, target_masks: the photos' part images, rendered and true, for rows of the same N.
        soften: see :func:`parsing_loss`.
        augmented: encodings to train on in place of ``encode``'s, by the same networks but of photos that differ a
            little each time. The faces stay what they are, so that shapes, poses and masks need no change.

    Raises:
        ValueError: the regressors are of another model, images and masks differ in shape, the parsing term has no
            gradient to balance, or the processes have different arguments or outnumber the photos of a batch.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or FineTuneSettings()
    regressors.require_latents_of(model)
    started, workers = time.perf_counter(), Workers.of_group()
    require_rows_for_all(workers, settings.batch)
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    require_same_training(workers, settings, model.layout, shapes, held_out)
    shown = augmented or (lambda rows, own: encode(rows[own]))
    problem = Problem(
        model, regressors, encode, shapes, render_parts, target_masks, soften, shown, settings.min_mask_px
    )
    for module in problem.trained():
        workers.equalise(module.eval())
    for module in model.placers:
        module.requires_grad_(True)  # train_baseline leaves all of a model frozen
    with frozen(model.decoders):
        lambda_parts = settings.lambda_parts
        if lambda_parts is None:
            lambda_parts = workers.from_first(lambda: _balanced_weight(problem, train, settings))
        history, best_epoch = _optimise(problem, train, held_out, settings, lambda_parts, workers)
    return FineTuneReport(lambda_parts, history, best_epoch, time.perf_counter() - started)


def _balanced_weight(problem: Problem, train: Rows, settings: FineTuneSettings) -> float:
    """Weight that makes the parsing gradient of all trained weights ``balance`` times as long as the shape gradient."""
    parameters = [p for module in problem.trained() for p in module.parameters() if p.requires_grad]
    shape_length = parts_length = 0.0
    batches = list(_batches(train, settings.batch, np.random.default_rng(settings.seed)))[: settings.balance_batches]
    for rows in batches:
        terms = problem.terms(rows)
        shape_length += _gradient_length(settings.lambda_shape * terms.shape, parameters)
        parts_length += _gradient_length(terms.parts, parameters)
    if not parts_length > 0:
        raise ValueError(
            "the parsing loss has no gradient on the first training photos: check that render_parts is differentiable "
            "and that its images overlap the target masks, or give lambda_parts"
        )
    return require_finite(settings.balance * shape_length / parts_length, "the weight of the parsing loss")


def _gradient_length(loss: Tensor, parameters: list[nn.Parameter]) -> float:
    if not loss.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([g.square().sum() for g in gradients if g is not None] or [torch.zeros(())]).sum().sqrt())


def _optimise(
    problem: Problem,
    train: Rows,
    held_out: Rows,
    settings: FineTuneSettings,
    lambda_parts: float,
    workers: Workers,
) -> tuple[list[dict[str, float | int | str]], int]:
    """Adam on batches that the workers divide; leaves the networks, alike everywhere, at the best validation epoch."""
    heads = [p for module in (problem.regressors, *problem.model.placers) for p in module.parameters()]
    groups = [{"params": heads, "lr": settings.lr}]
    if isinstance(problem.encode, nn.Module):
        groups.append({"params": list(problem.encode.parameters()), "lr": settings.encoder_lr})
    optimiser = torch.optim.Adam(groups)
    schedule = cosine_with_warmup(optimiser, settings.epochs * -(-len(train) // settings.batch))
    generator = np.random.default_rng(settings.seed)
    random = torch.Generator().manual_seed(settings.seed)
    batch_terms = workers.data_parallel(BatchTerms(problem), idle_weights=True)

    best = _evaluate(problem, held_out, settings, lambda_parts, workers)
    history = [_entry(0, "validation", best)]
    best_epoch, best_states = 0, [copy.deepcopy(m.state_dict()) for m in problem.trained()]
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for rows in _batches(train, settings.batch, generator):
            own, share = workers.part_of(len(rows))
            terms = Terms(*batch_terms(rows, own, settings.encoding_noise, random))
            total = settings.total(terms, lambda_parts)
            optimiser.zero_grad()
            (workers.count * share * total).backward()  # gradients are averaged over the workers, and must be summed
            optimiser.step()
            schedule.step()
            losses.append((share * len(rows), _numbers(terms, total)))
        history.append(_entry(epoch, "train", _mean(losses, workers)))
        validation = _evaluate(problem, held_out, settings, lambda_parts, workers)
        history.append(_entry(epoch, "validation", validation))
        if validation.total < best.total:
            best, best_epoch = validation, epoch
            best_states = [copy.deepcopy(m.state_dict()) for m in problem.trained()]
        elif epoch - best_epoch >= settings.patience:
            break
    for module, state in zip(problem.trained(), best_states, strict=True):
        module.load_state_dict(state)
        workers.equalise(module)
    return history, best_epoch


@torch.no_grad()
def _evaluate(
    problem: Problem, rows: Rows, settings: FineTuneSettings, lambda_parts: float, workers: Workers
) -> FineTuneLoss:
    losses = []
    for batch in np.split(rows, range(settings.batch, len(rows), settings.batch)):
        own, share = workers.part_of(len(batch))
        terms = problem.terms(batch[own])
        losses.append((share * len(batch), _numbers(terms, settings.total(terms, lambda_parts))))
    return _mean(losses, workers)


def _numbers(terms: Terms, total: Tensor) -> FineTuneLoss:
    return FineTuneLoss(
        require_finite(float(total.detach()), "the fine-tuning loss"),
        float(terms.shape.detach()),
        float(terms.parts.detach()),
        float(terms.kl.detach()),
    )


def _mean(losses: list[tuple[float, FineTuneLoss]], workers: Workers) -> FineTuneLoss:
    """The mean of the losses of all workers, each weighted by its number of photos."""
    every = [entry for own in workers.from_each(losses) for entry in own]
    counts = np.array([count for count, _ in every], np.float64)
    values = np.array([[loss.total, loss.shape, loss.parts, loss.kl] for _, loss in every])
    total, shape, parts, kl = (counts @ values / counts.sum()).tolist()
    return FineTuneLoss(total, shape, parts, kl)


def _entry(epoch: int, split: str, loss: FineTuneLoss) -> dict[str, float | int | str]:
    return {"epoch": epoch, "split": split, **asdict(loss)}


def _batches(rows: Rows, size: int, generator: np.random.Generator) -> Iterator[Rows]:
    order = generator.permutation(rows)
    return iter(np.split(order, range(size, len(order), size)))
