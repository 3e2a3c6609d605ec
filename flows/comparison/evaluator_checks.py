"""The evaluator's own checks: what half a pixel, or one, does to the overlap that methods are compared by."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, generate_binary_structure

from fitting import part_iou
from fitting.parts import FIRST_PART_ID

from ..contracts import PARTS
from ..run_model import PartFaceModel, Pose
from .label_images import label_images
from .method_rows import LabelImages

CROSS = generate_binary_structure(2, 1)[None]


@dataclass(frozen=True)
class Move:
    """Label images moved to the right and down, or every part grown by so many pixels."""

    right: int = 0
    down: int = 0
    dilated: int = 0


MOVES = (Move(), *(Move(down=d) for d in (1, 2, 3)), *(Move(right=r) for r in (1, 2, 3)), Move(dilated=1))


def moved(labels: LabelImages, move: Move) -> LabelImages:
    """Label images (N, H, W) moved over background; ``move.dilated`` is not looked at."""
    height, width = labels.shape[1:]
    padded = np.pad(labels, ((0, 0), (move.down, 0), (move.right, 0)))
    return padded[:, :height, :width]


def grown(labels: LabelImages, part: int, pixels: int) -> LabelImages:
    """Only the part of this id of label images (N, H, W), grown so many times by the four neighbours of its pixels."""
    return np.where(binary_dilation(labels == part, CROSS, iterations=pixels), part, 0).astype(np.uint8)


def registration_columns(subject: str, drawn: LabelImages, target: LabelImages) -> dict[str, object]:
    """Columns of the ``registration`` table: mean IoU per part of ``drawn`` against ``target`` after each of MOVES."""
    iou = [_part_ious(drawn, target, move) for move in MOVES]
    seen = ~np.isnan(np.stack(iou))
    return {
        "subject": [subject] * len(MOVES),
        **{key: np.array([getattr(move, key) for move in MOVES]) for key in ("right", "down", "dilated")},
        "iou": np.nansum(iou, 1) / np.where(seen.any(1), seen.sum(1), np.nan),
        "n": seen.sum(1),
    }


def mean_face_labels(model: PartFaceModel) -> LabelImages:
    """The mean face (1, 224, 224) as it stands before the camera, without expression, turn or shift."""
    zero = Pose(torch.zeros(1, model.face_model.ex_basis.shape[2]), torch.zeros(1, 3), torch.zeros(1, 3))
    return label_images(model, torch.from_numpy(model.face_model.mean)[None], zero)


def _part_ious(drawn: LabelImages, target: LabelImages, move: Move) -> NDArray[np.float64]:
    """IoU (N, 5) of one move; NaN where the target has too little of a part."""
    if not move.dilated:
        return part_iou(moved(drawn, move), target).iou()
    ids = range(FIRST_PART_ID, FIRST_PART_ID + len(PARTS))
    return np.stack([part_iou(grown(drawn, i, move.dilated), target).iou()[:, k] for k, i in enumerate(ids)], 1)
