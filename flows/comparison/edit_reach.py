"""Control maps of any face model, and how far their edits reach (NEO-3DF figure 4): what leaks out of the part."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from editing import ControllerMap, MeasurementLandmarks, measure
from segmodel import LinearShapes, PartLayout

from ..contracts import PARTS, REGIONS

SIGMA = 3.0
"""Standard deviations of every edit that is measured."""
BATCH = 32

Mask = NDArray[np.bool_]
Measured = dict[str, NDArray[np.float64]]


class Decoder(Protocol):
    """What the part model and all its rivals have in common."""

    def encode(self, vertices: Tensor) -> dict[str, Tensor]:
        """Latents {name: (B, D)} of faces (B, V, 3)."""

    def decode(self, latents: Mapping[str, Tensor], offsets: Tensor | None = None, blend: bool = True) -> Tensor:
        """Faces (B, V, 3), ``offsets`` (B, 5, 2) and seams only where there are parts."""

    def latents_of(self, shapes: LinearShapes) -> dict[str, Tensor]:
        """Latents {name: (N, D)} of all faces of a linear model."""

    @property
    def latent_mean(self) -> dict[str, Tensor]:
        """Mean latents {name: (D,)}."""


@dataclass(frozen=True)
class Surroundings:
    """A labelled topology, its measuring points, and the radius in mm that counts as around a part."""

    layout: PartLayout
    points: MeasurementLandmarks
    radius_mm: float

    def inside(self, region: str) -> Mask:
        """(V,): the vertices of a region."""
        mask = np.zeros(self.layout.n_vertices, bool)
        mask[self.layout.core(region)] = True
        return mask

    def beyond(self, region: str) -> Mask:
        """(V,): the vertices outside a part that are no skin within the radius of the part's border; none of the rest,
        which has no area of its own."""
        if region not in PARTS:
            return np.zeros(self.layout.n_vertices, bool)
        border = self.layout.template[self.layout.ring(region)]
        near = cKDTree(border).query(self.layout.template)[0] < self.radius_mm
        return ~self.inside(region) & ~(near & self.inside("rest"))

    def elsewhere(self, region: str) -> Mask:
        """(V,): the vertices outside a region that blending does not move either."""
        mask = ~self.inside(region)
        area = self.layout.transition(self.radius_mm)
        mask[area.vertex_ids[area.free]] = False
        return mask


@dataclass(frozen=True)
class EditMethod:
    """A face model with its control maps.

    ``whole_latent``: the controls of every region move the whole latent, not only the region's own.
    """

    title: str
    decoder: Decoder
    controls: ControllerMap
    whole_latent: bool = False
    blend: bool = True

    @cached_property
    def base(self) -> Tensor:
        """The unedited face (V, 3), decoded from the mean latent."""
        return self.edited("rest", np.zeros((1, len(self.controls.region("rest").names))))[0]

    @torch.no_grad()
    def edited(
        self,
        region: str,
        control: NDArray[np.float64],
        start: Mapping[str, Tensor] | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Faces (B, V, 3): ``control`` (B, M) sigma of a region's controls added to latents.

        ``start`` {name: (B or 1, D)}: the mean latent unless given. ``offsets`` (B, 5, 2): of the parts, by default
        where the model puts them.
        """
        move = torch.from_numpy(control @ self.controls.rows(region)).float()
        start = {name: z[None] for name, z in self.decoder.latent_mean.items()} if start is None else start
        latents = {name: z.expand(len(move), -1) for name, z in start.items()}
        if self.whole_latent:
            pieces = move.split([z.shape[1] for z in latents.values()], dim=1)
            moved = {name: z + piece for (name, z), piece in zip(latents.items(), pieces, strict=True)}
        else:
            moved = {**latents, region: latents[region] + move}
        return self.decoder.decode(moved, offsets, self.blend)

    def displacement(self, region: str, control: NDArray[np.float64]) -> NDArray[np.float32]:
        """(B, V) mm that ``control`` (B, M) sigma of a region move every vertex of the face of the mean latent.

        The unedited face is decoded beside each edited one, in batches of one size, so that what an edit does not touch
        is the same to the last bit.
        """
        still = self.edited(region, np.zeros_like(control))
        return (self.edited(region, control) - still).norm(dim=-1).numpy()


