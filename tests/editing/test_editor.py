from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from editing import LABEL_IDS, PARTS, REGIONS, FaceEditor, FaceState, control_morphs
from editing._exact import reach

EDITS = [("nose.width", 1.5), ("rest.facial_height", -2.0), ("eyes.eye_height", 0.7), ("nose.height", -1.0)]


@pytest.fixture
def editor(bent_decoder, controllers, points):
    return FaceEditor(FaceState.create(controllers.base_latents()), bent_decoder, controllers, points)


def test_order_of_edits_does_not_matter(editor):
    results = []
    for order in permutations(EDITS):
        editor.reset()
        for name, sigma in order:
            editor.set(name, sigma)
        results.append(editor.vertices())
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_only_what_an_edit_touches_is_decoded(editor, bent_decoder, face):
    before, calls = editor.vertices(), bent_decoder.calls
    assert sorted(calls) == sorted([*REGIONS, "place", "assemble"])
    for edit, decoded in [
        (lambda: editor.set("nose.width", 1.0), ["nose", "assemble"]),
        (lambda: editor.set("rest.facial_height", 1.0), ["place", "rest", "assemble"]),
        (lambda: editor.move_part("eyes", 1.0, 0.0), ["assemble"]),
        (editor.undo, []),
        (lambda: editor.set("rest.facial_height", 0.0), []),
    ]:
        calls.clear()
        edit()
        editor.vertices()
        assert sorted(calls) == sorted(decoded)
    untouched = (editor.vertices() == before).all(axis=1)
    assert untouched[face.labels != LABEL_IDS["nose"]].all()
    assert not untouched[face.labels == LABEL_IDS["nose"]].all()


def test_memory_of_decoded_shapes_is_bounded(editor, bent_decoder):
    start = editor.vertices()
    for sigma in np.linspace(0.1, 3.0, 30):
        editor.set("nose.width", sigma)
        editor.vertices()
    bent_decoder.calls.clear()
    editor.set("nose.width", 0)
    np.testing.assert_array_equal(editor.vertices(), start)
    assert bent_decoder.calls == ["nose", "assemble"], "the nose was forgotten, the other parts were not"


def test_vertices_are_read_only_and_of_any_state(editor):
    with pytest.raises(ValueError, match="read-only"):
        editor.vertices()[0] = 0
    before, start = editor.vertices(), editor.state
    editor.set("nose.width", 2)
    assert (editor.vertices() != before).any()
    np.testing.assert_array_equal(editor.vertices(start), before)
    np.testing.assert_array_equal(editor.build({}), before)
    assert dict(editor.state.controls) == {"nose.width": 2.0}


def test_undo_and_redo_return_bit_identical_vertices(editor):
    shapes = [editor.vertices()]
    for name, sigma in EDITS:
        editor.set(name, sigma)
        shapes.append(editor.vertices())
    for shape in reversed(shapes[:-1]):
        assert editor.undo()
        np.testing.assert_array_equal(editor.vertices(), shape)
    assert not editor.undo()
    for shape in shapes[1:]:
        assert editor.redo()
        np.testing.assert_array_equal(editor.vertices(), shape)
    assert not editor.redo()


def test_an_edit_after_undo_drops_what_was_undone(editor):
    for sigma in (1, 2, 3):
        editor.set("nose.width", sigma)
    for _ in range(3):
        editor.undo()
    editor.set("nose.height", 1)
    assert not editor.redo()
    assert dict(editor.state.controls) == {"nose.height": 1.0}


def test_setting_the_same_value_again_is_no_edit(editor):
    editor.set("nose.width", 1)
    editor.set("nose.width", 1)
    editor.undo()
    assert not editor.state.controls


def test_a_control_of_a_part_moves_that_part_only(editor, face):
    before = editor.vertices()
    editor.set("nose.width", 2)
    moved = np.abs(editor.vertices() - before).max(axis=1) > 1e-9
    assert moved.any()
    assert set(face.labels[moved]) == {4}


def test_reset_of_one_region_leaves_the_others(editor):
    for name, sigma in EDITS:
        editor.set(name, sigma)
    editor.reset("nose")
    assert dict(editor.state.controls) == {"eyes.eye_height": 0.7, "rest.facial_height": -2.0}
    editor.reset()
    assert not editor.state.controls


