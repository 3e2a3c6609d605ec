"""Part models of faces: part layout, part VAEs, offset and image regressors, seam blending (NEO-3DF, ACCV 2022)."""

from segmodel.baselines import (
    BASELINES,
    AbsolutePartPca,
    BaselineReport,
    BaselineSettings,
    GlobalPca,
    GlobalVae,
    LdVae,
    PartPca,
    SwapSettings,
    load_baseline,
    reconstruction_rms,
    train_baseline,
)
from segmodel.blend import SeamBlender
from segmodel.finetune import FineTuneReport, FineTuneSettings, fine_tune, parsing_loss, shape_loss
from segmodel.layout import PartLayout, TransitionArea
from segmodel.linear import LinearShapes, box_centres, recentre
from segmodel.model import SegmentModel
from segmodel.offsets import OffsetRegressor
from segmodel.onnx import export_onnx
from segmodel.parts import LABEL_IDS, PARTS, REGIONS
from segmodel.regressors import ImageRegressors
from segmodel.seams import SeamMeasures, SeamReport, seam_report
from segmodel.train import RegionQuality, VaeReport, VaeSettings, train_segment_vaes
from segmodel.train_offsets import OffsetReport, OffsetSettings, train_offset_regressor
from segmodel.train_regressors import RegressorQuality, RegressorReport, RegressorSettings, train_image_regressors
from segmodel.vae import PartVae, kl_to_standard_normal, vae_loss

__all__ = [
    "BASELINES",
    "LABEL_IDS",
    "PARTS",
    "REGIONS",
    "AbsolutePartPca",
    "BaselineReport",
    "BaselineSettings",
    "FineTuneReport",
    "FineTuneSettings",
    "GlobalPca",
    "GlobalVae",
    "ImageRegressors",
    "LdVae",
    "LinearShapes",
    "OffsetRegressor",
    "OffsetReport",
    "OffsetSettings",
    "PartLayout",
    "PartPca",
    "PartVae",
    "RegionQuality",
    "RegressorQuality",
    "RegressorReport",
    "RegressorSettings",
    "SeamBlender",
    "SeamMeasures",
    "SeamReport",
    "SegmentModel",
    "SwapSettings",
    "TransitionArea",
    "VaeReport",
    "VaeSettings",
    "box_centres",
    "export_onnx",
    "fine_tune",
    "kl_to_standard_normal",
    "load_baseline",
    "parsing_loss",
    "recentre",
    "reconstruction_rms",
    "seam_report",
    "shape_loss",
    "train_baseline",
    "train_image_regressors",
    "train_offset_regressor",
    "train_segment_vaes",
    "vae_loss",
]
