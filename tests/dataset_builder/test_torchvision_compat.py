import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch

from dataset_builder.torchvision_compat import define_nms_operators, ensure_torchvision, nms


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_nms(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.8])
def test_nms_agrees_with_the_slow_twin(seed, threshold):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 10, (60, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1, 6, (60, 2))], 1)
    scores = random.uniform(size=60)
    assert nms(boxes, scores, threshold).tolist() == slow_nms(boxes, scores, threshold)


def test_nms_of_nothing_is_nothing():
    kept = nms(np.zeros((0, 4)), np.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


def test_defined_operators_run_our_nms():
    define_nms_operators("neo3df_test")
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert torch.ops.neo3df_test.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert torch.ops.neo3df_test.qnms(boxes, scores, 0.9).tolist() == [1, 2, 0]


def test_healthy_torchvision_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    assert ensure_torchvision() is False


def test_missing_torchvision_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"pip install 'neo3df-dataset-builder\[photos\]'"):
        ensure_torchvision()


def test_torchvision_imports_after_repair():
    if find_spec("torchvision") is None:
        pytest.skip("the extra [photos] is not installed")
    ensure_torchvision()
    assert ensure_torchvision() is False
    from torchvision.models._utils import IntermediateLayerGetter

    assert IntermediateLayerGetter is not None
