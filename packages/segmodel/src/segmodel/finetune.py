"""Fine-tuning against 2D face parsing: shapes stay near the 3D truth, parts move to their masks (NEO-3DF eq. 2)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from segmodel._optimise import cosine_with_warmup, frozen, require_finite, split_rows
from segmodel.linear import LinearShapes
from segmodel.model import SegmentModel
from segmodel.parts import REGIONS
from segmodel.regressors import ImageRegressors
from segmodel.vae import kl_to_standard_normal

Rows = NDArray[np.int64]


class RenderParts(Protocol):
    """Differentiable rendering of neutral faces as the photos of ``rows`` show them."""

    def __call__(self, vertices: Tensor, rows: Rows) -> Tensor:
        """``vertices (B, V, 3)`` mm and ``rows (B,)`` to part images ``(B, H, W, 5)`` in PARTS order, 0 to 1."""


class MaskSource(Protocol):
    """Target masks ``(N, H, W, 5)``, 0 to 1 or bool: an array, tensor or memory map, indexed by an array of rows."""

    def __getitem__(self, rows: Rows, /) -> ArrayLike | Tensor:
        """Masks ``(B, H, W, 5)`` of the given rows."""


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


@dataclass(frozen=True)
class _Terms:
    """Differentiable loss terms of one batch."""

    shape: Tensor
    parts: Tensor
    kl: Tensor

    def total(self, settings: FineTuneSettings, lambda_parts: float) -> Tensor:
        return settings.lambda_shape * self.shape + lambda_parts * self.parts + settings.lambda_kl * self.kl


@dataclass(frozen=True)
class _Problem:
    """Everything a loss evaluation needs; only the networks in it change."""

    model: SegmentModel
    regressors: ImageRegressors
    encode: Callable[[Rows], Tensor]
    shapes: LinearShapes
    render_parts: RenderParts
    target_masks: MaskSource
    soften: Callable[[Tensor], Tensor] | None
    augmented: Callable[[Rows], Tensor]
    min_mask_px: float

    def terms(self, rows: Rows) -> _Terms:
        """Loss terms of the photos ``rows``."""
        return self.terms_of(self.encode(rows), rows)

    def training_terms(self, rows: Rows, noise: float, random: torch.Generator) -> _Terms:
        """Loss terms of augmented photos with noise on their encodings, ``noise`` in standard deviations of these."""
        encodings = self.augmented(rows)
        normal = torch.randn(encodings.shape, generator=random).to(encodings)
        return self.terms_of(encodings + noise * self.regressors.encoding_std * normal, rows)

    def terms_of(self, encodings: Tensor, rows: Rows) -> _Terms:
        """Regress (no sampling), compose unblended, render, compare."""
        posterior = self.regressors.posterior(encodings)
        composed, _ = self.model.compose({region: mu for region, (mu, _) in posterior.items()})
        kl = sum(kl_to_standard_normal(mu, logvar).sum(dim=1).mean() for mu, logvar in posterior.values())
        return _Terms(
            shape=shape_loss(composed, self.shapes.vertices(rows), self.model),
            parts=self._parsing(composed, rows),
            kl=torch.as_tensor(kl),
        )

    def _parsing(self, composed: Tensor, rows: Rows) -> Tensor:
        rendered = self.render_parts(composed, rows)
        target = torch.as_tensor(self.target_masks[rows]).to(rendered)
        if rendered.shape != target.shape:
            raise ValueError(
                f"render_parts returned {tuple(rendered.shape)} but the target masks are {tuple(target.shape)}: "
                "both must be (B, H, W, 5)"
            )
        return parsing_loss(rendered, target, soften=self.soften, min_mask_px=self.min_mask_px)

    def trained(self) -> list[nn.Module]:
        modules: list[nn.Module] = [self.regressors, self.model.offset_regressor]
        return [*modules, self.encode] if isinstance(self.encode, nn.Module) else modules


def shape_loss(vertices: Tensor, target: Tensor, model: SegmentModel) -> Tensor:
    """Squared vertex error in mm^2, mean over the vertices of each region, then over the six regions and the batch.

    ``vertices`` and ``target`` are ``(B, V, 3)``. Regions count equally, or the many skin vertices would decide.
    """
    squared = (vertices - target.to(vertices)).square().sum(dim=-1)
    return torch.stack([squared[:, model.layout.core(region)].mean() for region in REGIONS]).mean()


def parsing_loss(
    rendered: Tensor,
    target: Tensor,
    *,
    soften: Callable[[Tensor], Tensor] | None = None,
    min_mask_px: float = 20.0,
) -> Tensor:
    """Squared difference of softened part images over the target's pixel count, mean over photos (after NEO-3DF eq. 2).

    Args:
        rendered, target: ``(B, H, W, 5)``, 0 to 1.
        soften: a linear map of ``(B, H, W, 5)`` to itself, such as a Gaussian blur.
        min_mask_px: parts with a smaller target are left out for that photo.
    """
    visible = (target.sum(dim=(1, 2)) >= min_mask_px).to(target.dtype)
    pixels = (target.sum(dim=(1, 2)) * visible).sum(dim=1)
    difference = rendered - target
    if soften is not None:
        difference = soften(difference)  # linear: the difference of the softened images, at half the cost
    squared = (difference.square().sum(dim=(1, 2)) * visible).sum(dim=1)
    return (squared / pixels.clamp_min(1.0)).mean()


def fine_tune(
    model: SegmentModel,
    regressors: ImageRegressors,
    encode: Callable[[Rows], Tensor],
    shapes: LinearShapes,
    render_parts: RenderParts,
    target_masks: MaskSource,
    soften: Callable[[Tensor], Tensor] | None = None,
    settings: FineTuneSettings | None = None,
    validation_rows: ArrayLike | None = None,
    augmented: Callable[[Rows], Tensor] | None = None,
) -> FineTuneReport:
    """Train the F_i, the offset regressor and the encoder on 3D shape and 2D parsing together (NEO-3DF eq. 2).

    ``L = lambda_shape * shape_loss + lambda_parts * parsing_loss + lambda_kl * KL``; decoders are frozen, faces are not
    blended. The networks are changed in place and left, in eval mode, at the epoch with the lowest validation loss.

    Args:
        encode: rows ``(B,)`` to encodings ``(B, E)``. If it is a ``torch.nn.Module`` its parameters are trained too, in
            eval mode, so that batch statistics and dropout stay fixed.
        shapes: N neutral target faces.
        render_parts, target_masks: the photos' part images, rendered and true, for rows of the same N.
        soften: see :func:`parsing_loss`.
        augmented: encodings to train on in place of ``encode``'s, by the same networks but of photos that differ a
            little each time. The faces stay what they are, so that shapes, poses and masks need no change.

    Raises:
        ValueError: images and masks differ in shape, or the parsing term has no gradient to balance.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or FineTuneSettings()
    started = time.perf_counter()
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    problem = _Problem(
        model, regressors, encode, shapes, render_parts, target_masks, soften, augmented or encode, settings.min_mask_px
    )
    for module in problem.trained():
        module.eval()
    with frozen(model.vaes):
        lambda_parts = settings.lambda_parts
        if lambda_parts is None:
            lambda_parts = _balanced_weight(problem, train, settings)
        history, best_epoch = _optimise(problem, train, held_out, settings, lambda_parts)
    return FineTuneReport(lambda_parts, history, best_epoch, time.perf_counter() - started)