def test_randomise_repeats_by_seed_and_scales_by_strength(editor):
    editor.randomise(3, 0.5)
    half = dict(editor.state.controls)
    editor.randomise(4, 0.5)
    assert dict(editor.state.controls) != half
    editor.randomise(3, 0.5)
    assert dict(editor.state.controls) == half
    assert set(half) == set(editor.names)
    editor.randomise(3, 0)
    assert not editor.state.controls
    editor.randomise(3, 1e6)
    assert set(np.abs(list(editor.state.controls.values()))) == {3.0}


def test_a_random_region_is_the_same_whatever_others_are_drawn(editor):
    for symmetric in (True, False):
        editor.restore()
        editor.randomise(3, 0.5, symmetric)
        everything = editor.state
        editor.restore()
        editor.set("eyes.eye_height", 2.0)
        editor.randomise(3, 0.5, symmetric, regions=["nose"])
        drawn = {k: v for k, v in everything.controls.items() if k.startswith("nose.")}
        assert dict(editor.state.controls) == {"eyes.eye_height": 2.0, **drawn}
        np.testing.assert_array_equal(editor.state.latents["nose"], everything.latents["nose"])
        np.testing.assert_array_equal(editor.state.latents["eyes"], editor.loaded.latents["eyes"])


def test_latents_are_drawn_about_the_mean_and_controls_about_the_face(bent_decoder, controllers):
    rng = np.random.default_rng(0)
    face = FaceState.create({r: rng.normal(size=len(m)) for r, m in bent_decoder.latent_mean.items()})
    editor = FaceEditor(face, bent_decoder, controllers)
    editor.set("nose.width", 1.0)
    editor.randomise(1, 0, symmetric=False)
    assert not editor.state.controls
    for region, mean in bent_decoder.latent_mean.items():
        np.testing.assert_array_equal(editor.state.latents[region], mean)
    editor.randomise(1, 1e6, symmetric=False)
    assert {abs(x) for z in editor.state.latents.values() for x in z} == {3.0}
    editor.undo()
    editor.undo()
    editor.randomise(1, 0.5, symmetric=True)
    assert all((z == face.latents[region]).all() for region, z in editor.state.latents.items())


def test_moving_a_part_places_it_from_the_loaded_face(editor, face):
    before, nose = editor.vertices(), face.labels == LABEL_IDS["nose"]
    straight = FaceEditor(
        editor.state, replace(editor._decoder, blend=lambda composed, rest: composed), editor.controllers
    )
    start = straight.vertices()
    straight.move_part("nose", 3.0, -1.0)
    straight.move_part("nose", 2.3, 4.6)
    assert straight.moved("nose") == pytest.approx((2.3, 4.6))
    assert straight.moved("eyes") == (0.0, 0.0)
    np.testing.assert_allclose(
        (straight.vertices() - start)[nose], np.broadcast_to([0, 2.3, 4.6], (nose.sum(), 3)), atol=1e-9
    )
    np.testing.assert_array_equal(straight.vertices()[~nose], start[~nose])
    editor.move_part("nose", 2.0, 4.0)
    editor.move_part("nose", 0.0, 0.0)
    np.testing.assert_array_equal(editor.vertices(), before)
    editor.undo()
    editor.undo()
    assert not editor.undo()


def test_a_move_stays_when_the_rest_is_edited_or_copied(bent_decoder, controllers):
    rng = np.random.default_rng(0)
    other = FaceState.create({r: rng.normal(size=len(m)) for r, m in bent_decoder.latent_mean.items()})
    editor = FaceEditor(FaceState.create(controllers.base_latents()), bent_decoder, controllers)
    editor.move_part("eyes", 2.0, 1.0)
    editor.set("rest.facial_height", 2.0)
    editor.copy_part(other, "rest")
    assert editor.moved("eyes") == pytest.approx((2.0, 1.0))
    assert editor.moved("nose") == pytest.approx((0.0, 0.0))
    wanted = bent_decoder.place(other.latents["rest"]).astype(float)
    wanted[PARTS.index("eyes")] += (2.0, 1.0)
    np.testing.assert_allclose(editor.state.offsets, wanted, atol=1e-9)


