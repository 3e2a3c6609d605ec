"""Training of the small parser on crops and their masks."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from .parser_labels import parsing_iou
from .parts import LABEL_IDS, PARTS
from .preprocessing import check_crops
from .small_parser import HIDDEN, SmallParser, crop_tensor

UInt8 = NDArray[np.uint8]

_LEAST_CROPS = 8
_N_CLASSES = HIDDEN + 1


@dataclass(frozen=True)
class SmallParserSettings:
    """How to train a :class:`SmallParser`.

    Attributes:
        epochs, batch, learning_rate, weight_decay: AdamW with a one-cycle learning rate.
        averaging: the weights that are kept are a running mean over steps, this share of which stays at each step.
        patience: training stops after so many epochs without a better mean IoU on the kept-back crops.
        validation_share: share of the crops kept back, unless they are given.
        seed: of the split, the initial weights, the order and the augmentation.
    """

    epochs: int = 45
    batch: int = 8
    learning_rate: float = 5e-3
    weight_decay: float = 0.02
    averaging: float = 0.99
    patience: int = 8
    validation_share: float = 0.1
    seed: int = 0


def train_parser(
    crops: UInt8,
    labels: UInt8,
    ignore: NDArray[np.bool_] | None = None,
    settings: SmallParserSettings | None = None,
    validation_rows: ArrayLike | None = None,
    progress: Callable[[int, int, float, float], None] | None = None,
) -> SmallParser:
    """Train a small parser to give the labels of crops.

    Crops are shown mirrored half of the time (no label has a side), a little turned, scaled and shifted, in other
    light and colour. The loss is cross-entropy, rare classes weighing more, plus one minus the soft overlap (Dice) of
    each part. The weights with the best mean IoU on the kept-back crops are returned.

    Args:
        crops: (N, 224, 224, 3) uint8 aligned crops, N >= 8.
        labels: (N, 224, 224) uint8 label ids.
        ignore: (N, 224, 224) bool, where something hides the face; learned as a class of its own. None: nowhere.
        settings: see :class:`SmallParserSettings`.
        validation_rows: the crops to keep back; a random share by default.
        progress: called after each epoch with (epoch from 1, epochs, training loss, mean validation IoU).

    Returns:
        The parser in evaluation mode, with ``validation_iou`` set.

    Raises:
        ValueError: shapes do not fit, unknown label ids, too few crops, or nothing to train on or to keep back.
    """
    settings = settings or SmallParserSettings()
    targets = _targets(crops, labels, ignore)
    random = torch.Generator().manual_seed(settings.seed)
    if validation_rows is None:
        share = max(2, round(settings.validation_share * len(crops)))
        kept_back = torch.randperm(len(crops), generator=random)[:share]
    else:
        kept_back = torch.as_tensor(np.asarray(validation_rows), dtype=torch.int64)
    training = torch.ones(len(crops), dtype=torch.bool).index_fill(0, kept_back, False).nonzero()[:, 0]
    if not len(training) or not len(kept_back):
        raise ValueError(f"{len(training)} crops to train on and {len(kept_back)} to keep back: both must be there")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        parser = SmallParser()
        return _fit(parser, crops, torch.from_numpy(targets), (training, kept_back), settings, random, progress)


def _targets(crops: UInt8, labels: UInt8, ignore: NDArray[np.bool_] | None) -> UInt8:
    """Class of every pixel (N, 224, 224) uint8: the label, or HIDDEN where ignored and not labelled."""
    check_crops(crops)
    if labels.shape != crops.shape[:3] or len(crops) < _LEAST_CROPS:
        raise ValueError(
            f"need labels (N, 224, 224) for N >= {_LEAST_CROPS} crops, got {labels.shape} for {len(crops)} crops"
        )
    if labels.max() not in LABEL_IDS.values():
        raise ValueError(f"label id {labels.max()} is not one of 0..{max(LABEL_IDS.values())}")
    if ignore is None:
        return labels
    if ignore.shape != labels.shape:
        raise ValueError(f"ignore must be {labels.shape} like the labels, got {ignore.shape}")
    return np.where(ignore & (labels == LABEL_IDS["background"]), HIDDEN, labels).astype(np.uint8)


def _fit(
    parser: SmallParser,
    crops: UInt8,
    targets: Tensor,
    split: tuple[Tensor, Tensor],
    settings: SmallParserSettings,
    random: torch.Generator,
    progress: Callable[[int, int, float, float], None] | None,
) -> SmallParser:
    training, kept_back = split
    weights = class_weights(targets[training])
    averaged = copy.deepcopy(parser)
    best, best_mean, best_epoch = averaged, -np.inf, 0
    optimiser = torch.optim.AdamW(parser.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    per_epoch = -(-len(training) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=per_epoch * settings.epochs, pct_start=0.2
    )
    step = 0
    for epoch in range(1, settings.epochs + 1):
        parser.train()
        total = 0.0
        for chosen in training[torch.randperm(len(training), generator=random)].split(settings.batch):
            pictures, wanted = augment(crop_tensor(crops[chosen.numpy()]), targets[chosen], random)
            loss = parsing_loss(parser(pictures), wanted, weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            _average(averaged, parser, min(settings.averaging, step / (step + 10)))
            total += loss.item() * len(chosen)
        averaged.validation_iou = _validation_iou(averaged, crops, targets, kept_back)
        seen = [iou for iou in averaged.validation_iou.values() if not math.isnan(iou)]
        mean = sum(seen) / len(seen) if seen else 0.0
        if mean > best_mean or best_epoch == 0:
            best, best_mean, best_epoch = copy.deepcopy(averaged), mean, epoch
        if progress is not None:
            progress(epoch, settings.epochs, total / len(training), mean)
        if epoch - best_epoch >= settings.patience:
            break
    return best.eval()


def class_weights(targets: Tensor) -> Tensor:
    """Weights (8,) of the classes, one over the square root of their share of the pixels, 1 on average per pixel."""
    share = torch.bincount(targets.flatten(), minlength=_N_CLASSES).double() / targets.numel()
    weights = torch.where(share > 0, share.clamp(min=1e-5).rsqrt(), 0)
    return (weights / (weights * share).sum()).float()


def parsing_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of logits (B, 8, H, W) and classes (B, H, W), plus 1 - Dice averaged over the parts."""
    entropy = functional.cross_entropy(logits, targets.long(), weights)
    parts = range(LABEL_IDS["eyebrows"], HIDDEN)
    found = logits.softmax(1)[:, parts.start : parts.stop]
    wanted = torch.stack([targets == part for part in parts], 1).to(found.dtype)
    shared, sizes = (found * wanted).sum((0, 2, 3)), (found + wanted).sum((0, 2, 3))
    return entropy + 1 - ((2 * shared + 1) / (sizes + 1)).mean()


