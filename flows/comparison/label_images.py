"""Faces as the label images that are compared with masks."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting import render_labels

from ..face_fit import CAMERA
from ..run_model import PartFaceModel, Pose

BATCH = 16


@torch.no_grad()
def label_images(model: PartFaceModel, neutral: Tensor, pose: Pose) -> NDArray[np.uint8]:
    """Part ids (N, 224, 224) of neutral faces (N, V, 3) mm with an expression and a pose."""
    images = []
    for first in range(0, len(neutral), BATCH):
        rows = slice(first, first + BATCH)
        posed = model.posed(neutral[rows], pose.rows(rows))
        images.append(render_labels(posed, model.labels, CAMERA, model.faces).numpy())
    return np.concatenate(images)
