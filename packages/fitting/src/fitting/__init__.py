"""Camera, differentiable label rasteriser, mask losses and fitting of faces to 2D parsing."""

from fitting.camera import Camera, apply_pose, clip_positions, project, rotation_matrix
from fitting.edge_term import EdgeTerm
from fitting.fit import FitResult, fit_controls
from fitting.free_form import FreeForm, register_free_form
from fitting.iou import PartOverlap, part_iou
from fitting.losses import distance_loss, frobenius_loss, region_loss
from fitting.modes import PartModes, learn_global_modes, learn_part_modes
from fitting.part_images import PartRenderer, render_labels, render_parts
from fitting.parts import LABEL_IDS, PARTS, REGIONS
from fitting.realism import Realism
from fitting.region_cost import LabelCosts
from fitting.renderer import Renderer
from fitting.targets import PartTargets, mask_targets, resize_labels, soften
from fitting.variables import Variable
from fitting.visibility import visible_parts

__all__ = [
    "LABEL_IDS",
    "PARTS",
    "REGIONS",
    "Camera",
    "EdgeTerm",
    "FitResult",
    "FreeForm",
    "LabelCosts",
    "PartModes",
    "PartOverlap",
    "PartRenderer",
    "PartTargets",
    "Realism",
    "Renderer",
    "Variable",
    "apply_pose",
    "clip_positions",
    "distance_loss",
    "fit_controls",
    "frobenius_loss",
    "learn_global_modes",
    "learn_part_modes",
    "mask_targets",
    "part_iou",
    "project",
    "region_loss",
    "register_free_form",
    "render_labels",
    "render_parts",
    "resize_labels",
    "rotation_matrix",
    "soften",
    "visible_parts",
]
