"""The face model made of six part models: encode, decode, assemble, save and load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from segmodel._model_files import read_model, write_model
from segmodel._subspace import coordinates
from segmodel.blend import SeamBlender
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes, recentre
from segmodel.offsets import OffsetRegressor
from segmodel.parts import LABEL_IDS, PARTS, REGIONS
from segmodel.pieces import FacePiece
from segmodel.vae import PartVae

_CHUNK_ROWS = 8192


class SegmentModel(nn.Module):
    """A face as six latent vectors: five re-centred parts, placed by offsets, and the rest (NEO-3DF section 3).

    Everything is float32, millimetres, and differentiable. Dictionaries of latents have the keys of
    :data:`segmodel.parts.REGIONS`.

    Args:
        layout: the labelled topology.
        vaes: one :class:`PartVae` per region, for the vertices ``layout.vertices(region)``.
        offset_regressor: rest latent to part box centres.
        radius_mm, n_solves: of the seam blending in :meth:`decode`.
        training_record: how the model was trained, as JSON; an attribute that :meth:`save` writes and :meth:`load`
            reads. :func:`segmodel.train.train_segment_vaes` records settings, digest of the training data and versions.
    """

    file_format: ClassVar[str] = "neo3df-segmodel"
    network_class: ClassVar[type[nn.Module]] = PartVae
    recentred: ClassVar[tuple[str, ...]] = PARTS
    """The regions whose shapes are re-centred, and placed by offsets."""

    _part_ids: Tensor
    _rest_ids: Tensor

    def __init__(
        self,
        layout: PartLayout,
        vaes: Mapping[str, PartVae],
        offset_regressor: OffsetRegressor,
        *,
        radius_mm: float = 30.0,
        n_solves: int = 3,
        training_record: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for region in REGIONS:
            if region not in vaes:
                raise ValueError(f"no VAE for region {region!r}: give one for each of {', '.join(REGIONS)}")
            expected = len(layout.vertices(region))
            if vaes[region].n_vertices != expected:
                raise ValueError(
                    f"the VAE of {region!r} has {vaes[region].n_vertices} vertices but the layout gives it {expected}"
                )
        self.layout = layout
        self.vaes = nn.ModuleDict({region: vaes[region] for region in REGIONS})
        self.offset_regressor = offset_regressor
        self.radius_mm, self.n_solves = float(radius_mm), int(n_solves)
        self.training_record = training_record
        self._blender: SeamBlender | None = None
        part_ids = torch.cat([torch.from_numpy(layout.vertices(part)) for part in PARTS])
        self.register_buffer("_part_ids", part_ids, persistent=False)
        self.register_buffer("_rest_ids", torch.from_numpy(layout.vertices("rest")), persistent=False)

    def vae(self, region: str) -> PartVae:
        """The VAE of a region."""
        return cast(PartVae, self.vaes[region])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._part_ids.device

    @property
    def latent_dims(self) -> dict[str, int]:
        """Latent size D per region."""
        return {region: self.vae(region).latent_dim for region in REGIONS}

    @property
    def latent_mean(self) -> dict[str, Tensor]:
        """Mean ``(D,)`` of mu over the training faces, per region."""
        return {region: self.vae(region).latent_mean for region in REGIONS}

    @property
    def latent_std(self) -> dict[str, Tensor]:
        """Standard deviation ``(D,)`` of mu over the training faces, per region."""
        return {region: self.vae(region).latent_std for region in REGIONS}

    @property
    def decoders(self) -> nn.Module:
        """The networks of the regions; no training of regressors changes them."""
        return self.vaes

    @property
    def placers(self) -> Sequence[nn.Module]:
        """What fine-tuning trains along with the image regressors: the offset regressor."""
        return [self.offset_regressor]

    @property
    def blender(self) -> SeamBlender:
        """The seam blender of :meth:`decode`; its sparse factor is computed at the first use."""
        if self._blender is None:
            blender = SeamBlender(self.layout, radius_mm=self.radius_mm, n_solves=self.n_solves)
            self._blender = blender.to(self.device)
        return self._blender

    def encode(self, vertices: Tensor) -> dict[str, Tensor]:
        """Latents mu ``{region: (B, D)}`` of neutral faces ``(B, V, 3)`` mm; parts are re-centred here."""
        if vertices.ndim != 3 or vertices.shape[1:] != (self.layout.n_vertices, 3):
            raise ValueError(
                f"vertices have shape {tuple(vertices.shape)}: give (B, {self.layout.n_vertices}, 3) in mm"
            )
        if not torch.isfinite(vertices).all():
            raise ValueError("vertices hold values that are not finite: drop those faces")
        own = {region: vertices[:, self.layout.vertices(region)] for region in REGIONS}
        return {
            region: self.vae(region).encode(recentre(own[region])[0] if region in self.recentred else own[region])[0]
            for region in REGIONS
        }

    def decode_part(self, region: str, latents: Tensor) -> Tensor:
        """Vertices ``(B, n, 3)`` mm of one region from ``latents (B, D)``; a part comes out re-centred in y and z."""
        return self.vae(region).decode(latents)

    def offsets(self, rest_latents: Tensor) -> Tensor:
        """Box centres (y, z) ``(B, 5, 2)`` mm of the parts, in PARTS order, for ``rest_latents (B, D)``."""
        return self.offset_regressor(rest_latents)

    def compose(
        self, latents: Mapping[str, Tensor], offsets: Tensor | None = None, *, rest: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Put the decoded parts into the decoded rest, unblended.

        Args:
            latents: ``{region: (B, D)}``.
            offsets: ``(B, 5, 2)`` mm, by default predicted from the rest latent.
            rest: ``(B, n, 3)`` mm, ``decode_part("rest", latents["rest"])``, where the caller already has it: the rest
                is the largest region, and fitting the parts never changes it.

        Returns:
            ``composed (B, V, 3)``, parts at their offsets and skin from the rest decoder; and ``rest (B, V, 3)``, which
            differs on the overlap ring only: there it holds the rest decoder's own prediction, the rest pose of
            blending. Its copy of the parts, which no blending reads, carries no gradient.
        """
        missing = [region for region in REGIONS if region not in latents]
        if missing:
            raise ValueError(f"latents lack {', '.join(missing)}: give one (B, D) tensor per region")
        if offsets is None:
            offsets = self.offsets(latents["rest"])
        shifts = torch.nn.functional.pad(offsets, (1, 0))
        pieces = [self.decode_part(part, latents[part]) + shifts[:, i, None] for i, part in enumerate(PARTS)]
        skin = self.decode_part("rest", latents["rest"]) if rest is None else rest
        canvas = skin.new_zeros(len(skin), self.layout.n_vertices, 3).index_copy(1, self._rest_ids, skin)
        composed = canvas.index_copy(1, self._part_ids, torch.cat(pieces, dim=1))
        return composed, composed.detach().index_copy(1, self._rest_ids, skin)

    def decode(self, latents: Mapping[str, Tensor], offsets: Tensor | None = None, blend: bool = True) -> Tensor:
        """Whole faces ``(B, V, 3)`` mm from ``{region: (B, D)}``; ``blend`` makes the seams seamless by ARAP."""
        composed, rest = self.compose(latents, offsets)
        return self.blender(composed, rest) if blend else composed

    @torch.no_grad()
    def latents_of(self, shapes: LinearShapes, regions: Sequence[str] = REGIONS) -> dict[str, Tensor]:
        """Latents mu ``{region: (N, D)}`` of all faces of a linear model, without building their meshes."""
        result = {}
        for region in regions:
            targets, vae = self.coordinates_of(shapes, region), self.vae(region)
            chunks = targets.to(self.device).split(_CHUNK_ROWS)
            result[region] = torch.cat([vae.encode_coordinates(chunk)[0] for chunk in chunks]).cpu()
        return result

    @torch.no_grad()
    def coordinates_of(self, shapes: LinearShapes, region: str) -> Tensor:
        """Subspace coordinates ``(N, r)`` mm of a region of all faces, re-centred for a part."""
        self._check(shapes)
        own, vae = shapes.region(self.layout.vertices(region)), self.vae(region)
        centres = own.box_centres() if region in self.recentred else None
        return coordinates(vae.mean, vae.basis, own, centres, torch.arange(len(shapes)).numpy())

    def pieces_of(self, shapes: LinearShapes) -> dict[str, FacePiece]:
        """The regions of all faces of a linear model, each decoded from its own latent."""
        return {
            region: FacePiece({region: dim}, self.vae(region), self.coordinates_of(shapes, region).to(self.device))
            for region, dim in self.latent_dims.items()
        }

    def box_centres_of(self, shapes: LinearShapes) -> Tensor:
        """True box centres (y, z) ``(N, 5, 2)`` mm of the parts of all faces, in PARTS order."""
        self._check(shapes)
        return torch.stack([shapes.region(self.layout.vertices(part)).box_centres() for part in PARTS], dim=1)

    def _check(self, shapes: LinearShapes) -> None:
        if shapes.n_vertices != self.layout.n_vertices:
            raise ValueError(f"shapes have {shapes.n_vertices} vertices, this model has {self.layout.n_vertices}")

    def save(self, directory: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` atomically into ``directory``, created if needed.

        The JSON names what :meth:`load` checks and says how the model was trained.
        """
        write_model(
            directory,
            self.file_format,
            "model",
            self.layout,
            self.state_dict(),
            n_faces=len(self.layout.faces),
            regions=list(REGIONS),
            label_ids=LABEL_IDS,
            latent_dims=self.latent_dims,
            radius_mm=self.radius_mm,
            n_solves=self.n_solves,
            training=self.training_record,
        )

    @classmethod
    def load(cls, directory: str | Path, topology_hash: str | None = None) -> Self:
        """Read a model written by :meth:`save`, on the CPU, in eval mode.

        Args:
            directory: the folder. topology_hash: of the mesh it is to be used with, if that must be checked.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the files are of another format version, or the topology is not the expected one; the message
                names both.
        """
        stored = read_model(directory, cls.__name__, "model", {"format": cls.file_format}, topology_hash)
        description, state = stored.description, stored.state
        dims = description["latent_dims"]
        vaes = {r: cls.network_class(state[f"vaes.{r}.mean"], state[f"vaes.{r}.basis"], dims[r]) for r in REGIONS}
        model = cls(
            stored.layout,
            cast(dict[str, PartVae], vaes),
            OffsetRegressor(dims["rest"]),
            radius_mm=description["radius_mm"],
            n_solves=description["n_solves"],
            training_record=description.get("training"),
        )
        model.load_state_dict(state)
        return model.eval()
