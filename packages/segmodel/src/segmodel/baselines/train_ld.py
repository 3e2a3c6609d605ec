"""Training of LD-VAE by mini-batch feature swapping in reduced coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmodel._optimise import cosine_with_warmup, require_finite
from segmodel.baselines.ld_vae import LdLoss, LdNetwork, ld_loss
from segmodel.baselines.swap import SwapSpace
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.parts import REGIONS

History = dict[str, list[float]]


@dataclass(frozen=True)
class SwapSettings:
    """How LD-VAE is trained; the weights are those of the published code.

    Attributes:
        steps: of Adam, with 2 % warm-up and a cosine down to 0.
        groups: groups per step. Each draws its own region and makes ``faces ** 2`` swapped faces of ``faces`` faces;
            the published code has one group of four.
        faces: faces per group, at least 2.
        lr: found here; the published 1e-4 is for dense coordinates and a constant rate, and Adam is not invariant under
            the change to reduced ones.
        lambda_kl, lambda_consistency, lambda_laplacian: weights against the mean squared error of a standardised
            coordinate. margin: of the consistency hinges.
        records: how often the loss terms and the held-out error are noted.
    """

    steps: int = 50_000
    groups: int = 4
    faces: int = 4
    lr: float = 1e-3
    lambda_kl: float = 1e-4
    lambda_consistency: float = 0.5
    lambda_laplacian: float = 1.0
    margin: float = 0.5
    records: int = 50

    def __post_init__(self) -> None:
        if self.faces < 2:
            raise ValueError(f"faces is {self.faces}: swapping needs groups of at least 2 faces")
        if min(self.steps, self.groups, self.records) < 1:
            raise ValueError("steps, groups and records must be at least 1")

    def total(self, loss: LdLoss) -> Tensor:
        """The weighted sum of the terms."""
        return (
            loss.reconstruction
            + self.lambda_kl * loss.kl
            + self.lambda_consistency * loss.consistency
            + self.lambda_laplacian * loss.laplacian
        )


def train_ld_network(
    layout: PartLayout,
    shapes: LinearShapes,
    dims: dict[str, int],
    settings: SwapSettings,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    seed: int,
    on_progress: Callable[[float, float], None] | None = None,
) -> tuple[LdNetwork, History]:
    """Train LD-VAE on the ``train`` rows of ``shapes``.

    Returns:
        The network with its latent statistics, and the history: ``step``, ``loss`` and the four terms averaged since
        the step before, unweighted, and ``held_out_rms_mm`` of at most 256 held-out faces.
    """
    space = SwapSpace.fit(layout, shapes, train)
    coordinates = space.coordinates_of(shapes)
    data, probe = coordinates[train], coordinates[held_out[:256]]
    scale = float(data.square().mean().sqrt())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LdNetwork(space, [dims[region] for region in REGIONS], scale)
    smoothness = space.smoothness(layout)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)
    schedule = cosine_with_warmup(optimiser, settings.steps)
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.groups, settings.faces)
    history: History = {}
    sums, since = torch.zeros(5), 0
    marks = set(np.linspace(0, settings.steps, settings.records + 1).round().astype(int)[1:].tolist())
    for step in range(1, settings.steps + 1):
        rows = torch.randint(len(data), shape, generator=generator)
        regions = torch.randint(len(REGIONS), shape[:1], generator=generator)
        noise = torch.randn(*shape, settings.faces, network.latent_dim, generator=generator)
        loss = ld_loss(network, data[rows], regions, smoothness, noise, settings.margin)
        total = settings.total(loss)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
        sums += torch.stack([total.detach(), *(term.detach() for term in loss.terms().values())])
        since += 1
        if step in marks:
            _record(history, step, sums / since, loss, _held_out_rms(network, probe))
            require_finite(history["loss"][-1], f"the LD-VAE loss of step {step}")
            sums, since = torch.zeros(5), 0
            if on_progress is not None:
                on_progress(step / settings.steps, history["loss"][-1])
    optimiser.zero_grad()
    with torch.no_grad():
        mu = torch.cat([network.encode_coordinates(chunk)[0] for chunk in data.split(8192)])
        network.latent_mean.copy_(mu.mean(dim=0))
        network.latent_std.copy_(mu.std(dim=0, correction=0).clamp_min(1e-6))
    return network.eval(), history


def _record(history: History, step: int, means: Tensor, loss: LdLoss, rms_mm: float) -> None:
    values = dict(zip(("loss", *loss.terms()), means.tolist(), strict=True))
    for name, value in {"step": float(step), **values, "held_out_rms_mm": rms_mm}.items():
        history.setdefault(name, []).append(value)


@torch.no_grad()
def _held_out_rms(network: LdNetwork, coordinates: Tensor) -> float:
    """Root mean square vertex error in mm of faces given by coordinates, with z = mu."""
    mu = network.encode_coordinates(coordinates)[0]
    squares = [
        (network.decode(z) - network.space.vertices(truth)).square().sum(dim=-1).mean(dim=1)
        for z, truth in zip(mu.split(32), coordinates.split(32), strict=True)
    ]
    return float(torch.cat(squares).mean().sqrt())
