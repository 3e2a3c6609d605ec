"""Photos a fit cannot do anything with: they keep what they have and leave the other photos alone."""

import numpy as np
import pytest
import torch

from fitting import PARTS, Camera, Variable, fit_controls, render_labels

VIEW = Camera.deep3d(160)
TRUTH = {part: torch.tensor([[2.0, -1.5], [-2.0, 2.0], [1.0, 2.5]]) for part in PARTS}


def offsets(n=3):
    return {part: Variable(torch.zeros(n, 2), lower=-8.0, upper=8.0) for part in PARTS}


def masks_of(face):
    return render_labels(face.shape(TRUTH), face.labels, VIEW, face.faces).numpy()


def run(face, shape, masks, variables=None, **options):
    options = {"iterations": 8, "prior": 0.0, "faces": face.faces, "labels": face.labels} | options
    return fit_controls(shape, variables or offsets(len(masks)), masks, VIEW, **options)


def assert_finite(result):
    for value in result.values.values():
        assert bool(torch.isfinite(value).all())


def assert_same_photo(result, photo, alone, other=0):
    for part in PARTS:
        torch.testing.assert_close(result.values[part][photo], alone.values[part][other], atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(result.labels_after[photo], alone.labels_after[other])


def test_a_photo_whose_shape_breaks_keeps_its_best_iterate_and_the_others_go_on(face):
    masks = masks_of(face)

    def breaks(values):
        shape = face.shape(values)
        return torch.where((values["nose"][:, :1] > 0.25)[:, None], torch.nan, shape)

    result, whole = run(face, breaks, masks), run(face, face.shape, masks)
    assert result.failed.tolist() == [True, False, True]
    assert result.reasons[0] == "vertices are NaN or infinite at iteration 3"
    assert result.reasons[1] == ""
    assert result.best_iteration[0] == 2
    assert_finite(result)
    assert_same_photo(result, 1, whole, 1)
    short = run(face, face.shape, masks, iterations=2)
    assert_same_photo(result, 0, short, 0)
    assert np.isinf(result.loss[3, 0])
    assert np.isfinite(result.loss[:, 1]).all()
    assert result.iterations == 8


def test_a_photo_without_a_start_is_set_aside_and_only_all_of_them_stop_the_fit(face):
    masks = masks_of(face)

    def lost(values, photos):
        return face.shape(values).clone().index_fill(0, torch.tensor(photos), torch.inf)

    result = run(face, lambda values: lost(values, [1]), masks)
    assert result.failed.tolist() == [False, True, False]
    assert result.reasons[1] == "vertices are NaN or infinite at the start"
    assert float(torch.stack([v[1] for v in result.values.values()]).abs().max()) == 0
    assert result.labels_before[1].max() == 0
    assert np.isnan([result.flipped[1], result.moved_mean[1], result.realism.parts_p99[1]]).all()
    assert bool(torch.isnan(result.vertices[1]).all())
    assert_same_photo(result, 2, run(face, face.shape, masks), 2)
    with pytest.raises(ValueError, match="NaN or infinite at the start, in every photo"):
        run(face, lambda values: lost(values, [0, 1, 2]), masks)


def test_a_bad_gradient_or_loss_sets_one_photo_aside(face):
    masks = masks_of(face)

    def steep(values):  # finite everywhere, but the square root has no slope at the start of photo 2
        bend = torch.nn.functional.pad(values["nose"][2, :1].sqrt(), (2, 0))
        return face.shape(values) + bend[:, None, None]

    result = run(face, steep, masks)
    assert result.reasons == ("", "", "the gradient is NaN or infinite at iteration 0")
    assert_same_photo(result, 0, run(face, face.shape, masks), 0)
    assert_finite(result)

    def half_lost(images, targets):
        loss = (images - targets.images).square().sum((1, 2, 3))
        return torch.where(torch.tensor([True, False, True]), loss, torch.nan)

    result = run(face, face.shape, masks, loss=half_lost)
    assert result.reasons == ("", "the loss is NaN or infinite at iteration 0", "")
    assert_finite(result)


def test_a_final_shape_that_breaks_puts_the_photo_back_to_its_start(face):
    def final(values):
        shape = face.shape(values)
        return torch.where((values["nose"][:, :1] < 0)[:, None], torch.nan, shape)

    result = run(face, face.shape, masks_of(face), final_shape_fn=final)
    assert result.reasons == ("", "vertices are NaN or infinite at the end", "")
    assert float(torch.stack([v[1] for v in result.values.values()]).abs().max()) == 0
    assert result.best_iteration[1] == 0
    np.testing.assert_array_equal(result.labels_after[1], result.labels_before[1])


@pytest.mark.parametrize("nothing", ["an empty mask", "everything ignored", "only skin"])
def test_a_photo_without_parts_keeps_its_start_and_counts_for_nothing(face, nothing):
    masks = masks_of(face)
    ignore = np.zeros(masks.shape, bool)
    if nothing == "everything ignored":
        ignore[1] = True
    else:
        masks[1] = int(nothing == "only skin")
    drawn = {part: Variable(torch.zeros(3, 2), prior_weight=1e-3, prior_center=2.0) for part in PARTS}
    result = run(face, face.shape, masks, drawn, ignore=ignore, binary_after=4)
    assert not result.failed.any()
    assert float(torch.stack([v[1] for v in result.values.values()]).abs().max()) == 0
    assert not result.overlap_after.valid[1].any()
    assert np.isnan(result.overlap_after.mean_of_parts()[1])
    assert result.overlap_after.summary()["n_photos"] == 2
    assert result.best_iteration[1] == 0
    assert float(result.values["nose"][0].abs().max()) > 0
    alone = run(face, face.shape, masks[1:2], offsets(1), ignore=ignore[1:2])
    assert alone.iterations == 0


@pytest.mark.parametrize(
    ("where", "seen"),
    [((0.0, 0.0, 1200.0), False), ((0.0, 0.0, 900.0), True), ((400.0, 0.0, 0.0), False), ((0.0, 0.0, -4000.0), True)],
)
def test_a_face_behind_the_camera_or_out_of_the_frame_is_fitted_without_harm(face, where, seen):
    """Nothing is seen, so nothing pulls: finite values, and the face that can be seen is fitted as if alone."""
    masks = masks_of(face)[:2]
    moved = torch.stack([torch.zeros(3), torch.tensor(where)])[:, None]
    result = run(face, lambda values: face.shape(values) + moved, masks)
    assert result.failed.tolist() == [False, not seen]
    assert_finite(result)
    assert np.isfinite(result.loss).all()
    if not seen:
        assert result.reasons[1] == "the face is not in the image at the start"
        assert result.labels_after[1].max() == 0
        assert result.overlap_after.mean_of_parts()[1] == 0
        assert float(torch.stack([v[1] for v in result.values.values()]).abs().max()) == 0
    assert_same_photo(result, 0, run(face, face.shape, masks[:1]), 0)


def test_a_face_half_out_of_the_frame_still_follows_its_visible_parts(face):
    shift = torch.tensor([55.0, 0.0, 0.0])

    def shape(values):
        return face.shape(values) + shift

    masks = render_labels(shape(TRUTH), face.labels, VIEW, face.faces).numpy()
    result = run(face, shape, masks, iterations=40)
    assert not result.failed.any()
    assert (result.overlap_after.mean_of_parts() > result.overlap_before.mean_of_parts() + 0.1).all()
    assert (result.overlap_after.mean_of_parts() > 0.85).all()
