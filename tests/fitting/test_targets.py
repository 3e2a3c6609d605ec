import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from fitting import LABEL_IDS, distance_loss, frobenius_loss, mask_targets, region_loss, resize_labels, soften
from fitting.targets import signed_ramp


def disc(radius, size=64, label=4):
    y, x = np.mgrid[:size, :size] + 0.5
    return np.where((x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2, label, 1)


def test_ramp_is_half_on_the_contour_and_ends_after_its_width():
    mask = np.ones((1, 40, 40), int)
    mask[:, :, 20:] = LABEL_IDS["nose"]
    row = mask_targets(mask, 5).images[0, 10, :, 2]
    distance = 20 - (np.arange(40) + 0.5)  # positive outside
    np.testing.assert_allclose(row, np.clip(0.5 - distance / 10, 0, 1), atol=1e-6)


def test_ramp_follows_the_euclidean_distance_of_a_disc():
    target = mask_targets(disc(18)[None], 8).images[0, ..., 2].numpy()
    y, x = np.mgrid[:64, :64] + 0.5
    distance = np.hypot(x - 32, y - 32) - 18
    np.testing.assert_allclose(target, np.clip(0.5 - distance / 16, 0, 1), atol=1.0 / 16)


def test_binary_targets_and_small_parts():
    mask = disc(18)
    mask[:4, :4] = LABEL_IDS["eyes"]
    targets = mask_targets(mask[None], 0)
    assert torch.equal(targets.images[0, ..., 2], torch.from_numpy(mask == 4).float())
    assert targets.valid.tolist() == [[False, False, True, False, False]]
    assert targets.area[0, 1] == 16
    assert mask_targets(mask[None], 0, min_area=16).valid[0, 1]


def test_ignored_pixels_count_for_nothing():
    mask = disc(18)[None]
    ignore = np.zeros(mask.shape, bool)
    ignore[:, :, :32] = True
    targets = mask_targets(mask, 0, ignore=ignore)
    assert int(targets.area[0, 2]) == int((mask == 4)[:, :, 32:].sum())
    image = targets.images.clone()
    image[:, :, :32] = 1 - image[:, :, :32]
    for loss in (region_loss, lambda a, b: frobenius_loss(a, b, None)):
        assert float(loss(image, targets)) == pytest.approx(0, abs=1e-6)


def test_region_loss_weighs_parts_by_area_and_leaves_out_invalid_ones():
    mask = np.ones((2, 32, 32), int)
    mask[0, :10, :10] = LABEL_IDS["nose"]
    mask[0, 20:30, 10:30] = LABEL_IDS["eyes"]
    mask[1, 0, :5] = LABEL_IDS["nose"]
    targets = mask_targets(mask, 0)
    assert region_loss(torch.zeros(2, 32, 32, 5), targets).tolist() == pytest.approx([2, 0])
    assert frobenius_loss(torch.zeros(2, 32, 32, 5), targets, None).tolist() == pytest.approx([300**0.5, 0])
    with pytest.raises(ValueError, match=r"part images have shape \(1, 32, 32, 5\)"):
        region_loss(torch.zeros(1, 32, 32, 5), targets)


def test_distance_loss_is_the_distance_of_every_wrong_pixel():
    """A 10 x 10 nose and an image shifted by 3 px: missing columns lie .5 to 2.5 px deep, the others as far outside."""
    mask = np.ones((1, 32, 32), int)
    mask[:, 10:20, 10:20] = LABEL_IDS["nose"]
    image = torch.zeros(1, 32, 32, 5)
    image[0, 10:20, 13:23, 2] = 1
    whole = mask_targets(mask, 32)
    columns = 0.5 + 1.5 + 2.5
    deep = sum(min(depth, row + 0.5, 9.5 - row) for depth in (0.5, 1.5, 2.5) for row in range(10))
    assert float(distance_loss(image, whole)) == pytest.approx((10 * columns + deep) / 100, rel=1e-5)
    cut = mask_targets(mask, 1)
    deep = sum(min(depth, row + 0.5, 9.5 - row, 1) for depth in (0.5, 1.5, 2.5) for row in range(10))
    assert float(distance_loss(image, cut)) == pytest.approx((10 * (0.5 + 1 + 1) + deep) / 100, rel=1e-5)
    assert float(distance_loss(mask_targets(mask, 0).images, whole)) == 0
    assert distance_loss(image, mask_targets(mask, 32, part_weight=[1, 1, 3, 1, 1])) == 3 * distance_loss(image, whole)


def test_distance_and_region_loss_of_hard_images_differ_by_a_factor_and_a_constant():
    rng = np.random.default_rng(0)
    ids = np.array([0, 1, 4, 5])
    mask = np.kron(rng.choice(ids, (1, 6, 6)), np.ones((1, 6, 6), int))
    ignore = rng.random(mask.shape) < 0.2
    targets = mask_targets(mask, 3, ignore=ignore, part_weight=[1, 1, 0.5, 2, 1])
    shown = rng.choice(ids, (4, 36, 36))
    images = torch.from_numpy(shown[..., None] == np.arange(2, 7)).float()
    losses = [[float(loss(image[None], targets)) for image in images] for loss in (region_loss, distance_loss)]
    gap = np.array(losses[0]) - np.array(losses[1]) / 3
    np.testing.assert_allclose(gap, gap[0], atol=1e-4)
    assert np.ptp(losses[1]) > 0.1


def test_part_weights_scale_each_loss():
    mask = np.ones((1, 32, 32), int)
    mask[0, :10, :10], mask[0, 20:30, 10:30] = LABEL_IDS["nose"], LABEL_IDS["eyes"]
    weights = [1, 3, 0, 1, 1]
    image, targets = torch.zeros(1, 32, 32, 5), mask_targets(mask, 0, part_weight=weights)
    assert float(region_loss(image, targets)) == pytest.approx(3)
    assert float(frobenius_loss(image, targets, None)) == pytest.approx(600**0.5)
    assert targets.valid.tolist() == [[False, True, True, False, False]]
    assert targets.weight.tolist() == [[0, 3, 0, 0, 0]]
    for wrong in ([1, 2], [1, 1, 1, 1, -1], [1, 1, 1, 1, np.inf]):
        with pytest.raises(ValueError, match="expected 5 finite numbers >= 0"):
            mask_targets(mask, 0, part_weight=wrong)
    with pytest.raises(ValueError, match="make them with ramp_px > 0"):
        distance_loss(image, targets)


def test_losses_are_differentiable_and_finite_at_zero():
    targets = mask_targets(disc(10, 24)[None], 2)
    image = torch.rand(1, 24, 24, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: region_loss(x, targets), (image,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: frobenius_loss(x, targets), (image,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: distance_loss(x, targets), (image,), fast_mode=True)
    exact = targets.images.clone().requires_grad_()
    frobenius_loss(exact, targets).sum().backward()
    assert bool(torch.isfinite(exact.grad).all())


def test_softening_is_the_gaussian_of_eleven_taps_and_keeps_the_sum():
    image = torch.zeros(1, 31, 31, 2, dtype=torch.float64)
    image[0, 15, 15, 1] = 1
    blurred = soften(image, 1.0)[0]
    taps = np.exp(-0.5 * np.arange(-5, 6) ** 2)
    taps /= taps.sum()
    np.testing.assert_allclose(blurred[10:21, 10:21, 1], np.outer(taps, taps), atol=1e-7)
    assert float(blurred[..., 1].sum()) == pytest.approx(1)
    assert float(blurred[..., 0].abs().max()) == 0


def test_resize_by_whole_factors_is_the_majority_of_the_block():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 7, (48, 60)).astype(np.uint8)
    mask[:24] = np.kron(mask[:6, :15], np.ones((4, 4), np.uint8))
    mask[0, :2] = 5
    small = resize_labels(mask, (12, 15))
    for row in range(12):
        for column in range(15):
            block = np.bincount(mask[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].ravel(), minlength=7)
            part = block[2:].argmax() + 2
            assert small[row, column] == (part if block[part] > 8 else int(block[1] > block[0]))


def test_resize_keeps_area_and_neither_dilates_nor_shifts():
    big, small = disc(200, 512), resize_labels(disc(200, 512), 224)
    assert (small == 4).sum() / 224**2 == pytest.approx((big == 4).sum() / 512**2, rel=5e-3)
    np.testing.assert_array_equal(small, small[::-1])
    np.testing.assert_array_equal(small, small[:, ::-1])
    np.testing.assert_array_equal(resize_labels(big, 512), big)
    np.testing.assert_array_equal(resize_labels(disc(8, 24), 48), np.kron(disc(8, 24), np.ones((2, 2), int)))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="masks hold the id 7; label ids are 0 to 6"):
        mask_targets(np.full((1, 4, 4), 7))
    with pytest.raises(ValueError, match=r"masks have shape \(4, 4\)"):
        mask_targets(np.zeros((4, 4), int))
    with pytest.raises(ValueError, match="type float64; expected"):
        mask_targets(np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="ramp_px is -1"):
        mask_targets(np.zeros((1, 4, 4), int), -1)
    with pytest.raises(ValueError, match=r"ignore has shape \(4, 4\) but the masks have \(1, 4, 4\)"):
        mask_targets(np.zeros((1, 4, 4), int), ignore=np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="sigma is 0"):
        soften(torch.zeros(1, 4, 4, 1), 0)
    with pytest.raises(ValueError, match=r"cannot resize a mask of \(4, 4\) to \(0, 0\)"):
        resize_labels(np.zeros((4, 4), int), 0)


def test_ramp_of_a_part_at_the_image_border_equals_the_full_distance_transform():
    inside = np.zeros((30, 40), bool)
    inside[0:9, 3:21] = True
    inside[4:6, 8:12] = False
    inside[20:30, 33:40] = True
    distance = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
    for ramp in (0.7, 3.0, 10.0):
        np.testing.assert_allclose(signed_ramp(inside, ramp), np.clip(0.5 - distance / (2 * ramp), 0, 1), atol=1e-6)
    assert signed_ramp(np.zeros((4, 4), bool), 3.0).max() == 0
    assert signed_ramp(np.ones((4, 4), bool), 3.0).min() == 1