@torch.no_grad()
def measured_faces(decoder: Decoder, points: MeasurementLandmarks, latents: Mapping[str, Tensor]) -> Measured:
    """Measurements {region: (N, M)} mm of the unblended faces that a model makes of latents {name: (N, D)}."""
    rows: dict[str, list[NDArray[np.float64]]] = {region: [] for region in REGIONS}
    for begin in range(0, len(next(iter(latents.values()))), BATCH):
        faces = decoder.decode({name: z[begin : begin + BATCH] for name, z in latents.items()}, blend=False)
        for region, values in measure(faces.numpy(), points).items():
            rows[region].append(values)
    return {region: np.concatenate(values) for region, values in rows.items()}


def control_maps(
    measured: Measured, latents: Mapping[str, Tensor], *, whole_latent: bool, ridge: float
) -> ControllerMap:
    """Maps from the measurements of faces to their latents {name: (N, D)}: each region's own, or all of the latent."""
    whole = torch.cat(list(latents.values()), dim=1)
    chosen = {region: (whole if whole_latent else latents[region]).numpy() for region in REGIONS}
    return ControllerMap.fit(measured, chosen, ridge=ridge)


@dataclass(frozen=True)
class EditReach:
    """Displacements in mm, of all controls of a region at +3 and -3 sigma, by one method.

    Means over controls, signs and vertices ``inside`` the region, ``outside`` it and ``beyond`` its surroundings (NaN
    where there are no such vertices); the largest there and ``elsewhere``, see `Surroundings`; the ``responses`` (M,)
    of the controls' own measurements per sigma asked; and the ``reach`` (V,), each vertex' largest displacement.
    """

    method: str
    region: str
    inside: float
    outside: float
    beyond: float
    max_outside: float
    max_beyond: float
    max_elsewhere: float
    responses: NDArray[np.float64]
    reach: NDArray[np.float32]

    @property
    def out_ratio(self) -> float:
        """Outside over inside."""
        return self.outside / self.inside

    @property
    def beyond_ratio(self) -> float:
        """Beyond over inside."""
        return self.beyond / self.inside


def edit_reach(method: EditMethod, face: Surroundings) -> list[EditReach]:
    """One row per region: each of its controls alone, at +3 and at -3 sigma, from the mean latent."""
    return [_reach_of(method, face, region) for region in REGIONS]


def _reach_of(method: EditMethod, face: Surroundings, region: str) -> EditReach:
    fitted = method.controls.region(region)
    n_controls = len(fitted.names)
    control = SIGMA * np.concatenate([np.eye(n_controls), -np.eye(n_controls)])
    edited, still = method.edited(region, control), method.edited(region, np.zeros_like(control))
    moved = (edited - still).norm(dim=-1).numpy()
    inside, beyond = face.inside(region), face.beyond(region)
    own = measure(edited.numpy(), face.points)[region]
    return EditReach(
        method.title,
        region,
        inside=float(moved[:, inside].mean()),
        outside=float(moved[:, ~inside].mean()),
        beyond=float(moved[:, beyond].mean()) if beyond.any() else float("nan"),
        max_outside=float(moved[:, ~inside].max()),
        max_beyond=float(moved[:, beyond].max()) if beyond.any() else float("nan"),
        max_elsewhere=float(moved[:, face.elsewhere(region)].max()),
        responses=np.diagonal(own[:n_controls] - own[n_controls:]) / (2 * SIGMA * fitted.sigma),
        reach=moved.max(axis=0),
    )
