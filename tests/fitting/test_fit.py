import numpy as np
import pytest
import torch

from fitting import (
    LABEL_IDS,
    PARTS,
    Camera,
    Variable,
    apply_pose,
    distance_loss,
    fit_controls,
    frobenius_loss,
    project,
    render_labels,
)

TRUTH = torch.tensor(  # mm offsets (x, y) of the five parts for three photos
    [
        [[2.5, 1.5], [-2.0, 2.0], [3.0, -2.0], [-2.5, 1.5], [2.0, -2.0]],
        [[-2.0, -2.0], [1.5, -1.5], [-3.0, 2.5], [3.0, -1.0], [-2.5, 1.5]],
        [[0.0, 2.5], [2.5, 0.5], [0.5, 3.0], [1.0, 2.5], [0.0, -2.5]],
    ]
)
VIEW = Camera.deep3d(160)


def offsets(n=3, **options):
    return {part: Variable(torch.zeros(n, 2), lower=-8.0, upper=8.0, **options) for part in PARTS}


def masks_of(face, truth, camera=VIEW):
    shape = face.shape({part: truth[:, k] for k, part in enumerate(PARTS)})
    return render_labels(shape, face.labels, camera, face.faces)


def run_shape(shape, face, masks, variables, **options):
    options = {"iterations": 40, "prior": 0.0, "faces": face.faces, "labels": face.labels} | options
    return fit_controls(shape, variables, masks, VIEW, **options)


def run(face, masks, variables, **options):
    return run_shape(face.shape, face, masks, variables, **options)


def test_known_offsets_are_recovered(face):
    """Offsets of 2 to 4 mm come back within 0.4 mm on average and 1 mm (0.7 px) at worst."""
    result = run(face, masks_of(face, TRUTH), offsets())
    found = torch.stack([result.values[part] for part in PARTS], 1)
    error = (found - TRUTH).norm(dim=-1)
    assert float(error.mean()) < 0.4
    assert float(error.max()) < 1.0
    assert (result.overlap_after.mean_of_parts() > result.overlap_before.mean_of_parts() + 0.2).all()
    assert result.overlap_after.mean_of_parts().min() > 0.9
    assert result.loss.shape == (41, 3)
    assert (result.loss.min(0) < 0.9 * result.loss[0]).all()  # the ramp leaves a floor of about 1.3
    assert result.labels_after.dtype == np.uint8
    assert (result.moved_p99 >= result.moved_mean).all()
    assert result.moved_p99.max() < 6


def test_pose_is_recovered(face):
    """The parts' vertices end within 0.6 px (mean) of where the true pose puts them, from 4 px at the start."""
    angles, translation = torch.tensor([[0.04, -0.05, 0.03]]), torch.tensor([[3.0, -2.0, 0.0]])
    truth = apply_pose(face.vertices[None], angles, translation)
    masks = render_labels(truth, face.labels, VIEW, face.faces)

    def shape(values):
        return apply_pose(face.vertices[None], values["angles"], values["translation"])

    variables = {"angles": Variable(torch.zeros(1, 3), 0.02), "translation": Variable(torch.zeros(1, 3))}
    result = run_shape(shape, face, masks, variables, iterations=60, prior=1e-4)
    parts = face.labels > 1
    error = (project(shape(result.values), VIEW)[0] - project(truth, VIEW)[0])[0, parts].norm(dim=-1)
    assert float(error.mean()) < 0.6
    assert result.overlap_after.mean_of_parts()[0] > 0.9


def test_values_stay_within_their_bounds(face):
    truth = torch.zeros(3, 5, 2)
    truth[:, 2] = torch.tensor([[3.0, -2.5], [-3.0, 2.5], [3.0, 3.0]])
    nose = run(face, masks_of(face, truth), {"nose": Variable(torch.zeros(3, 2), lower=-0.5, upper=1.0)}).values["nose"]
    assert bool(((nose >= -0.5) & (nose <= 1)).all())
    torch.testing.assert_close(nose, truth[:, 2].clamp(-0.5, 1.0), atol=0.05, rtol=0)


