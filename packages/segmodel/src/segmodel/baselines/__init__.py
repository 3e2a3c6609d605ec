"""The rivals of the part model, with its methods: global PCA, global VAE, LD-VAE and part PCA."""

from segmodel.baselines.global_ import FACE, GlobalPca, GlobalVae
from segmodel.baselines.ld_vae import LdVae
from segmodel.baselines.part_pca import PartPca
from segmodel.baselines.train import (
    BASELINES,
    BaselineReport,
    BaselineSettings,
    load_baseline,
    reconstruction_rms,
    train_baseline,
)
from segmodel.baselines.train_ld import SwapSettings

__all__ = [
    "BASELINES",
    "FACE",
    "BaselineReport",
    "BaselineSettings",
    "GlobalPca",
    "GlobalVae",
    "LdVae",
    "PartPca",
    "SwapSettings",
    "load_baseline",
    "reconstruction_rms",
    "train_baseline",
]
