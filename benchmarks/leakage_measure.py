"""Control maps of any face model, and how far their edits reach: what leakage.py measures."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from editing import REGIONS, ControllerMap, MeasurementLandmarks, measure
from segmodel import LinearShapes, PartLayout
from segmodel.parts import PARTS

SIGMA = 3.0
BATCH = 32


class Decoder(Protocol):
    """What the part model and all its rivals have in common."""

    def decode(self, latents: dict[str, Tensor], offsets: Tensor | None = None, blend: bool = True) -> Tensor: ...
    def latents_of(self, shapes: LinearShapes) -> dict[str, Tensor]: ...
    @property
    def latent_mean(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Face:
    """A labelled topology, its measuring points, and the radius that counts as around a part."""

    layout: PartLayout
    points: MeasurementLandmarks
    radius_mm: float

    def inside(self, region: str) -> np.ndarray:
        """(V,) bool: the vertices of a region."""
        mask = np.zeros(self.layout.n_vertices, bool)
        mask[self.layout.core(region)] = True
        return mask

    def beyond(self, region: str) -> np.ndarray:
        """(V,) bool: the vertices outside a part that are no skin within the radius of the part's border; none of the
        rest, which has no area of its own."""
        if region not in PARTS:
            return np.zeros(self.layout.n_vertices, bool)
        border = self.layout.template[self.layout.ring(region)]
        near = cKDTree(border).query(self.layout.template)[0] < self.radius_mm
        return ~self.inside(region) & ~(near & self.inside("rest"))

    def elsewhere(self, region: str) -> np.ndarray:
        """(V,) bool: the vertices outside a region that blending does not move either."""
        mask = ~self.inside(region)
        area = self.layout.transition(self.radius_mm)
        mask[area.vertex_ids[area.free]] = False
        return mask


@dataclass(frozen=True)
class Method:
    """A face model with its control maps.

    ``whole_latent``: the controls of every region move the whole latent, not only the region's own.
    """

    title: str
    decoder: Decoder
    controls: ControllerMap
    whole_latent: bool
    blend: bool

    @cached_property
    def base(self) -> Tensor:
        """The unedited face (V, 3), decoded from the mean latent."""
        return self.decode({name: z[None] for name, z in self.decoder.latent_mean.items()})[0]

    @torch.no_grad()
    def decode(self, latents: dict[str, Tensor]) -> Tensor:
        """Faces (B, V, 3)."""
        return self.decoder.decode(latents, blend=self.blend)

    def edited(self, region: str, control: np.ndarray) -> Tensor:
        """Faces (B, V, 3): the mean latent with ``control`` (B, M) sigma of a region's controls."""
        move = torch.from_numpy(control @ self.controls.rows(region)).float()
        mean = self.decoder.latent_mean
        if self.whole_latent:
            pieces = move.split([len(z) for z in mean.values()], dim=1)
            return self.decode({name: z + piece for (name, z), piece in zip(mean.items(), pieces, strict=True)})
        latents = {name: z.expand(len(move), -1) for name, z in mean.items()}
        return self.decode({**latents, region: latents[region] + move})


def shuffled(latents: dict[str, Tensor]) -> dict[str, Tensor]:
    """Latents ``{name: (N, D)}`` of new faces whose slices come from different ones, independently."""
    generator = torch.Generator().manual_seed(0)
    return {name: z[torch.randperm(len(z), generator=generator)] for name, z in latents.items()}


def fit_method(
    title: str,
    decoder: Decoder,
    face: Face,
    latents: dict[str, Tensor],
    *,
    whole_latent: bool,
    blend: bool,
    ridge: float,
) -> Method:
    """Fit the control maps on the measurements of what the decoder makes, unblended, of ``latents {name: (N, D)}``."""
    measured: dict[str, list[np.ndarray]] = {region: [] for region in REGIONS}
    for begin in range(0, len(next(iter(latents.values()))), BATCH):
        with torch.no_grad():
            decoded = decoder.decode({n: z[begin : begin + BATCH] for n, z in latents.items()}, blend=False)
        for region, values in measure(decoded.numpy(), face.points).items():
            measured[region].append(values)
    whole = torch.cat(list(latents.values()), dim=1)
    chosen = {region: (whole if whole_latent else latents[region]).numpy() for region in REGIONS}
    features = {region: np.concatenate(values) for region, values in measured.items()}
    return Method(title, decoder, ControllerMap.fit(features, chosen, ridge=ridge), whole_latent, blend)


@dataclass(frozen=True)
class Leakage:
    """Displacements in mm, of all controls of a region at +3 and -3 sigma, by one method.

    Means over controls, signs and vertices ``inside`` the region, ``outside`` it and ``beyond`` its surroundings (NaN
    where there are no such vertices); the largest there and ``elsewhere``, see `Face`; and the ``responses`` (M,) of
    the controls' own measurements per sigma asked.
    """

    method: str
    region: str
    inside: float
    outside: float
    beyond: float
    max_outside: float
    max_beyond: float
    max_elsewhere: float
    responses: np.ndarray

    @property
    def out_ratio(self) -> float:
        """Outside over inside."""
        return self.outside / self.inside

    @property
    def beyond_ratio(self) -> float:
        """Beyond over inside."""
        return self.beyond / self.inside


def displacement(method: Method, region: str, control: np.ndarray) -> np.ndarray:
    """(B, V) mm that ``control`` (B, M) sigma of a region move every vertex."""
    return (method.edited(region, control) - method.base).norm(dim=-1).numpy()


def leakages(method: Method, face: Face) -> list[Leakage]:
    """One row per region."""
    rows = []
    for region in REGIONS:
        n_controls = len(method.controls.region(region).names)
        control = SIGMA * np.concatenate([np.eye(n_controls), -np.eye(n_controls)])
        edited = method.edited(region, control)
        moved = (edited - method.base).norm(dim=-1).numpy()
        inside, beyond = face.inside(region), face.beyond(region)
        own = measure(edited.numpy(), face.points)[region]
        change = np.diagonal(own[:n_controls] - own[n_controls:])
        rows.append(
            Leakage(
                method.title,
                region,
                inside=float(moved[:, inside].mean()),
                outside=float(moved[:, ~inside].mean()),
                beyond=float(moved[:, beyond].mean()) if beyond.any() else float("nan"),
                max_outside=float(moved[:, ~inside].max()),
                max_beyond=float(moved[:, beyond].max()) if beyond.any() else float("nan"),
                max_elsewhere=float(moved[:, face.elsewhere(region)].max()),
                responses=change / (2 * SIGMA * method.controls.region(region).sigma),
            )
        )
    return rows
