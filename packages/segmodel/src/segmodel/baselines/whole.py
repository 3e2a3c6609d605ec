"""What the baselines with one decoder for the whole face have in common: latents by name, statistics, files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, Self, cast

import torch
from torch import Tensor, nn

from segmodel._model_files import read_model, write_model
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.pieces import CoordinateNetwork, FacePiece

FACE = "face"
"""The name of the whole face, and of the one latent of a global model."""

_CHUNK_ROWS = 8192


class FaceNetwork(CoordinateNetwork, Protocol):
    """Encoder and decoder of faces ``(B, V, 3)`` mm and of their coordinates ``(B, r)`` in the network's subspace."""

    latent_dim: int
    latent_mean: Tensor
    latent_std: Tensor

    def encode(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance, each ``(B, D)``."""

    def decode(self, latents: Tensor) -> Tensor:
        """Vertices of ``latents (B, D)``."""


class WholeFaceModel(nn.Module):
    """A face model without parts, with the methods of :class:`segmodel.model.SegmentModel`.

    One network decodes the whole face, so there are no offsets and there is no seam to blend. Its latent is known by
    one name or, cut into slices, by several. Everything is float32, millimetres, and differentiable.

    Args:
        layout: the labelled topology. network: of whole faces on it. dims: latent size by name, in the order in which
            the slices lie side by side.
    """

    kind: ClassVar[str]

    def __init__(self, layout: PartLayout, network: nn.Module, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.layout = layout
        self._network = network
        self._dims = dict(dims)
        if sum(self._dims.values()) != self.network.latent_dim:
            raise ValueError(f"latents {self._dims} do not add up to the network's {self.network.latent_dim}")

    @classmethod
    @abstractmethod
    def network_for(cls, layout: PartLayout, state: Mapping[str, Tensor], dims: Mapping[str, int]) -> nn.Module:
        """An untrained network of the sizes of this saved ``state``."""

    @abstractmethod
    def coordinates_of(self, shapes: LinearShapes) -> Tensor:
        """Coordinates ``(N, r)``, in the network's subspace, of all faces of a linear model."""

    def metric(self) -> Tensor | None:
        """``(r, r)``: errors in coordinates times this are as long as vertex errors in mm; None where they are."""
        return None

    @property
    def network(self) -> FaceNetwork:
        """Encoder and decoder."""
        return cast(FaceNetwork, self._network)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.latent_mean.device

    @property
    def latent_dims(self) -> dict[str, int]:
        """Latent size by name."""
        return dict(self._dims)

    @property
    def latent_mean(self) -> dict[str, Tensor]:
        """Mean ``(D,)`` of mu over the training faces, by name."""
        return self._split(self.network.latent_mean)

    @property
    def latent_std(self) -> dict[str, Tensor]:
        """Standard deviation ``(D,)`` of mu over the training faces, by name."""
        return self._split(self.network.latent_std)

    @property
    def decoders(self) -> nn.Module:
        """The network; no training of regressors changes it."""
        return self._network

    @property
    def placers(self) -> Sequence[nn.Module]:
        """Nothing has to be placed."""
        return []

    def encode(self, vertices: Tensor) -> dict[str, Tensor]:
        """Latents mu ``{name: (B, D)}`` of neutral faces ``(B, V, 3)`` mm."""
        if vertices.ndim != 3 or vertices.shape[1:] != (self.layout.n_vertices, 3):
            raise ValueError(
                f"vertices have shape {tuple(vertices.shape)}: give (B, {self.layout.n_vertices}, 3) in mm"
            )
        if not torch.isfinite(vertices).all():
            raise ValueError("vertices hold values that are not finite: drop those faces")
        return self._split(self.network.encode(vertices)[0])

    def decode(self, latents: Mapping[str, Tensor], offsets: Tensor | None = None, blend: bool = True) -> Tensor:
        """Whole faces ``(B, V, 3)`` mm from ``{name: (B, D)}``. ``blend`` changes nothing: there is no seam.

        Raises:
            ValueError: a latent is missing, or ``offsets`` are given.
        """
        if offsets is not None:
            raise ValueError(f"{self.kind} model has no parts to place: give no offsets")
        missing = [name for name in self._dims if name not in latents]
        if missing:
            raise ValueError(f"latents lack {', '.join(missing)}: give one (B, D) tensor for each")
        return self.network.decode(torch.cat([latents[name] for name in self._dims], dim=-1))

    def compose(self, latents: Mapping[str, Tensor], offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The faces of :meth:`decode`, twice: nothing was put together, so there is no other rest."""
        faces = self.decode(latents, offsets)
        return faces, faces

    def pieces_of(self, shapes: LinearShapes) -> dict[str, FacePiece]:
        """The whole of all faces of a linear model, decoded from all latents together."""
        self._check(shapes)
        coordinates = self.coordinates_of(shapes).to(self.device)
        return {FACE: FacePiece(self.latent_dims, self.network, coordinates, self.metric())}

    @torch.no_grad()
    def latents_of(self, shapes: LinearShapes) -> dict[str, Tensor]:
        """Latents mu ``{name: (N, D)}`` of all faces of a linear model, without building their meshes."""
        self._check(shapes)
        chunks = self.coordinates_of(shapes).to(self.device).split(_CHUNK_ROWS)
        return self._split(torch.cat([self.network.encode_coordinates(chunk)[0] for chunk in chunks]).cpu())

    def save(self, directory: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``directory`` (created if needed), the JSON last."""
        write_model(
            directory,
            "neo3df-baseline",
            "network",
            self.layout,
            self._network.state_dict(),
            kind=self.kind,
            latent_dims=self.latent_dims,
        )

    @classmethod
    def load(cls, directory: str | Path, topology_hash: str | None = None) -> Self:
        """Read a model written by :meth:`save`, on the CPU, in eval mode.

        Args:
            directory: the folder. topology_hash: of the mesh it is to be used with, if that must be checked.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the files hold another kind of model, are of another version, or of another topology.
        """
        expected = {"format": "neo3df-baseline", "kind": cls.kind}
        stored = read_model(directory, cls.__name__, "network", expected, topology_hash)
        dims = stored.description["latent_dims"]
        network = cls.network_for(stored.layout, stored.state, dims)
        network.load_state_dict(stored.state)
        return cls(stored.layout, network, dims).eval()

    def _check(self, shapes: LinearShapes) -> None:
        if shapes.n_vertices != self.layout.n_vertices:
            raise ValueError(f"shapes have {shapes.n_vertices} vertices, this model has {self.layout.n_vertices}")

    def _split(self, values: Tensor) -> dict[str, Tensor]:
        return dict(zip(self._dims, values.split(list(self._dims.values()), dim=-1), strict=True))
