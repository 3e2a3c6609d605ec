"""Part models of faces: part layout, part VAEs, offset and image regressors, seam blending (NEO-3DF, ACCV 2022)."""

from segmodel.blend import SeamBlender
from segmodel.finetune import FineTuneReport, FineTuneSettings, fine_tune, parsing_loss, shape_loss
from segmodel.layout import PartLayout, TransitionArea
from segmodel.linear import LinearShapes, box_centres, recentre
from segmodel.model import SegmentModel
from segmodel.offsets import OffsetRegressor
from segmodel.parts import LABEL_IDS, PARTS, REGIONS
from segmodel.regressors import ImageRegressors
from segmodel.train import RegionQuality, VaeReport, VaeSettings, train_segment_vaes
from segmodel.train_offsets import OffsetReport, OffsetSettings, train_offset_regressor
from segmodel.train_regressors import RegressorQuality, RegressorReport, RegressorSettings, train_image_regressors
from segmodel.vae import PartVae, kl_to_standard_normal, vae_loss

__all__ = [
    "LABEL_IDS",
    "PARTS",
    "REGIONS",
    "FineTuneReport",
    "FineTuneSettings",
    "ImageRegressors",
    "LinearShapes",
    "OffsetRegressor",
    "OffsetReport",
    "OffsetSettings",
    "PartLayout",
    "PartVae",
    "RegionQuality",
    "RegressorQuality",
    "RegressorReport",
    "RegressorSettings",
    "SeamBlender",
    "SegmentModel",
    "TransitionArea",
    "VaeReport",
    "VaeSettings",
    "box_centres",
    "fine_tune",
    "kl_to_standard_normal",
    "parsing_loss",
    "recentre",
    "shape_loss",
    "train_image_regressors",
    "train_offset_regressor",
    "train_segment_vaes",
    "vae_loss",
]
