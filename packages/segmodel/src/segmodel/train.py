"""Training of the six part VAEs together, in reduced coordinates, and what there is to report about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from segmodel._distributed import Workers, require_rows_for_all
from segmodel._mesh import renumber
from segmodel._optimise import require_finite, split_rows
from segmodel._stack import StackedFit, VaeStack, pad_stack
from segmodel._subspace import ShapePenalty, Subspace, coordinates, fit_subspace, shape_penalty, smoothness_factor
from segmodel._vae_training import StackedFaces, VaeTraining
from segmodel.checkpoint import (
    TrainingIdentity,
    data_sha256,
    layout_sha256,
    load_checkpoint,
    require_agreement,
    save_checkpoint,
)
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.model import SegmentModel
from segmodel.offsets import OffsetRegressor
from segmodel.parts import PARTS, REGIONS
from segmodel.vae import PartVae, kl_to_standard_normal
from segmodel.vae_settings import VaeSettings

ACTIVE_NATS = 0.01
"""A latent dimension counts as active when its mean KL exceeds this."""

_RECORDED_PACKAGES = ("neo3df-segmodel", "torch", "numpy")


@dataclass(frozen=True)
class RegionQuality:
    """Held-out quality of one region; decoding takes z = mu.

    ``rms_mm`` is the root of the mean over faces and vertices of the squared 3D error, ``pca_rms_mm`` the same for
    PCA of equal dimension and ``ratio`` their quotient. ``kl`` (nats) and ``active_dims`` are of the posterior;
    ``kl_linear`` is the closed-form KL of the best linear network, the sum of ``1/2 log(2 w / lambda)`` over variances
    ``w > lambda / 2``. ``epoch``, counted from 1, is the one whose weights were kept; 0 is the start.
    """

    rms_mm: float
    pca_rms_mm: float
    ratio: float
    kl: float
    kl_linear: float
    active_dims: int
    epoch: int


@dataclass(frozen=True)
class VaeReport:
    """What training came to.

    Attributes:
        regions: held-out quality per region. With ``patience`` the held-out faces also chose the epoch.
        history: the training loss of each epoch, mm^2 and weighted nats, summed over the regions.
        seconds: wall time of this call; a resumed training counts from where it was resumed.
        init: ``"pca"`` or ``"random"``.
        held_out_mm: with ``patience``, the held-out RMS of each region after each epoch; else no epochs.
    """

    regions: dict[str, RegionQuality]
    history: list[float]
    seconds: float
    init: str
    held_out_mm: dict[str, list[float]]


@dataclass(frozen=True)
class _Region:
    """A network and the variances ``(r,)`` mm^2, float64, of the training faces along the axes it works in."""

    vae: PartVae
    variance: Tensor


def train_segment_vaes(
    layout: PartLayout,
    shapes: LinearShapes,
    settings: VaeSettings | None = None,
    validation_rows: ArrayLike | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1,
) -> tuple[SegmentModel, VaeReport]:
    """Train one VAE per region on ``shapes`` (NEO-3DF section 3.1) and assemble the face model.

    The offset regressor of the returned model answers the training faces' mean box centres until
    :func:`segmodel.train_offsets.train_offset_regressor` has fitted it. ``on_epoch(epoch, loss)`` is called after every
    epoch.

    Where a ``torch.distributed`` group is initialised (as under torchrun) and every process calls this with the same
    arguments, they divide each batch of ``settings.batch`` faces among them and come to what one process would, up to
    rounding. All return the same model; the first reads and writes the checkpoint and calls ``on_epoch``.

    Args:
        checkpoint: a file for the state of training, written after every ``checkpoint_every`` epochs and at the end. If
            it is there already the training goes on from it, and on the same machine, threads and processes comes to
            the same result, bit for bit, as one that was never interrupted. It is left where it is.

    Raises:
        ValueError: shapes and layout differ in vertex count, there are too few faces, the checkpoint is of another
            training, or the processes have different arguments or outnumber the faces of a batch.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or VaeSettings()
    if shapes.n_vertices != layout.n_vertices:
        raise ValueError(f"shapes have {shapes.n_vertices} vertices, the layout has {layout.n_vertices}")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every is {checkpoint_every}: give at least 1 epoch")
    started, workers = time.perf_counter(), Workers.of_group()
    require_rows_for_all(workers, settings.batch)
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    identity = TrainingIdentity(settings.as_json(), layout_sha256(layout), data_sha256(shapes, held_out))
    require_agreement(identity, workers)
    saved = workers.from_first(lambda: None if checkpoint is None else load_checkpoint(Path(checkpoint), identity))

    centres = {part: shapes.region(layout.vertices(part)).box_centres() for part in PARTS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        offsets = OffsetRegressor(settings.rest_dim, torch.stack([centres[p][train].mean(dim=0) for p in PARTS]))
        if saved is None:
            regions = workers.from_first(lambda: _fresh(layout, shapes, centres, train, settings))
        else:
            regions = _restored(saved["regions"], settings)
    start = {r: {"vae": entry.vae.state_dict(), "variance": entry.variance} for r, entry in regions.items()}
    vaes = [entry.vae.to(settings.device) for entry in regions.values()]
    faces = _faces(layout, shapes, centres, regions, (train, held_out), settings)
    stack = VaeStack(vaes)
    training = VaeTraining(stack, faces, settings, workers)
    if saved is not None:
        training.restore(saved["training"])
    while not training.finished:
        loss = training.run_epoch()
        if not workers.is_first:
            continue
        if checkpoint is not None and (training.finished or training.epoch % checkpoint_every == 0):
            save_checkpoint(Path(checkpoint), identity, {"regions": start, "training": training.state()})
        if on_epoch is not None:
            on_epoch(training.epoch, loss)
    training.finish()
    stack.write_back(vaes)

    quality = {}
    for i, (region, entry) in enumerate(regions.items()):
        rank = len(entry.variance)
        own = faces.train[i, :, :rank], faces.held_out[i, :, :rank]
        quality[region] = _finish(entry, *own, settings.lambda_kl, training.kept_epoch[i])
    record = _record(identity, len(train), len(held_out))
    trained = {region: entry.vae.cpu() for region, entry in regions.items()}
    model = SegmentModel(layout, trained, offsets, training_record=record).eval()
    held_out_mm = {region: [epoch[i] for epoch in training.held_out_mm] for i, region in enumerate(regions)}
    return model, VaeReport(quality, training.history, time.perf_counter() - started, settings.init, held_out_mm)


def _fresh(
    layout: PartLayout,
    shapes: LinearShapes,
    centres: dict[str, Tensor],
    train: NDArray[np.int64],
    settings: VaeSettings,
) -> dict[str, _Region]:
    """Untrained networks along the PCA axes of the training faces."""
    regions = {}
    for region in REGIONS:
        subspace = fit_subspace(shapes.region(layout.vertices(region)), centres.get(region), train)
        variance = torch.from_numpy(subspace.variance)
        vae = PartVae.for_subspace(subspace, settings.latent_dim(region))
        if settings.init == "pca":
            vae.start_at_pca(variance, settings.lambda_kl)
        regions[region] = _Region(vae, variance)
    return regions


def _restored(start: dict[str, Any], settings: VaeSettings) -> dict[str, _Region]:
    """The same networks from a checkpoint: axes computed anew could differ by a sign, or by a rounding error."""
    regions = {}
    for region in REGIONS:
        weights = start[region]["vae"]
        vae = PartVae(weights["mean"], weights["basis"], settings.latent_dim(region))
        vae.load_state_dict(weights)
        regions[region] = _Region(vae, start[region]["variance"])
    return regions


def _faces(
    layout: PartLayout,
    shapes: LinearShapes,
    centres: dict[str, Tensor],
    regions: dict[str, _Region],
    split: tuple[NDArray[np.int64], NDArray[np.int64]],
    settings: VaeSettings,
) -> StackedFaces:
    """Coordinates of training and held-out faces, and the factors of the loss, of all regions."""
    train, held_out = (
        pad_stack(
            [
                coordinates(x.vae.mean, x.vae.basis, shapes.region(layout.vertices(r)), centres.get(r), rows)
                for r, x in regions.items()
            ]
        ).to(settings.device)
        for rows in split
    )
    fit = StackedFit.of([_fit(layout, region, entry, settings) for region, entry in regions.items()])
    sizes = torch.tensor([entry.vae.n_vertices for entry in regions.values()], device=settings.device)
    return StackedFaces(train, held_out, fit.to(settings.device), sizes)


def _fit(layout: PartLayout, region: str, entry: _Region, settings: VaeSettings) -> tuple[Tensor, ShapePenalty | None]:
    """What a region's loss measures besides the KL: the factor of errors and, for absolute smoothness, of shapes."""
    ids = layout.vertices(region)
    template, faces = layout.template[ids], renumber(layout.part_faces(region), ids, layout.n_vertices)
    mean, basis, variance = (x.cpu().double().numpy() for x in (entry.vae.mean, entry.vae.basis, entry.variance))
    subspace, weight = Subspace(mean, basis, variance), settings.lambda_smooth
    if settings.smoothness == "difference":
        return smoothness_factor(subspace, template, faces, weight), None
    return torch.eye(len(variance)), shape_penalty(subspace, template, faces, weight)


@torch.no_grad()
def _finish(entry: _Region, train: Tensor, held_out: Tensor, lambda_kl: float, epoch: int) -> RegionQuality:
    """Store the latent statistics of the training faces in the network and measure it on the held-out faces."""
    vae = entry.vae.eval()
    mu = vae.encode_coordinates(train)[0]
    vae.latent_mean.copy_(mu.mean(dim=0))
    vae.latent_std.copy_(mu.std(dim=0, correction=0).clamp_min(1e-6))

    mu, logvar = vae.encode_coordinates(held_out)
    rms = _rms(vae.decode_coordinates(mu) - held_out, vae.n_vertices)
    pca_rms = _rms(held_out[:, vae.latent_dim :], vae.n_vertices)
    kl = kl_to_standard_normal(mu, logvar).mean(dim=0)
    strongest = entry.variance[: vae.latent_dim]
    half = max(lambda_kl, 1e-12) / 2
    return RegionQuality(
        rms_mm=require_finite(rms, "the held-out error"),
        pca_rms_mm=pca_rms,
        ratio=rms / pca_rms if pca_rms > 1e-6 else float("inf"),
        kl=float(kl.sum()),
        kl_linear=float(0.5 * torch.log(strongest[strongest > half] / half).sum()),
        active_dims=int((kl > ACTIVE_NATS).sum()),
        epoch=epoch,
    )


def _rms(error: Tensor, n_vertices: int) -> float:
    """Root mean square 3D vertex error in mm of errors given in orthonormal coordinates ``(B, r)``."""
    return float((error.double().square().sum(dim=1).mean() / n_vertices).sqrt())


def _record(identity: TrainingIdentity, n_train: int, n_held_out: int) -> dict[str, Any]:
    """How a model was trained, as JSON."""
    return {
        "settings": identity.settings,
        "data_sha256": identity.data_sha256,
        "training_faces": n_train,
        "held_out_faces": n_held_out,
        "packages": {name: version(name) for name in _RECORDED_PACKAGES},
    }