def augment(crops: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops (B, 3, H, W) and their classes (B, H, W): mirrored, moved by a similarity, and in other light."""
    count = len(crops)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    angle, scale, shift = 0.08 * normal(count), torch.exp(0.06 * normal(count)), 0.05 * normal(count, 2)
    side = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([torch.stack([side * cosine, -sine], 1), torch.stack([side * sine, cosine], 1)], 1)
    grid = functional.affine_grid(torch.cat([linear, shift[..., None]], 2), list(crops.shape), align_corners=False)
    moved = functional.grid_sample(crops, grid, padding_mode="border", align_corners=False)
    classes = functional.grid_sample(
        targets[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )[:, 0]
    gain = 1 + 0.2 * normal(count, 1, 1, 1) + 0.06 * normal(count, 3, 1, 1)
    contrast, middle = torch.exp(0.15 * normal(count, 1, 1, 1)), moved.mean((1, 2, 3), keepdim=True)
    lit = ((moved - middle) * contrast + middle) * gain + 0.06 * normal(count, 1, 1, 1) + 0.02 * normal(*crops.shape)
    return lit.clamp(0, 1), classes.round().to(targets.dtype)


@torch.no_grad()
def _average(averaged: SmallParser, parser: SmallParser, kept: float) -> None:
    """Move the running mean of weights and batch statistics towards the present ones."""
    present = parser.state_dict()
    for key, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(present[key], 1 - kept)
        else:
            value.copy_(present[key])


def _validation_iou(parser: SmallParser, crops: UInt8, targets: Tensor, rows: Tensor) -> dict[str, float]:
    """Mean IoU by part; NaN for a part that no kept-back crop shows."""
    truth = targets[rows].numpy()
    scores = parsing_iou(parser.parse(crops[rows.numpy()]).labels, np.where(truth == HIDDEN, 0, truth))
    return {
        part: float(np.nanmean(s)) if not np.isnan(s).all() else math.nan
        for part, s in zip(PARTS, scores.T, strict=True)
    }