def test_photos_of_a_batch_do_not_influence_each_other(face):
    masks = masks_of(face, TRUTH)
    together = run(face, masks, offsets(), iterations=8, prior=1e-3, patience=3)
    for photo in range(3):
        alone = run(face, masks[photo : photo + 1], offsets(1), iterations=8, prior=1e-3, patience=3)
        for part in PARTS:
            torch.testing.assert_close(alone.values[part][0], together.values[part][photo], atol=1e-5, rtol=1e-5)
        assert alone.best_iteration[0] == together.best_iteration[photo]


def test_best_iterate_is_kept_and_the_fit_stops_when_all_photos_stall(face):
    masks = masks_of(face, TRUTH * 0)
    result = run(face, masks, offsets(), patience=4)
    np.testing.assert_array_equal(result.best_iteration, result.loss.argmin(0))
    assert result.iterations == 4
    assert all(float(value.abs().max()) == 0 for value in result.values.values())
    rough = run(face, masks_of(face, TRUTH), offsets(), learning_rate=3.0, iterations=12)
    np.testing.assert_array_equal(rough.best_iteration, rough.loss.argmin(0))


def test_prior_holds_back_change_or_total(face):
    masks = masks_of(face, TRUTH)
    free, held = (
        run(face, masks, offsets(), iterations=15),
        run(face, masks, offsets(prior_weight=100.0), iterations=15),
    )
    assert all(float(held.values[p].abs().max()) < 0.2 * float(free.values[p].abs().max()) for p in PARTS)
    start = {"nose": Variable(torch.full((3, 2), 5.0), prior_weight=100.0, prior_center=0.0)}
    drawn = run(face, masks, start, iterations=60)
    assert float(drawn.values["nose"].abs().max()) < 0.5


def test_units_set_the_step(face):
    masks = masks_of(face, TRUTH)
    one = run(face, masks, offsets(unit=0.5), iterations=1, learning_rate=0.1)
    moved = torch.stack([value.abs() for value in one.values.values()])
    assert float(moved.max()) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    ("gradient", "loss"), [("interpolation", None), ("antialias", frobenius_loss), ("label-edge", frobenius_loss)]
)
def test_other_gradients_and_the_loss_of_the_paper_also_reduce_the_loss(face, gradient, loss):
    result = run(face, masks_of(face, TRUTH), offsets(), iterations=10, gradient=gradient, loss=loss, ramp_px=0)
    assert (result.loss.min(0) < 0.9 * result.loss[0]).all()


def test_literal_setting_of_the_paper_moves_no_value_by_more_than_20_small_steps(face):
    """NEO-3DF: plain Adam, 20 iterations, rate 1e-3, no prior; each step of Adam is at most about the rate."""
    result = run(face, masks_of(face, TRUTH), offsets(), iterations=20, learning_rate=1e-3)
    moved = torch.stack([value.abs() for value in result.values.values()])
    assert 0.01 < float(moved.max()) <= 0.0205
    assert (result.loss.min(0) < result.loss[0]).all()


def test_ramp_then_binary_measures_the_kept_iterate_by_the_binary_loss(face):
    masks = masks_of(face, TRUTH)
    mixed = run(face, masks, offsets(), iterations=24, binary_after=12)
    ramp = run(face, masks, offsets(), iterations=24)
    binary = run(face, masks, offsets(), iterations=0, ramp_px=0)
    np.testing.assert_array_equal(mixed.loss[:12], ramp.loss[:12])
    assert mixed.binary_from == 12
    assert ramp.binary_from is None
    assert binary.binary_from == 0
    np.testing.assert_array_equal(mixed.best_iteration, 12 + mixed.loss[12:].argmin(0))
    for photo in range(3):
        best = {part: Variable(value[photo : photo + 1]) for part, value in mixed.values.items()}
        again = run(face, masks[photo : photo + 1], best, iterations=0, binary_after=0)
        assert again.loss[0, 0] == pytest.approx(mixed.loss[mixed.best_iteration[photo], photo], rel=1e-4)
        assert again.loss[0, 0] < binary.loss[0, photo]
    late = run(face, masks, offsets(), iterations=5, binary_after=6)
    np.testing.assert_array_equal(late.loss, ramp.loss[:6])


