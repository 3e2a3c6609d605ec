"""Training of the six part VAEs together, in reduced coordinates, and what there is to report about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from segmodel._mesh import renumber
from segmodel._optimise import cosine_with_warmup, require_finite, split_rows
from segmodel._subspace import Subspace, coordinates, fit_subspace, smoothness_factor
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.model import SegmentModel
from segmodel.offsets import OffsetRegressor
from segmodel.parts import PARTS, REGIONS
from segmodel.vae import PartVae, kl_to_standard_normal, vae_loss

ACTIVE_NATS = 0.01
"""A latent dimension counts as active when its mean KL exceeds this."""


@dataclass(frozen=True)
class VaeSettings:
    """How the part VAEs are trained.

    Attributes:
        init: ``"pca"`` starts every network exactly at the PCA of its region and improves on it within a few epochs;
            ``"random"`` is PyTorch's initialisation, as in the paper, and needs about 12 epochs.
        rest_dim, part_dim: latent sizes.
        epochs, batch, lr: Adam with 2 % warm-up and a cosine down to 0. ``lr=None`` is 3e-4 for PCA, 1e-3 for random.
        lambda_kl, lambda_smooth: weights of the KL term (nats) and of the squared differences of cotangent Laplacian
            coordinates (mm^2) against the squared vertex errors summed over vertices (mm^2). The paper uses 0.01 and 1.
        seed: of weights, batches, noise and the validation split.
        validation_fraction: share of the faces held out, unless the validation rows are given.
        device: where the networks are trained; the returned model is on the CPU.
    """

    init: str = "pca"
    rest_dim: int = 30
    part_dim: int = 10
    epochs: int = 6
    batch: int = 64
    lr: float | None = None
    lambda_kl: float = 0.1
    lambda_smooth: float = 1.0
    seed: int = 0
    validation_fraction: float = 0.1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.init not in ("pca", "random"):
            raise ValueError(f"init is {self.init!r}: use 'pca' or 'random'")
        for name in ("rest_dim", "part_dim", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")
        if self.epochs < 0 or self.lambda_kl < 0 or self.lambda_smooth < 0:
            raise ValueError("epochs, lambda_kl and lambda_smooth must not be negative")

    def latent_dim(self, region: str) -> int:
        """Latent size D of a region."""
        return self.rest_dim if region == "rest" else self.part_dim


@dataclass(frozen=True)
class RegionQuality:
    """Held-out quality of one region; decoding takes z = mu.

    ``rms_mm`` is the root of the mean over faces and vertices of the squared 3D error, ``pca_rms_mm`` the same for
    PCA of equal dimension and ``ratio`` their quotient. ``kl`` (nats) and ``active_dims`` are of the posterior;
    ``kl_linear`` is the closed-form KL of the best linear network, the sum of ``1/2 log(2 w / lambda)`` over variances
    ``w > lambda / 2``.
    """

    rms_mm: float
    pca_rms_mm: float
    ratio: float
    kl: float
    kl_linear: float
    active_dims: int


@dataclass(frozen=True)
class VaeReport:
    """Quality per region, the summed training loss of each epoch (mm^2 and weighted nats), and wall seconds."""

    regions: dict[str, RegionQuality]
    history: list[float]
    seconds: float


@dataclass(frozen=True)
class _RegionData:
    """One region's network with its training and held-out coordinates, PCA variances and smoothness factor."""

    vae: PartVae
    train: Tensor
    held_out: Tensor
    variance: NDArray[np.float64]
    smoothness: Tensor


