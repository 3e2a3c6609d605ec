"""Part PCA: the linear rival that shares everything of the part model but its networks (after PB-3DMM)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segmodel.baselines.pca import PcaNetwork
from segmodel.linear import LinearShapes
from segmodel.model import SegmentModel


class PartPca(SegmentModel):
    """A :class:`segmodel.model.SegmentModel` whose six regions are principal component analyses.

    PB-3DMM (Ghafourzadeh et al. 2020) gives each facial part its own PCA. Here on the same re-centred regions, with as
    many components as the part VAEs have latents, the same offset regressor and the same seam blending, so that only
    the networks differ: :class:`segmodel.baselines.pca.PcaNetwork`. Latents have unit variance.
    """

    file_format = "neo3df-part-pca"
    network_class = PcaNetwork


class AbsolutePartPca(PartPca):
    """Part PCA of shapes that stay where they are: no part is re-centred, and nothing places it (NEO-3DF figure 7).

    The same numbers of components, the same blending. The offsets are zero and stay zero in fine-tuning.
    """

    file_format = "neo3df-part-pca-absolute"
    recentred = ()

    @property
    def placers(self) -> Sequence[nn.Module]:
        """Nothing: a part's own latent says where it is."""
        return []

    def box_centres_of(self, shapes: LinearShapes) -> Tensor:
        """Zeros ``(N, 5, 2)``: nothing is taken off the parts."""
        return torch.zeros_like(super().box_centres_of(shapes))