def _balanced_weight(problem: _Problem, train: Rows, settings: FineTuneSettings) -> float:
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
    problem: _Problem, train: Rows, held_out: Rows, settings: FineTuneSettings, lambda_parts: float
) -> tuple[list[dict[str, float | int | str]], int]:
    heads = [*problem.regressors.parameters(), *problem.model.offset_regressor.parameters()]
    groups = [{"params": heads, "lr": settings.lr}]
    if isinstance(problem.encode, nn.Module):
        groups.append({"params": list(problem.encode.parameters()), "lr": settings.encoder_lr})
    optimiser = torch.optim.Adam(groups)
    schedule = cosine_with_warmup(optimiser, settings.epochs * -(-len(train) // settings.batch))
    generator = np.random.default_rng(settings.seed)
    random = torch.Generator().manual_seed(settings.seed)

    best = _evaluate(problem, held_out, settings, lambda_parts)
    history = [_entry(0, "validation", best)]
    best_epoch, best_states = 0, [copy.deepcopy(m.state_dict()) for m in problem.trained()]
    for epoch in range(1, settings.epochs + 1):
        losses = []
        for rows in _batches(train, settings.batch, generator):
            terms = problem.training_terms(rows, settings.encoding_noise, random)
            total = terms.total(settings, lambda_parts)
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
            schedule.step()
            losses.append((len(rows), _numbers(terms, total)))
        history.append(_entry(epoch, "train", _mean(losses)))
        validation = _evaluate(problem, held_out, settings, lambda_parts)
        history.append(_entry(epoch, "validation", validation))
        if validation.total < best.total:
            best, best_epoch = validation, epoch
            best_states = [copy.deepcopy(m.state_dict()) for m in problem.trained()]
        elif epoch - best_epoch >= settings.patience:
            break
    for module, state in zip(problem.trained(), best_states, strict=True):
        module.load_state_dict(state)
    return history, best_epoch


@torch.no_grad()
def _evaluate(problem: _Problem, rows: Rows, settings: FineTuneSettings, lambda_parts: float) -> FineTuneLoss:
    losses = []
    for batch in np.split(rows, range(settings.batch, len(rows), settings.batch)):
        terms = problem.terms(batch)
        losses.append((len(batch), _numbers(terms, terms.total(settings, lambda_parts))))
    return _mean(losses)


def _numbers(terms: _Terms, total: Tensor) -> FineTuneLoss:
    return FineTuneLoss(
        require_finite(float(total.detach()), "the fine-tuning loss"),
        float(terms.shape.detach()),
        float(terms.parts.detach()),
        float(terms.kl.detach()),
    )


def _mean(losses: list[tuple[int, FineTuneLoss]]) -> FineTuneLoss:
    counts = np.array([count for count, _ in losses], np.float64)
    values = np.array([[loss.total, loss.shape, loss.parts, loss.kl] for _, loss in losses])
    total, shape, parts, kl = (counts @ values / counts.sum()).tolist()
    return FineTuneLoss(total, shape, parts, kl)


def _entry(epoch: int, split: str, loss: FineTuneLoss) -> dict[str, float | int | str]:
    return {"epoch": epoch, "split": split, **asdict(loss)}


def _batches(rows: Rows, size: int, generator: np.random.Generator) -> Iterator[Rows]:
    order = generator.permutation(rows)
    return iter(np.split(order, range(size, len(order), size)))