def train_segment_vaes(
    layout: PartLayout,
    shapes: LinearShapes,
    settings: VaeSettings | None = None,
    validation_rows: ArrayLike | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> tuple[SegmentModel, VaeReport]:
    """Train one VAE per region on ``shapes`` (NEO-3DF section 3.1) and assemble the face model.

    The offset regressor of the returned model answers the training faces' mean box centres until
    :func:`segmodel.train_offsets.train_offset_regressor` has fitted it. ``on_epoch(epoch, loss)`` is called after every
    epoch.

    Raises:
        ValueError: shapes and layout differ in vertex count, or there are too few faces.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or VaeSettings()
    if shapes.n_vertices != layout.n_vertices:
        raise ValueError(f"shapes have {shapes.n_vertices} vertices, the layout has {layout.n_vertices}")
    started = time.perf_counter()
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    regional = {region: shapes.region(layout.vertices(region)) for region in REGIONS}
    centres = {part: regional[part].box_centres() for part in PARTS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        data = {
            region: _prepare(layout, region, regional[region], centres.get(region), train, held_out, settings)
            for region in REGIONS
        }
        offsets = OffsetRegressor(settings.rest_dim, torch.stack([centres[p][train].mean(dim=0) for p in PARTS]))
    history = _optimise(data, settings, on_epoch)
    quality = {region: _finish(entry, settings) for region, entry in data.items()}
    model = SegmentModel(layout, {region: entry.vae.cpu() for region, entry in data.items()}, offsets).eval()
    return model, VaeReport(quality, history, time.perf_counter() - started)


def _prepare(
    layout: PartLayout,
    region: str,
    shapes: LinearShapes,
    centres: Tensor | None,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    settings: VaeSettings,
) -> _RegionData:
    subspace = fit_subspace(shapes, centres, train)
    vae = PartVae.for_subspace(subspace, settings.latent_dim(region))
    if settings.init == "pca":
        vae.start_at_pca(torch.from_numpy(subspace.variance), settings.lambda_kl)
    ids = layout.vertices(region)
    faces = renumber(layout.part_faces(region), ids, layout.n_vertices)
    return _RegionData(
        vae=vae.to(settings.device),
        train=coordinates(vae.mean, vae.basis, shapes, centres, train).to(settings.device),
        held_out=coordinates(vae.mean, vae.basis, shapes, centres, held_out).to(settings.device),
        variance=subspace.variance,
        smoothness=_smoothness(subspace, layout, ids, faces, settings),
    )


def _smoothness(
    subspace: Subspace, layout: PartLayout, ids: NDArray[np.int64], faces: NDArray[np.int64], settings: VaeSettings
) -> Tensor:
    return smoothness_factor(subspace, layout.template[ids], faces, settings.lambda_smooth).to(settings.device)


def _optimise(
    data: dict[str, _RegionData], settings: VaeSettings, on_epoch: Callable[[int, float], None] | None
) -> list[float]:
    """One Adam over all networks; their parameters are disjoint, so this equals training them side by side."""
    n_rows = len(data["rest"].train)
    lr = settings.lr if settings.lr is not None else (3e-4 if settings.init == "pca" else 1e-3)
    parameters = [p for entry in data.values() for p in entry.vae.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=lr, fused=True)
    schedule = cosine_with_warmup(optimiser, settings.epochs * -(-n_rows // settings.batch))
    generator = torch.Generator(settings.device).manual_seed(settings.seed)
    history = []
    for epoch in range(settings.epochs):
        order = torch.randperm(n_rows, generator=generator, device=settings.device)
        total = torch.zeros((), device=settings.device)
        for rows in order.split(settings.batch):
            loss = torch.zeros((), device=settings.device)
            for entry in data.values():
                noise = torch.randn(len(rows), entry.vae.latent_dim, generator=generator, device=settings.device)
                terms = vae_loss(entry.vae, entry.train[rows], entry.smoothness, noise)
                loss = loss + terms.fit + settings.lambda_kl * terms.kl
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(rows)
        history.append(require_finite(float(total) / n_rows, f"the VAE loss of epoch {epoch + 1}"))
        if on_epoch is not None:
            on_epoch(epoch + 1, history[-1])
    optimiser.zero_grad()  # the returned networks own no gradients
    return history


@torch.no_grad()
def _finish(entry: _RegionData, settings: VaeSettings) -> RegionQuality:
    """Store the latent statistics of the training faces in the network and measure it on the held-out faces."""
    vae = entry.vae.eval()
    mu = vae.encode_coordinates(entry.train)[0]
    vae.latent_mean.copy_(mu.mean(dim=0))
    vae.latent_std.copy_(mu.std(dim=0, correction=0).clamp_min(1e-6))

    mu, logvar = vae.encode_coordinates(entry.held_out)
    rms = _rms(vae.decode_coordinates(mu) - entry.held_out, vae.n_vertices)
    pca_rms = _rms(entry.held_out[:, vae.latent_dim :], vae.n_vertices)
    kl = kl_to_standard_normal(mu, logvar).mean(dim=0)
    strongest = entry.variance[: vae.latent_dim]
    half = max(settings.lambda_kl, 1e-12) / 2
    return RegionQuality(
        rms_mm=require_finite(rms, "the held-out error"),
        pca_rms_mm=pca_rms,
        ratio=rms / pca_rms if pca_rms > 1e-6 else float("inf"),
        kl=float(kl.sum()),
        kl_linear=float(0.5 * np.log(strongest[strongest > half] / half).sum()),
        active_dims=int((kl > ACTIVE_NATS).sum()),
    )


def _rms(error: Tensor, n_vertices: int) -> float:
    """Root mean square 3D vertex error in mm of errors given in orthonormal coordinates ``(B, r)``."""
    return float((error.double().square().sum(dim=1).mean() / n_vertices).sqrt())
