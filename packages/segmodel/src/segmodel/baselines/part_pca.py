"""Part PCA: the linear rival that shares everything of the part model but its networks (after PB-3DMM)."""

from segmodel.baselines.pca import PcaNetwork
from segmodel.model import SegmentModel


class PartPca(SegmentModel):
    """A :class:`segmodel.model.SegmentModel` whose six regions are principal component analyses.

    PB-3DMM (Ghafourzadeh et al. 2020) gives each facial part its own PCA. Here on the same re-centred regions, with as
    many components as the part VAEs have latents, the same offset regressor and the same seam blending, so that only
    the networks differ: :class:`segmodel.baselines.pca.PcaNetwork`. Latents have unit variance.
    """

    file_format = "neo3df-part-pca"
    network_class = PcaNetwork
