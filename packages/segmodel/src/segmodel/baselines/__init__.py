"""The rivals of the part model, with its methods: global PCA, global VAE, LD-VAE and part PCA."""

from segmodel.baselines.global_ import GlobalPca, GlobalVae
from segmodel.baselines.ld_vae import LdVae
from segmodel.baselines.part_pca import AbsolutePartPca, PartPca
from segmodel.baselines.train import (
    BASELINES,
    BaselineReport,
    BaselineSettings,
    load_baseline,
    reconstruction_rms,
    train_baseline,
)
from segmodel.baselines.train_ld import SwapSettings
from segmodel.baselines.whole import FACE, WholeFaceModel

__all__ = [
    "BASELINES",
    "FACE",
    "AbsolutePartPca",
    "BaselineReport",
    "BaselineSettings",
    "GlobalPca",
    "GlobalVae",
    "LdVae",
    "PartPca",
    "SwapSettings",
    "WholeFaceModel",
    "load_baseline",
    "reconstruction_rms",
    "train_baseline",
]