def test_restore_takes_a_region_or_all_back_to_the_loaded_face(bent_decoder, controllers):
    loaded = FaceState.create(controllers.base_latents(), controls={"nose.width": 1.0, "eyes.eye_height": 0.5})
    editor = FaceEditor(loaded, bent_decoder, controllers)
    start = editor.vertices()
    editor.randomise(1, symmetric=False)
    editor.move_part("nose", 5.0, 0.0)
    editor.restore("nose")
    assert dict(editor.state.controls) == {"nose.width": 1.0}
    assert editor.moved("nose") == pytest.approx((0, 0))
    assert (editor.state.latents["nose"] == loaded.latents["nose"]).all()
    assert not (editor.state.latents["eyes"] == loaded.latents["eyes"]).any()
    editor.restore()
    np.testing.assert_array_equal(editor.vertices(), start)
    editor.reset()
    assert not editor.state.controls


@pytest.mark.parametrize("name", ["nose.width", "rest.facial_height", "eyes.eye_height", "upper_lip.height"])
def test_exact_value_is_reached_through_a_bent_blend(editor, name):
    editor.set("nose.height", 1.0)
    wanted = editor.measurements()[name] + 0.4
    sigma = editor.set_exact(name, wanted, tolerance_mm=1e-4)
    assert editor.measurements()[name] == pytest.approx(wanted, abs=1e-4)
    assert editor.get(name) == sigma
    assert editor.get("nose.height") == 1.0


def test_a_wrong_first_slope_costs_steps_not_the_result():
    steps = []

    def measured(sigma):
        steps.append(sigma)
        return 30 + 2 * sigma + 0.1 * sigma**2

    sigma, value = reach(measured, 34.0, start=0.0, slope=7.0, limit=6.0, tolerance=1e-9)
    assert value == measured(sigma) == pytest.approx(34.0, abs=1e-9)
    assert len(steps) < 10


def test_a_value_out_of_reach_is_refused_and_changes_nothing(editor):
    before = editor.state
    with pytest.raises(ValueError, match=r"nose\.width cannot reach 90 mm .* within 6 standard deviations"):
        editor.set_exact("nose.width", 90)
    assert editor.state is before


def test_measuring_needs_landmarks(editor, decoder, controllers):
    blind = FaceEditor(editor.state, decoder, controllers)
    assert editor.can_measure
    assert not blind.can_measure
    blind.set("nose.width", 1)
    with pytest.raises(ValueError, match="landmarks=MeasurementLandmarks"):
        blind.set_exact("nose.width", 36)


def test_offsets_reach_the_decoder(face, decoder, controllers):
    latents = controllers.base_latents()
    offsets = decoder.place(latents["rest"])
    placed = FaceEditor(FaceState.create(latents, offsets), decoder, controllers).vertices()
    np.testing.assert_array_equal(placed, FaceEditor(FaceState.create(latents), decoder, controllers).vertices())
    offsets[PARTS.index("nose")] += (3.0, -1.0)
    moved = FaceEditor(FaceState.create(latents, offsets), decoder, controllers).vertices() - placed
    np.testing.assert_allclose(moved[face.labels == 4], np.broadcast_to([0, 3.0, -1.0], (331, 3)), atol=1e-9)
    np.testing.assert_array_equal(moved[face.labels != 4], 0)


def test_json_round_trip_gives_bit_identical_vertices(editor, bent_decoder, controllers, points):
    editor.randomise(5, 0.8)
    again = FaceEditor.from_json(editor.to_json(), bent_decoder, controllers, points)
    np.testing.assert_array_equal(again.vertices(), editor.vertices())
    assert again.state == editor.state


