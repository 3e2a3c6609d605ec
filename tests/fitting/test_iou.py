import math

import numpy as np
import pytest

from fitting import LABEL_IDS, PARTS, PartOverlap, part_iou


def brute_force(predicted, target, label):
    a, b = predicted == label, target == label
    return (a & b).sum(), (a | b).sum(), a.sum(), b.sum()


def random_masks(seed, shape=(3, 40, 40)):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 7, shape)
    return np.where(rng.random(shape) < 0.6, target, rng.integers(0, 7, shape)), target


def test_counts_and_averages_equal_brute_force():
    predicted, target = random_masks(0)
    overlap = part_iou(predicted, target)
    for photo in range(3):
        counts = np.array([brute_force(predicted[photo], target[photo], LABEL_IDS[part]) for part in PARTS])
        ours = (overlap.intersection, overlap.union, overlap.predicted_area, overlap.target_area)
        np.testing.assert_array_equal(np.stack([x[photo] for x in ours], 1), counts)
        iou = counts[:, 0] / counts[:, 1]
        np.testing.assert_allclose(overlap.iou()[photo], iou)
        assert overlap.mean_of_parts()[photo] == pytest.approx(iou.mean())
        assert overlap.frequency_weighted()[photo] == pytest.approx((iou * counts[:, 3]).sum() / counts[:, 3].sum())
        assert overlap.micro()[photo] == pytest.approx(counts[:, 0].sum() / counts[:, 1].sum())
        a, b = predicted[photo] >= 2, target[photo] >= 2
        assert overlap.binary_union()[photo] == pytest.approx((a & b).sum() / (a | b).sum())
    summary = overlap.summary()
    assert summary["micro"] == pytest.approx(overlap.intersection.sum() / overlap.union.sum())
    assert summary["mean_of_parts"] == pytest.approx(overlap.iou().mean())
    assert summary["nose"] == pytest.approx(overlap.iou()[:, 2].mean())
    assert (summary["n_photos"], summary["n_nose"]) == (3, 3)


def test_small_parts_and_empty_photos_are_left_out_and_counted():
    target = np.ones((2, 30, 30), int)
    target[0, :5, :5] = LABEL_IDS["nose"]
    target[0, 10, :19] = LABEL_IDS["eyes"]
    predicted = target.copy()
    predicted[0, 0, :5] = 1
    predicted[0, 20:, :] = LABEL_IDS["eyes"]
    predicted[1, 0, :] = LABEL_IDS["nose"]
    overlap = part_iou(predicted, target)
    np.testing.assert_array_equal(overlap.valid, [[False, False, True, False, False], [False] * 5])
    np.testing.assert_array_equal(np.isnan(overlap.iou()), ~overlap.valid)
    for values in (overlap.mean_of_parts(), overlap.frequency_weighted(), overlap.micro()):
        assert values[0] == pytest.approx(0.8)
        assert math.isnan(values[1])
    summary = overlap.summary()
    assert summary["mean_of_parts"] == pytest.approx(0.8)
    assert math.isnan(summary["eyes"])
    assert (summary["n_photos"], summary["n_eyes"], summary["n_nose"]) == (1, 0, 1)
    assert math.isnan(part_iou(predicted[1:], target[1:]).summary()["micro"])


def test_ignored_pixels_are_in_no_count():
    predicted, target = random_masks(1)
    ignore = np.zeros(target.shape, bool)
    ignore[:, :20] = True
    overlap, half = part_iou(predicted, target, ignore), part_iou(predicted[:, 20:], target[:, 20:])
    np.testing.assert_array_equal(overlap.union, half.union)
    np.testing.assert_array_equal(overlap.any_union, half.any_union)


def test_batches_join():
    predicted, target = random_masks(2)
    joined = PartOverlap.concatenate([part_iou(predicted[:1], target[:1]), part_iou(predicted[1:], target[1:])])
    np.testing.assert_array_equal(joined.union, part_iou(predicted, target).union)
    with pytest.raises(ValueError, match="at least one and share one min_area"):
        PartOverlap.concatenate([])


def test_bad_input_is_named():
    predicted, target = random_masks(3)
    with pytest.raises(ValueError, match=r"predicted labels have shape \(2, 40, 40\) but the target labels have"):
        part_iou(predicted[:2], target)
    with pytest.raises(ValueError, match="target labels hold the id 9"):
        part_iou(predicted, target + (target == 6) * 3)
