"""Camera, differentiable label rasteriser, mask losses and fitting of faces to 2D parsing."""

from fitting.camera import Camera, apply_pose, clip_positions, project, rotation_matrix
from fitting.fit import FitResult, fit_controls
from fitting.iou import PartOverlap, part_iou
from fitting.losses import frobenius_loss, region_loss
from fitting.part_images import PartRenderer, render_labels, render_parts
from fitting.parts import LABEL_IDS, PARTS, REGIONS
from fitting.region_cost import LabelCosts
from fitting.renderer import Renderer
from fitting.targets import PartTargets, mask_targets, resize_labels, soften
from fitting.variables import Variable

__all__ = [
    "LABEL_IDS",
    "PARTS",
    "REGIONS",
    "Camera",
    "FitResult",
    "LabelCosts",
    "PartOverlap",
    "PartRenderer",
    "PartTargets",
    "Renderer",
    "Variable",
    "apply_pose",
    "clip_positions",
    "fit_controls",
    "frobenius_loss",
    "mask_targets",
    "part_iou",
    "project",
    "region_loss",
    "render_labels",
    "render_parts",
    "resize_labels",
    "rotation_matrix",
    "soften",
]
