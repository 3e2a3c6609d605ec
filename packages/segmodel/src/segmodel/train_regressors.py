"""Training of the image regressors on cached encodings, with the part decoders frozen (NEO-3DF section 3.3)."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from segmodel._distributed import Workers, require_rows_for_all
from segmodel._optimise import cosine_with_warmup, frozen, require_finite, split_rows
from segmodel.checkpoint import require_same_training
from segmodel.linear import LinearShapes
from segmodel.pieces import FacePiece, LatentModel
from segmodel.regressors import ImageRegressors
from segmodel.vae import kl_to_standard_normal, reparameterise


@dataclass(frozen=True)
class RegressorSettings:
    """Training of the F_i: Adam with decoupled weight decay and a cosine, early stop per piece.

    A piece is what the model decodes at once: a region of a part model, the whole face of a model without parts.

    ``init="ridge"`` starts every F_i at the ridge regression of the true shapes' latents, which a few hundred photos
    determine well; ``"mean"`` at the mean latent, with random hidden layers, as in the paper. ``lr=None`` is 3e-4 and
    1e-3 respectively.
    ``lambda_kl`` weighs the KL (nats) against squared vertex errors summed over vertices (mm^2), 0.01 in the paper.
    ``patience``: stop when no piece improved on the validation faces for that many epochs.
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
    """Validation error of one piece in mm RMS over faces and vertices, parts re-centred where the model does so.

    ``rms_mm`` of the regressor, ``mean_face_rms_mm`` of answering the training faces' mean, ``autoencoder_rms_mm`` of
    encoding and decoding the true shape (a floor). ``epoch`` is the one kept; 0 means that training did not
    improve on the start.
    """

    rms_mm: float
    mean_face_rms_mm: float
    autoencoder_rms_mm: float
    epoch: int


@dataclass(frozen=True)
class RegressorReport:
    """Quality per piece (a region, or "face"), mean training loss per epoch, and wall seconds."""

    regions: dict[str, RegressorQuality]
    history: list[float]
    seconds: float