def test_start_is_kept_if_no_binary_iterate_is_better(face):
    stays = run(face, masks_of(face, TRUTH * 0), offsets(), iterations=10, binary_after=10, learning_rate=3.0)
    np.testing.assert_array_equal(stays.best_iteration, [0, 0, 0])
    assert all(float(value.abs().max()) == 0 for value in stays.values.values())


def test_part_weight_chooses_what_moves(face):
    masks = masks_of(face, TRUTH)
    only_nose = run(face, masks, offsets(), iterations=5, part_weight=[0, 0, 1, 0, 0])
    full = run(face, masks, offsets(), iterations=5)
    assert float(only_nose.values["nose"].abs().min()) > 0
    assert only_nose.overlap_after.valid.all()  # a part without weight still counts in the overlap
    assert (only_nose.loss[0] < 0.5 * full.loss[0]).all()
    twice = run(face, masks, offsets(), iterations=0, part_weight=[2] * 5)
    np.testing.assert_allclose(twice.loss[0], 2 * full.loss[0], rtol=1e-6)


def test_start_outside_the_bounds_is_moved_only_on_request(face):
    wide = Variable(torch.full((3, 2), 5.0), lower=-torch.ones(2), upper=torch.tensor([1.0, 2.0]))
    assert wide.clamped().initial.tolist() == [[1.0, 2.0]] * 3
    result = run(face, masks_of(face, TRUTH), {"nose": wide.clamped()}, iterations=2)
    assert bool((result.values["nose"] <= torch.tensor([1.0, 2.0])).all())


def test_supersampled_fits_see_finer_borders(face):
    """Part images of twice the size, averaged, give another loss that leads to the same parts."""
    masks = masks_of(face, TRUTH)
    plain, fine = (run(face, masks, offsets(), supersample=n) for n in (1, 2))
    assert not np.array_equal(plain.loss[0], fine.loss[0])
    assert (fine.overlap_after.mean_of_parts() > fine.overlap_before.mean_of_parts() + 0.2).all()


def test_distance_loss_pulls_as_the_region_loss_does(face):
    """On hard images the two are the same up to a factor, which Adam does not see; so are the iterates."""
    masks = masks_of(face, TRUTH)
    region = run(face, masks, offsets(), iterations=6)
    distance = run(face, masks, offsets(), iterations=6, loss=distance_loss)
    for part in PARTS:
        torch.testing.assert_close(distance.values[part], region.values[part], atol=2e-3, rtol=1e-2)


def test_a_fit_leaves_no_gradient_on_the_parameters_of_the_shape_function(face):
    scale = torch.ones((), requires_grad=True)
    result = run_shape(lambda values: face.shape(values) * scale, face, masks_of(face, TRUTH), offsets(), iterations=2)
    assert scale.grad is None
    assert not result.vertices.requires_grad
    torch.testing.assert_close(result.vertices, face.shape(result.values))


