"""Global baselines: one latent for the whole face, linear (the Deep 3DMM form) or a VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from segmodel._subspace import coordinates
from segmodel.baselines.pca import PcaNetwork
from segmodel.baselines.whole import FACE, WholeFaceModel
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes
from segmodel.vae import PartVae


class GlobalModel(WholeFaceModel):
    """A model of whole faces in the PCA axes of whole faces; its latents are ``{"face": (B, D)}``."""

    network_class: ClassVar[type[PcaNetwork] | type[PartVae]]

    @classmethod
    def network_for(
        cls, layout: PartLayout, state: Mapping[str, Tensor], dims: Mapping[str, int]
    ) -> PcaNetwork | PartVae:
        """An untrained network for the subspace of this saved ``state``."""
        return cls.network_class(state["mean"], state["basis"], dims[FACE])

    def coordinates_of(self, shapes: LinearShapes) -> Tensor:
        """Coordinates ``(N, r)`` mm in the PCA axes of whole faces."""
        rows = np.arange(len(shapes))
        return coordinates(self.get_buffer("_network.mean"), self.get_buffer("_network.basis"), shapes, None, rows)


class GlobalPca(GlobalModel):
    """PCA of whole faces: coefficients of unit variance, as a Deep 3DMM has them."""

    kind = "global-pca"
    network_class = PcaNetwork


class GlobalVae(GlobalModel):
    """A VAE of whole faces, with hidden layers as wide as a part's (:class:`segmodel.vae.PartVae`)."""

    kind = "global-vae"
    network_class = PartVae
