"""Training of the baselines by name, and what there is to report about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from segmodel._optimise import split_rows
from segmodel._stack import StackedFit, VaeStack
from segmodel._subspace import coordinates, fit_subspace, smoothness_factor
from segmodel._vae_training import StackedFaces, VaeTraining
from segmodel.baselines.global_ import GlobalPca, GlobalVae
from segmodel.baselines.ld_vae import LdVae
from segmodel.baselines.part_pca import AbsolutePartPca, PartPca
from segmodel.baselines.pca import PcaNetwork
from segmodel.baselines.train_ld import History, SwapSettings, train_ld_network
from segmodel.baselines.whole import FACE, WholeFaceModel
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.offsets import OffsetRegressor
from segmodel.parts import PARTS, REGIONS
from segmodel.train_offsets import OffsetSettings, train_offset_regressor
from segmodel.vae import PartVae
from segmodel.vae_settings import VaeSettings

_BATCH = 32

Baseline = WholeFaceModel | PartPca
OnProgress = Callable[[float, float], None]


@dataclass(frozen=True)
class BaselineSettings:
    """How the baselines are trained.

    Attributes:
        rest_dim, part_dim: latent sizes of the regions; a global latent is as large as all six together.
        epochs, batch, lr, lambda_kl, lambda_smooth: of the global VAE, as in :class:`segmodel.vae_settings.VaeSettings`
            with random initialisation.
        swap: of LD-VAE.
        seed: of weights, batches, noise and the validation split.
        validation_fraction: share of the faces held out, unless the validation rows are given.
    """

    rest_dim: int = 30
    part_dim: int = 10
    epochs: int = 30
    batch: int = 64
    lr: float = 1e-3
    lambda_kl: float = 0.1
    lambda_smooth: float = 1.0
    swap: SwapSettings = field(default_factory=SwapSettings)
    seed: int = 0
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        self.global_vae()  # names what is out of range

    @property
    def dims(self) -> dict[str, int]:
        """Latent size of each region."""
        return {region: self.rest_dim if region == "rest" else self.part_dim for region in REGIONS}

    @property
    def total_dim(self) -> int:
        """Latent size of a global model."""
        return sum(self.dims.values())

    def global_vae(self) -> VaeSettings:
        """The settings of the global VAE."""
        return VaeSettings(
            init="random",
            rest_dim=self.rest_dim,
            part_dim=self.part_dim,
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr,
            lambda_kl=self.lambda_kl,
            lambda_smooth=self.lambda_smooth,
            seed=self.seed,
        )


@dataclass(frozen=True)
class BaselineReport:
    """What training a baseline came to.

    Attributes:
        name: of the baseline. seed: it was trained with.
        rms_mm: root mean square 3D vertex error on the held-out faces, encoded and decoded unblended, over the vertices
            labelled with each region, and over all vertices under "face". Parts stand where the model itself puts them.
        history: one list per quantity, empty for a PCA: ``epoch`` or ``step``, ``loss`` and its terms,
            ``held_out_rms_mm`` for LD-VAE.
        seconds: wall time.
    """

    name: str
    seed: int
    rms_mm: dict[str, float]
    history: History
    seconds: float


def train_baseline(
    name: str,
    layout: PartLayout,
    shapes: LinearShapes,
    settings: BaselineSettings | None = None,
    validation_rows: ArrayLike | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Baseline, BaselineReport]:
    """Train one of :data:`BASELINES` on ``shapes``.

    ``on_progress(share, loss)`` is called now and then with the share of the training that is done.

    Raises:
        ValueError: an unknown name, shapes and layout that differ in vertex count, or too few faces.
        FloatingPointError: the loss stops being finite.
    """
    settings = settings or BaselineSettings()
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}: use one of {', '.join(BASELINES)}")
    if shapes.n_vertices != layout.n_vertices:
        raise ValueError(f"shapes have {shapes.n_vertices} vertices, the layout has {layout.n_vertices}")
    started = time.perf_counter()
    train, held_out = split_rows(len(shapes), settings.validation_fraction, settings.seed, validation_rows)
    model, history = _TRAINERS[name](_Faces(layout, shapes, train, held_out), settings, on_progress)
    model.eval().requires_grad_(False)
    rms = reconstruction_rms(lambda v: model.decode(model.encode(v), blend=False), layout, shapes, held_out)
    return model, BaselineReport(name, settings.seed, rms, history, time.perf_counter() - started)


def load_baseline(name: str, directory: str | Path, topology_hash: str | None = None) -> Baseline:
    """Read a baseline that its ``save`` wrote; errors as in :meth:`segmodel.model.SegmentModel.load`."""
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}: use one of {', '.join(BASELINES)}")
    return BASELINES[name].load(directory, topology_hash)


@torch.no_grad()
def reconstruction_rms(
    reconstruct: Callable[[Tensor], Tensor], layout: PartLayout, shapes: LinearShapes, rows: ArrayLike
) -> dict[str, float]:
    """Root mean square 3D vertex error in mm of ``reconstruct (B, V, 3) -> (B, V, 3)`` on some rows of ``shapes``.

    By region, over the vertices of its label, and over all vertices under "face".
    """
    index = np.asarray(rows, np.int64)
    square = torch.zeros(layout.n_vertices, dtype=torch.float64)
    for begin in range(0, len(index), _BATCH):
        vertices = shapes.vertices(index[begin : begin + _BATCH])
        square += (reconstruct(vertices) - vertices).double().square().sum(dim=(0, 2))
    mean = square / len(index)
    errors = {region: float(mean[layout.core(region)].mean().sqrt()) for region in REGIONS}
    return {**errors, FACE: float(mean.mean().sqrt())}


@dataclass(frozen=True)
class _Faces:
    """What there is to train on, and which rows of it are for training and which held out."""

    layout: PartLayout
    shapes: LinearShapes
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]


def _train_global_pca(faces: _Faces, settings: BaselineSettings, on_progress: OnProgress | None) -> _Trained:
    dim = settings.total_dim
    network = PcaNetwork.for_subspace(fit_subspace(faces.shapes, None, faces.train), dim)
    _note_latents(network, coordinates(network.mean, network.basis, faces.shapes, None, faces.train))
    return GlobalPca(faces.layout, network, {FACE: dim}), {}


def _train_global_vae(faces: _Faces, settings: BaselineSettings, on_progress: OnProgress | None) -> _Trained:
    """The loss and the loop of the part VAEs, for one region that is the whole face and is not re-centred."""
    dim, chosen = settings.total_dim, settings.global_vae()
    subspace = fit_subspace(faces.shapes, None, faces.train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        vae = PartVae.for_subspace(subspace, dim)
    train, held_out = (
        coordinates(vae.mean, vae.basis, faces.shapes, None, rows) for rows in (faces.train, faces.held_out)
    )
    error = smoothness_factor(subspace, faces.layout.template, faces.layout.faces, settings.lambda_smooth)
    stack = VaeStack([vae])
    stacked = StackedFaces(train[None], held_out[None], StackedFit.of([(error, None)]), torch.tensor([vae.n_vertices]))
    training = VaeTraining(stack, stacked, chosen)
    while not training.finished:
        loss = training.run_epoch()
        if on_progress is not None:
            on_progress(training.epoch / chosen.n_epochs, loss)
    training.finish()
    stack.write_back([vae])
    _note_latents(vae, train)
    epochs = [float(epoch) for epoch in range(1, len(training.history) + 1)]
    return GlobalVae(faces.layout, vae, {FACE: dim}), {"epoch": epochs, "loss": training.history}


def _train_ld_vae(faces: _Faces, settings: BaselineSettings, on_progress: OnProgress | None) -> _Trained:
    network, history = train_ld_network(
        faces.layout,
        faces.shapes,
        settings.dims,
        settings.swap,
        faces.train,
        faces.held_out,
        settings.seed,
        on_progress,
    )
    return LdVae(faces.layout, network, settings.dims), history


def _train_part_pca(faces: _Faces, settings: BaselineSettings, on_progress: OnProgress | None) -> _Trained:
    boxes = {part: faces.shapes.region(faces.layout.vertices(part)).box_centres() for part in PARTS}
    centres = torch.stack([boxes[part][faces.train].mean(dim=0) for part in PARTS])
    model = PartPca(faces.layout, _part_networks(faces, settings, boxes), OffsetRegressor(settings.rest_dim, centres))
    train_offset_regressor(model, faces.shapes, OffsetSettings(seed=settings.seed), faces.held_out)
    return model, {}


def _train_absolute_part_pca(faces: _Faces, settings: BaselineSettings, on_progress: OnProgress | None) -> _Trained:
    networks = _part_networks(faces, settings, {})
    return AbsolutePartPca(faces.layout, networks, OffsetRegressor(settings.rest_dim)), {}


def _part_networks(faces: _Faces, settings: BaselineSettings, boxes: Mapping[str, Tensor]) -> Mapping[str, PartVae]:
    """PCA of each region, its shapes less their box centres ``(N, 2)`` where ``boxes`` has them."""
    networks = {}
    for region, dim in settings.dims.items():
        own, centres = faces.shapes.region(faces.layout.vertices(region)), boxes.get(region)
        network = PcaNetwork.for_subspace(fit_subspace(own, centres, faces.train), dim)
        _note_latents(network, coordinates(network.mean, network.basis, own, centres, faces.train))
        networks[region] = network
    return cast(Mapping[str, PartVae], networks)


@torch.no_grad()
def _note_latents(network: PcaNetwork | PartVae, train: Tensor) -> None:
    """Store mean and standard deviation of mu over the training faces, given by their coordinates."""
    mu = network.encode_coordinates(train)[0]
    network.latent_mean.copy_(mu.mean(dim=0))
    network.latent_std.copy_(mu.std(dim=0, correction=0).clamp_min(1e-6))


_Trained = tuple[Baseline, History]
_Trainer = Callable[[_Faces, BaselineSettings, OnProgress | None], _Trained]

_TRAINERS: dict[str, _Trainer] = {
    "global-pca": _train_global_pca,
    "global-vae": _train_global_vae,
    "ld-vae": _train_ld_vae,
    "part-pca": _train_part_pca,
    "part-pca-absolute": _train_absolute_part_pca,
}
BASELINES: dict[str, type[WholeFaceModel] | type[PartPca]] = {
    "global-pca": GlobalPca,
    "global-vae": GlobalVae,
    "ld-vae": LdVae,
    "part-pca": PartPca,
    "part-pca-absolute": AbsolutePartPca,
}
"""The baselines by name."""
