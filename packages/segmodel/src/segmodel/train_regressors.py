"""Training of the image regressors on cached encodings, with the part decoders frozen (NEO-3DF section 3.3)."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from segmodel._optimise import cosine_with_warmup, frozen, require_finite, split_rows
from segmodel.linear import LinearShapes
from segmodel.model import SegmentModel
from segmodel.parts import REGIONS
from segmodel.regressors import ImageRegressors
from segmodel.vae import PartVae, kl_to_standard_normal, reparameterise


@dataclass(frozen=True)
class RegressorSettings:
    """Training of the F_i: Adam with decoupled weight decay and a cosine, early stop per region.

    ``init="ridge"`` starts every F_i at the ridge regression of the true shapes' latents, which a few hundred photos
    determine well; ``"mean"`` at the mean latent, with random hidden layers, as in the paper. ``lr=None`` is 3e-4 and
    1e-3 respectively.
    ``lambda_kl`` weighs the KL (nats) against squared vertex errors summed over vertices (mm^2), 0.01 in the paper.
    ``patience``: stop when no region improved on the validation faces for that many epochs.
    """

    init: str = "ridge"
    epochs: int = 100
    batch: int = 64
    lr: float | None = None
    lambda_kl: float = 0.01
    weight_decay: float = 0.05
    dropout: float = 0.1
    patience: int = 20
    seed: int = 0
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.init not in ("ridge", "mean"):
            raise ValueError(f"init is {self.init!r}: use 'ridge' or 'mean'")


@dataclass(frozen=True)
class RegressorQuality:
    """Validation error of one region in mm RMS over faces and vertices, parts re-centred.

    ``rms_mm`` of the regressor, ``mean_face_rms_mm`` of answering the training faces' mean, ``autoencoder_rms_mm`` of
    the VAE given the true shape (a floor). ``epoch`` is the one kept; 0 means that training did not
    improve on the start.
    """

    rms_mm: float
    mean_face_rms_mm: float
    autoencoder_rms_mm: float
    epoch: int


@dataclass(frozen=True)
class RegressorReport:
    """Quality per region, mean training loss per epoch, and wall seconds."""

    regions: dict[str, RegressorQuality]
    history: list[float]
    seconds: float


@dataclass(frozen=True)
class _Target:
    """Subspace coordinates ``(N, r)`` of one region of all faces, and its frozen decoder."""

    vae: PartVae
    coordinates: Tensor

    @torch.no_grad()
    def latents(self, rows: NDArray[np.int64]) -> Tensor:
        return self.vae.encode_coordinates(self.coordinates[rows])[0]

    def rms_mm(self, predicted: Tensor, rows: NDArray[np.int64]) -> float:
        squared = (predicted - self.coordinates[rows]).double().square().sum(dim=1)
        return float((squared.mean() / self.vae.n_vertices).sqrt())


def train_image_regressors(
    model: SegmentModel,
    encodings: ArrayLike | Tensor,
    shapes: LinearShapes,
    settings: RegressorSettings | None = None,
    validation_rows: ArrayLike | None = None,
) -> tuple[ImageRegressors, RegressorReport]:
    """Train the F_i on cached ``encodings (N, E)`` of the faces ``shapes`` (N rows), decoders frozen (NEO-3DF 3.3).

    The loss is the squared error of the decoded, re-centred region plus ``lambda_kl`` times the KL. Each region keeps
    its own best epoch on the validation rows. The error is measured inside the decoders' subspace, exactly the
    vertex error when ``shapes`` come from the linear model the VAEs were trained on.

    Raises:
        ValueError: encodings and shapes differ in length, or values are not finite.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or RegressorSettings()
    started = time.perf_counter()
    inputs = _check_encodings(encodings, len(shapes)).to(model.device)
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    targets = {r: _Target(model.vae(r), model.coordinates_of(shapes, r).to(model.device)) for r in REGIONS}
    with torch.random.fork_rng(devices=[]), frozen(model):
        torch.manual_seed(settings.seed)
        regressors = ImageRegressors(inputs.shape[1], model.latent_dims, settings.dropout).to(model.device)
        regressors.standardise_for(inputs[train], model)
        if settings.init == "ridge":
            regressors.start_at_ridge(inputs[train], {r: t.latents(train) for r, t in targets.items()})
        best_epoch, history = _optimise(regressors, inputs, targets, train, held_out, settings)
    quality = _quality(regressors, inputs, targets, train, held_out, best_epoch)
    return regressors, RegressorReport(quality, history, time.perf_counter() - started)


