"""Let ``import torchvision`` work when its compiled operators do not fit the installed PyTorch.

facexlib imports torchvision for a layer helper only, but a torchvision wheel built for another PyTorch (a CUDA wheel
beside a CPU PyTorch, say) already fails at import, because it describes operators that its library should have
defined. :func:`ensure_torchvision` defines the two operators concerned, non-maximum suppression of float and of
quantised boxes, and does nothing when torchvision is healthy.
"""

import importlib
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray


def nms(boxes: NDArray[np.floating], scores: NDArray[np.floating], iou_threshold: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) x0, y0, x1, y1.
        scores: (N,).
        iou_threshold: a box that overlaps a kept, better box by more than this intersection over union is dropped.

    Returns:
        Ids of the kept boxes, int64, best score first.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[waiting, 2:]) - np.maximum(boxes[best, :2], boxes[waiting, :2])
        shared = np.clip(sides, 0, None).prod(1)
        union = areas[best] + areas[waiting] - shared
        waiting = waiting[shared <= iou_threshold * union]
    return np.array(kept, np.int64)


def ensure_torchvision() -> bool:
    """Import torchvision, repairing it if its operators are missing; returns whether a repair was needed.

    Raises:
        ImportError: torchvision is not installed; the message names the extra.
        RuntimeError: torchvision is broken in another way.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError as error:
        raise ImportError("face detection needs torchvision: pip install 'neo3df-dataset-builder[photos]'") from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        define_nms_operators("torchvision")
        importlib.import_module("torchvision")
        return True
    return False


@cache
def define_nms_operators(namespace: str) -> torch.library.Library:
    """Define ``namespace::nms`` and ``namespace::qnms`` for CPU tensors; the operators live as long as the process."""
    library = torch.library.Library(namespace, "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl(name, _nms_of_tensors, "CPU")
    return library


def _nms_of_tensors(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    kept = nms(dets.detach().numpy(), scores.detach().numpy(), iou_threshold)
    return torch.from_numpy(kept)