def test_wrong_edits_are_refused_in_one_line(editor, decoder, controllers):
    for call, message in [
        (lambda: editor.set("nose.widht", 1), r"unknown control 'nose.widht': did you mean nose\.width"),
        (lambda: editor.set("zzz", 1), "it must be one of eyebrows.front_thickness"),
        (lambda: editor.set("nose.width", 7), "nose.width is 7 standard deviations: use -6 to 6"),
        (lambda: editor.set("nose.width", float("nan")), "nose.width is nan"),
        (lambda: editor.reset("chin"), "no controllers for region 'chin'"),
        (lambda: editor.randomise(0, -1), "strength is -1"),
        (lambda: editor.randomise(0, 1, regions=["chin"]), "unknown region 'chin': use eyebrows, eyes"),
        (lambda: editor.copy_part(editor.state, "chin"), "unknown region 'chin'"),
        (lambda: editor.restore("chin"), "unknown region 'chin'"),
        (lambda: editor.blend_with(editor.state, 1.5), r"weight is 1\.5: use 0 \(this face\) to 1"),
        (lambda: editor.blend_with(editor.state, float("nan")), "weight is nan"),
        (lambda: editor.move_part("rest", 1, 0), "unknown part 'rest': use eyebrows, eyes"),
        (lambda: editor.move_part("nose", 31, 0), "nose moved 31 mm up: use -30 to 30"),
        (lambda: editor.move_part("nose", 0, float("nan")), "nose moved nan mm forward"),
        (lambda: editor.vertices(FaceState.create({"nose": [1.0]})), "the face has no latents of eyebrows"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not editor.undo(), "a refused edit leaves no trace"
    state = FaceState.create(controllers.base_latents(), controls={"nose.colour": 1.0})
    with pytest.raises(ValueError, match=r"unknown control 'nose\.colour'"):
        FaceEditor(state, decoder, controllers)
    short = FaceState.create({**controllers.base_latents(), "nose": np.zeros(4)})
    with pytest.raises(ValueError, match="latents of nose have length 4, the model's have 9"):
        FaceEditor(short, decoder, controllers)
    with pytest.raises(ValueError, match="latents of nose have length 4, the model's have 9"):
        editor.copy_part(short, "eyes")


def test_a_decoder_that_returns_nan_is_caught(editor, decoder, controllers):
    broken = FaceEditor(editor.state, replace(decoder, blend=lambda composed, rest: composed * np.nan), controllers)
    with pytest.raises(ValueError, match="not finite"):
        broken.vertices()


def test_morphs_are_exact_for_a_linear_face_and_tell_their_error_for_a_bent_one(editor, decoder, controllers):
    names = ["nose.width", "rest.facial_height"]
    straight = FaceEditor(editor.state, decoder, controllers)
    linear, bent = control_morphs(straight, names), control_morphs(editor, names)
    assert list(linear.deltas) == ["id_nose_width", "id_rest_facial_height"]
    moved = straight.build({"nose.width": 2.0}) - straight.vertices()
    np.testing.assert_allclose(2 * linear.deltas["id_nose_width"], moved, atol=1e-5)
    assert linear.max_error_mm["id_nose_width"] < 1e-9 < 1e-3 < bent.max_error_mm["id_nose_width"]
    ends = [editor.build({"nose.width": s}) - editor.vertices() - s * bent.deltas["id_nose_width"] for s in (-3, 3)]
    worst = max(np.linalg.norm(end, axis=1).max() for end in ends)
    assert bent.max_error_mm["id_nose_width"] == pytest.approx(worst, abs=1e-5)


@pytest.mark.parametrize("centre", [4.0, 5.5, 6.0, -6.0])
def test_morphs_of_a_control_far_out_use_the_range_that_is_left(centre, editor):
    editor.set("nose.width", centre)
    morphs = control_morphs(editor, ["nose.width"])
    delta, (low, high) = morphs.deltas["id_nose_width"], morphs.range_sigma["id_nose_width"]
    assert (low, high) == (max(-3, -6 - centre), min(3, 6 - centre))
    ends = [editor.build({"nose.width": centre + s}) - editor.vertices() - s * delta for s in (low, high)]
    worst = max(np.linalg.norm(end, axis=1).max() for end in ends)
    assert morphs.max_error_mm["id_nose_width"] == pytest.approx(worst, abs=1e-5)
    moved = editor.build({"nose.width": centre - np.sign(centre)}) - editor.vertices()
    np.testing.assert_allclose(-np.sign(centre) * delta, moved, atol=0.1 * np.abs(moved).max())
    assert np.abs(moved).max() > 0.1
