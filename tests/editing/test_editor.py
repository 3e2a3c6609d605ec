import json
from itertools import permutations

import numpy as np
import pytest

from editing import PARTS, FaceEditor, FaceState, control_morphs

EDITS = [("nose.width", 1.5), ("rest.facial_height", -2.0), ("eyes.eye_height", 0.7), ("nose.height", -1.0)]


@pytest.fixture
def editor(face, controllers, points):
    def bent_blend(composed, rest):
        """A blend that is not linear: bends what lies off the template, and mixes in a little of rest."""
        off = 0.9 * composed + 0.1 * rest - face.vertices
        return face.vertices + off + 0.02 * off * np.abs(off)

    state = FaceState.create(controllers.base_latents(), offsets=np.zeros((5, 2)))
    return FaceEditor(state, face.decode, bent_blend, controllers, points)


def test_order_of_edits_does_not_matter(editor, face, controllers, points):
    results = []
    for order in permutations(EDITS):
        editor.reset()
        for name, sigma in order:
            editor.set(name, sigma)
        results.append(editor.vertices())
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


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
    editor.set("nose.width", 1)
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


@pytest.mark.parametrize("name", ["nose.width", "rest.facial_height", "eyes.eye_height", "upper_lip.height"])
def test_exact_value_is_reached_through_a_bent_blend(editor, name):
    editor.set("nose.height", 1.0)
    wanted = editor.measurements()[name] + 0.4
    sigma = editor.set_exact(name, wanted, tolerance_mm=1e-4)
    assert editor.measurements()[name] == pytest.approx(wanted, abs=1e-4)
    assert editor.get(name) == sigma
    assert editor.get("nose.height") == 1.0


def test_a_value_out_of_reach_is_refused_and_changes_nothing(editor):
    before = editor.state
    with pytest.raises(ValueError, match=r"nose\.width cannot reach 90 mm .* within 6 standard deviations"):
        editor.set_exact("nose.width", 90)
    assert editor.state is before


def test_measuring_needs_landmarks(editor, face, controllers):
    blind = FaceEditor(editor.state, face.decode, lambda composed, rest: composed, controllers)
    blind.set("nose.width", 1)
    with pytest.raises(ValueError, match="landmarks=MeasurementLandmarks"):
        blind.set_exact("nose.width", 36)


def test_offsets_reach_the_decoder(face, controllers):
    offsets = np.zeros((5, 2))
    offsets[PARTS.index("nose")] = (3.0, -1.0)
    at = {}
    for name, given in {"default": None, "moved": offsets}.items():
        state = FaceState.create(controllers.base_latents(), given)
        at[name] = FaceEditor(state, face.decode, lambda composed, rest: composed, controllers).vertices()
    moved = at["moved"] - at["default"]
    np.testing.assert_allclose(moved[face.labels == 4], np.broadcast_to([0, 3.0, -1.0], (331, 3)), atol=1e-9)
    np.testing.assert_array_equal(moved[face.labels != 4], 0)


def test_json_round_trip_gives_bit_identical_vertices(editor, face, controllers, points):
    editor.randomise(5, 0.8)
    again = FaceEditor.from_json(editor.to_json(), face.decode, editor._blend, controllers, points)
    np.testing.assert_array_equal(again.vertices(), editor.vertices())
    assert json.loads(editor.to_json())["version"] == 1


def test_state_is_a_read_only_copy():
    z = np.zeros(4)
    state = FaceState.create({"nose": z})
    z[0] = 5
    assert state.latents["nose"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        state.latents["nose"][0] = 1
    assert FaceState.from_json(state.to_json()).offsets is None


def test_wrong_face_files_are_refused_in_one_line():
    good = json.loads(FaceState.create({"nose": np.zeros(4)}, np.zeros((5, 2)), {"nose.width": 1.0}).to_json())
    for change, message in [
        ({"format": "obj"}, "its format must be 'neo3df-face'"),
        ({"version": 2}, "version 2: this program reads version 1"),
        ({"latents": {"chin": [1.0]}}, r"unknown regions \['chin'\]"),
        ({"latents": {"nose": [[1.0]]}}, r"latents of nose have shape \(1, 1\)"),
        ({"latents": {"nose": [float("nan")]}}, "latents of nose are not finite"),
        ({"controls": {"eyes.eye_height": 1}}, "belongs to no region of this face"),
        ({"controls": {"nose.width": float("inf")}}, "must be a finite number"),
        ({"offsets": {"nose": [0, 0]}}, r"offsets of \['nose'\]"),
        ({"offsets": {part: [0] for part in PARTS}}, r"offsets have shape \(5, 1\)"),
        ({"offsets": {part: [0, float("nan")] for part in PARTS}}, "offsets are not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            FaceState.from_json(json.dumps({**good, **change}))
    with pytest.raises(ValueError, match="not a face file"):
        FaceState.from_json("v 1 2 3")
    del good["controls"]
    with pytest.raises(ValueError, match="lacks controls"):
        FaceState.from_json(json.dumps(good))


def test_wrong_edits_are_refused_in_one_line(editor, face, controllers):
    for call, message in [
        (lambda: editor.set("nose.widht", 1), r"unknown control 'nose.widht': did you mean nose\.width"),
        (lambda: editor.set("zzz", 1), "it must be one of eyebrows.front_thickness"),
        (lambda: editor.set("nose.width", 7), "nose.width is 7 standard deviations: use -6 to 6"),
        (lambda: editor.set("nose.width", float("nan")), "nose.width is nan"),
        (lambda: editor.reset("chin"), "no controllers for region 'chin'"),
        (lambda: editor.randomise(0, -1), "strength is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    state = FaceState.create(controllers.base_latents(), controls={"nose.colour": 1.0})
    with pytest.raises(ValueError, match=r"unknown control 'nose\.colour'"):
        FaceEditor(state, face.decode, editor._blend, controllers)


def test_a_decoder_that_returns_nan_is_caught(editor, face, controllers):
    broken = FaceEditor(editor.state, face.decode, lambda composed, rest: composed * np.nan, controllers)
    with pytest.raises(ValueError, match="not finite"):
        broken.vertices()


def test_morphs_are_exact_for_a_linear_face_and_tell_their_error_for_a_bent_one(editor, face, controllers):
    names = ["nose.width", "rest.facial_height"]
    straight = FaceEditor(editor.state, face.decode, lambda composed, rest: composed, controllers)
    linear, bent = control_morphs(straight, names), control_morphs(editor, names)
    assert list(linear.deltas) == ["id_nose_width", "id_rest_facial_height"]
    moved = straight.build({"nose.width": 2.0}) - straight.vertices()
    np.testing.assert_allclose(2 * linear.deltas["id_nose_width"], moved, atol=1e-5)
    assert linear.max_error_mm["id_nose_width"] < 1e-9 < 1e-3 < bent.max_error_mm["id_nose_width"]
    ends = [editor.build({"nose.width": s}) - editor.vertices() - s * bent.deltas["id_nose_width"] for s in (-3, 3)]
    worst = max(np.linalg.norm(end, axis=1).max() for end in ends)
    assert bent.max_error_mm["id_nose_width"] == pytest.approx(worst, abs=1e-5)


def test_morphs_of_a_control_far_out_are_refused(editor):
    editor.set("nose.width", 4)
    with pytest.raises(ValueError, match=r"nose\.width is at 4: morphs need it within 3 of 0"):
        control_morphs(editor, ["nose.width"])