def test_missing_parts_and_ignored_pixels_pull_nothing(face):
    masks = masks_of(face, TRUTH)
    masks[0][masks[0] == LABEL_IDS["nose"]] = LABEL_IDS["rest"]
    ignore = masks == LABEL_IDS["upper_lip"]
    ignore |= render_labels(face.vertices[None], face.labels, VIEW, face.faces) == LABEL_IDS["upper_lip"]

    def only_labelled(values):
        shape = face.vertices.expand(3, -1, -1)
        for part, value in values.items():
            shape = shape + (face.labels == LABEL_IDS[part])[:, None] * torch.nn.functional.pad(value, (0, 1))[:, None]
        return shape

    result = run_shape(only_labelled, face, masks, offsets(), iterations=5, ignore=ignore)
    assert float(result.values["nose"][0].abs().max()) == 0
    assert float(result.values["nose"][1].abs().max()) > 0
    assert not result.overlap_after.valid[:, 3].any()
    assert not result.overlap_after.valid[0, 2]


def test_final_shape_function_is_what_is_reported(face):
    masks = masks_of(face, TRUTH)

    def lifted(values):
        return face.shape(values) + torch.tensor([0.0, 10.0, 0.0])

    result = run(face, masks, offsets(), iterations=2, final_shape_fn=lifted)
    expected = render_labels(lifted(result.values), face.labels, VIEW, face.faces)
    np.testing.assert_array_equal(result.labels_after, expected)


def test_bad_input_is_named(face):
    masks = masks_of(face, TRUTH)
    with pytest.raises(ValueError, match="target masks are 80 x 160 px but the camera renders 160 x 160"):
        run(face, masks[:, :80], offsets())
    with pytest.raises(ValueError, match="target masks hold the id 8"):
        run(face, masks + 8 * (masks == 0), offsets())
    with pytest.raises(ValueError, match="there are 3 target masks but the variables hold 2 photos"):
        run(face, masks, offsets(2))
    with pytest.raises(ValueError, match="no variables"):
        run(face, masks, {})
    with pytest.raises(ValueError, match="variables differ in the number of photos"):
        run(face, masks, {"nose": Variable(torch.zeros(3, 2)), "eyes": Variable(torch.zeros(1, 2))})
    with pytest.raises(ValueError, match=r"'nose': initial has shape \(3,\)"):
        run(face, masks, {"nose": Variable(torch.zeros(3))})
    with pytest.raises(ValueError, match="'nose': initial holds NaN"):
        run(face, masks, {"nose": Variable(torch.full((3, 2), float("nan")))})
    with pytest.raises(ValueError, match=r"start 0 of value 0, photo 0 is outside \[1, inf\]; .*clamped"):
        run(face, masks, {"nose": Variable(torch.zeros(3, 2), lower=1.0)})
    with pytest.raises(ValueError, match="unit is 0; it must be positive"):
        run(face, masks, {"nose": Variable(torch.zeros(3, 2), unit=0.0)})
    with pytest.raises(ValueError, match=r"unit has shape \(3,\), which does not fit \(3, 2\)"):
        run(face, masks, {"nose": Variable(torch.zeros(3, 2), unit=torch.ones(3))})
    with pytest.raises(ValueError, match="prior weight is -1"):
        run(face, masks, {"nose": Variable(torch.zeros(3, 2), prior_weight=-1.0)})
    with pytest.raises(ValueError, match="iterations is -1"):
        run(face, masks, offsets(), iterations=-1)
    with pytest.raises(ValueError, match="learning_rate is 0"):
        run(face, masks, offsets(), learning_rate=0.0)
    with pytest.raises(ValueError, match="binary_after is -2; it must be >= 0"):
        run(face, masks, offsets(), binary_after=-2)
    with pytest.raises(ValueError, match="flip_penalty is nan; it must be >= 0"):
        run(face, masks, offsets(), flip_penalty=float("nan"))
    with pytest.raises(ValueError, match=r"part_weight is \[1.0, 2.0\]; expected 5 finite numbers"):
        run(face, masks, offsets(), part_weight=[1, 2])
    with pytest.raises(ValueError, match=r"shape_fn returned \(1, 2205, 3\); expected \(3, 2205, 3\)"):
        run_shape(lambda values: face.vertices[None], face, masks, offsets())