@dataclass(frozen=True)
class _Data:
    """Encodings ``(N, E)``, what each face is in pieces, and which rows train and which validate."""

    encodings: Tensor
    pieces: Mapping[str, FacePiece]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def true_latents(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        return {name: z for piece in self.pieces.values() for name, z in piece.true_latents(rows).items()}


def train_image_regressors(
    model: LatentModel,
    encodings: ArrayLike | Tensor,
    shapes: LinearShapes,
    settings: RegressorSettings | None = None,
    validation_rows: ArrayLike | None = None,
) -> tuple[ImageRegressors, RegressorReport]:
    """Train the F_i on cached ``encodings (N, E)`` of the faces ``shapes`` (N rows), decoders frozen (NEO-3DF 3.3).

    There is one F_i for each of ``model.latent_dims``; their answers go into ``model.decode`` as they are. The loss is
    the squared error of what is decoded plus ``lambda_kl`` times the KL. In a
    :class:`segmodel.model.SegmentModel` that is one region per latent, re-centred, and each keeps its own best epoch on
    the validation rows; in a :class:`segmodel.baselines.whole.WholeFaceModel` it is the whole face from all latents
    together, with one best epoch. The error is measured inside the decoders' subspace, exactly the vertex error when
    ``shapes`` come from the linear model the decoders were trained on.

    Where a ``torch.distributed`` group is initialised and every process calls this with the same arguments, they divide
    each batch of ``settings.batch`` faces and come to what one process would, up to rounding, all of them. The first
    one's encodings count, for those of several machines may differ in their last digits.

    Raises:
        ValueError: encodings and shapes differ in length, values are not finite, or the processes have different
            arguments or outnumber the faces of a batch.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or RegressorSettings()
    started, workers = time.perf_counter(), Workers.of_group()
    require_rows_for_all(workers, settings.batch)
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    require_same_training(workers, settings, model.layout, shapes, held_out)
    inputs = workers.from_first(lambda: _check_encodings(encodings, len(shapes))).to(model.device)
    data = _Data(inputs, model.pieces_of(shapes), train, held_out)
    with torch.random.fork_rng(devices=[]), frozen(model.decoders):
        torch.manual_seed(settings.seed)
        regressors = ImageRegressors(inputs.shape[1], model.latent_dims, settings.dropout).to(model.device)
        regressors.standardise_for(inputs[train], model)
        if settings.init == "ridge":
            regressors.start_at_ridge(inputs[train], data.true_latents(train))
        best_epoch, history = _optimise(regressors, data, settings, workers)
    quality = workers.from_first(lambda: _quality(regressors, data, best_epoch))
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


class _BatchLoss(nn.Module):
    """The mean loss of a batch, as a module: what is wrapped to average gradients over processes is its forward."""

    def __init__(self, regressors: ImageRegressors, data: _Data, lambda_kl: float) -> None:
        super().__init__()
        self.regressors = regressors
        self._data, self._lambda_kl = data, lambda_kl

    def forward(self, rows: Tensor, own: slice) -> Tensor:
        """Loss of the ``own`` rows of a batch; what is random is drawn for all of them."""
        posterior = self.regressors.posterior(self._data.encodings[rows], own)
        mus, logvars = ({name: values[i] for name, values in posterior.items()} for i in (0, 1))
        loss = torch.zeros(())
        for piece in self._data.pieces.values():
            mu, logvar = piece.joined(mus), piece.joined(logvars)
            noise = torch.randn(len(rows), mu.shape[1], device=mu.device)[own]
            decoded = piece.network.decode_coordinates(reparameterise(mu, logvar, noise))
            fit = piece.difference(decoded, rows[own]).square().sum(dim=1)
            loss = loss + (fit + self._lambda_kl * kl_to_standard_normal(mu, logvar).sum(dim=1)).mean()
        return loss


def _optimise(
    regressors: ImageRegressors, data: _Data, settings: RegressorSettings, workers: Workers
) -> tuple[dict[str, int], list[float]]:
    """Train all F_i side by side; leave those of each piece at its best epoch and return these with the loss history.

    Every worker draws the same numbers and decides by the first one's validation.
    """
    lr = settings.lr if settings.lr is not None else (3e-4 if settings.init == "ridge" else 1e-3)
    optimiser = torch.optim.AdamW(regressors.parameters(), lr=lr, weight_decay=settings.weight_decay, fused=True)
    schedule = cosine_with_warmup(optimiser, settings.epochs * -(-len(data.train) // settings.batch))
    batch_loss = workers.data_parallel(_BatchLoss(regressors, data, settings.lambda_kl))
    rows = torch.from_numpy(data.train)
    best = workers.from_first(lambda: _validate(regressors, data))
    best_epoch = dict.fromkeys(data.pieces, 0)
    best_state = {piece: _state(regressors, data, piece) for piece in data.pieces}
    history: list[float] = []
    for epoch in range(1, settings.epochs + 1):
        regressors.train()
        total = 0.0
        for batch in rows[torch.randperm(len(rows))].split(settings.batch):
            own, share = workers.part_of(len(batch))
            loss = share * batch_loss(batch, own)
            optimiser.zero_grad()
            (workers.count * loss).backward()  # the gradients are averaged over the processes, and have to be summed
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        mean = sum(workers.from_each(total)) / len(rows)
        history.append(require_finite(mean, f"the regressor loss of epoch {epoch}"))
        for piece, score in workers.from_first(lambda: _validate(regressors, data)).items():
            if score < best[piece]:
                best[piece], best_epoch[piece] = score, epoch
                best_state[piece] = _state(regressors, data, piece)
        if epoch - max(best_epoch.values()) >= settings.patience:
            break
    for state in best_state.values():
        regressors.load_state_dict(state, strict=False)
    workers.equalise(regressors.eval())
    return best_epoch, history


def _state(regressors: ImageRegressors, data: _Data, piece: str) -> dict[str, Tensor]:
    """A copy of the weights of the heads that answer the latents of a piece."""
    heads = tuple(f"heads.{name}." for name in data.pieces[piece].latent_dims)
    return {name: copy.deepcopy(t) for name, t in regressors.state_dict().items() if name.startswith(heads)}


@torch.no_grad()
def _validate(regressors: ImageRegressors, data: _Data) -> dict[str, float]:
    """Validation error of each piece, mm."""
    latents = regressors.eval()(data.encodings[data.held_out])
    return {
        name: piece.rms_mm(piece.network.decode_coordinates(piece.joined(latents)), data.held_out)
        for name, piece in data.pieces.items()
    }


@torch.no_grad()
def _quality(regressors: ImageRegressors, data: _Data, best_epoch: Mapping[str, int]) -> dict[str, RegressorQuality]:
    errors = _validate(regressors, data)
    result = {}
    for name, piece in data.pieces.items():
        mean_face = piece.coordinates[data.train].mean(dim=0, keepdim=True)
        own = piece.joined(piece.true_latents(data.held_out))
        result[name] = RegressorQuality(
            rms_mm=require_finite(errors[name], "the validation error"),
            mean_face_rms_mm=piece.rms_mm(mean_face, data.held_out),
            autoencoder_rms_mm=piece.rms_mm(piece.network.decode_coordinates(own), data.held_out),
            epoch=best_epoch[name],
        )
    return result