def _check_encodings(encodings: ArrayLike | Tensor, n_rows: int) -> Tensor:
    values = encodings if isinstance(encodings, Tensor) else torch.from_numpy(np.asarray(encodings, np.float32))
    values = values.detach().cpu().float()
    if values.ndim != 2 or len(values) != n_rows:
        raise ValueError(f"encodings have shape {tuple(values.shape)} but there are {n_rows} faces: give one row each")
    bad = torch.nonzero(~torch.isfinite(values).all(dim=1))
    if len(bad):
        raise ValueError(f"encoding of row {int(bad[0])} is not finite: drop that photo")
    return values


def _optimise(
    regressors: ImageRegressors,
    inputs: Tensor,
    targets: Mapping[str, _Target],
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    settings: RegressorSettings,
) -> tuple[dict[str, int], list[float]]:
    """Train all F_i side by side; leave each at its best validation epoch and return those with the loss history."""
    lr = settings.lr if settings.lr is not None else (3e-4 if settings.init == "ridge" else 1e-3)
    optimiser = torch.optim.AdamW(regressors.parameters(), lr=lr, weight_decay=settings.weight_decay, fused=True)
    schedule = cosine_with_warmup(optimiser, settings.epochs * -(-len(train) // settings.batch))
    rows = torch.from_numpy(train)
    best = _validate(regressors, inputs, targets, held_out)
    best_epoch = dict.fromkeys(REGIONS, 0)
    best_state = {region: copy.deepcopy(regressors.heads[region].state_dict()) for region in REGIONS}
    history: list[float] = []
    for epoch in range(1, settings.epochs + 1):
        regressors.train()
        total = 0.0
        for batch in rows[torch.randperm(len(rows))].split(settings.batch):
            loss = _loss(
                regressors, inputs[batch], {r: t.coordinates[batch] for r, t in targets.items()}, targets, settings
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        history.append(require_finite(total / len(rows), f"the regressor loss of epoch {epoch}"))
        for region, score in _validate(regressors, inputs, targets, held_out).items():
            if score < best[region]:
                best[region], best_epoch[region] = score, epoch
                best_state[region] = copy.deepcopy(regressors.heads[region].state_dict())
        if epoch - max(best_epoch.values()) >= settings.patience:
            break
    for region in REGIONS:
        regressors.heads[region].load_state_dict(best_state[region])
    regressors.eval()
    return best_epoch, history


def _loss(
    regressors: ImageRegressors,
    encodings: Tensor,
    wanted: Mapping[str, Tensor],
    targets: Mapping[str, _Target],
    settings: RegressorSettings,
) -> Tensor:
    loss = torch.zeros(())
    for region, (mu, logvar) in regressors.posterior(encodings).items():
        sample = reparameterise(mu, logvar, torch.randn_like(mu))
        decoded = targets[region].vae.decode_coordinates(sample)
        fit = (decoded - wanted[region]).square().sum(dim=1)
        loss = loss + (fit + settings.lambda_kl * kl_to_standard_normal(mu, logvar).sum(dim=1)).mean()
    return loss


@torch.no_grad()
def _validate(
    regressors: ImageRegressors, inputs: Tensor, targets: Mapping[str, _Target], rows: NDArray[np.int64]
) -> dict[str, float]:
    latents = regressors.eval()(inputs[rows])
    return {r: t.rms_mm(t.vae.decode_coordinates(latents[r]), rows) for r, t in targets.items()}


@torch.no_grad()
def _quality(
    regressors: ImageRegressors,
    inputs: Tensor,
    targets: Mapping[str, _Target],
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    best_epoch: Mapping[str, int],
) -> dict[str, RegressorQuality]:
    errors = _validate(regressors, inputs, targets, held_out)
    result = {}
    for region, target in targets.items():
        mean_face = target.coordinates[train].mean(dim=0, keepdim=True)
        own_latents = target.latents(held_out)
        result[region] = RegressorQuality(
            rms_mm=require_finite(errors[region], "the validation error"),
            mean_face_rms_mm=target.rms_mm(mean_face, held_out),
            autoencoder_rms_mm=target.rms_mm(target.vae.decode_coordinates(own_latents), held_out),
            epoch=best_epoch[region],
        )
    return result
