import json

import numpy as np
import pytest

from editing import PARTS, FaceState


def test_state_is_a_read_only_copy():
    z = np.zeros(4)
    state = FaceState.create({"nose": z})
    z[0] = 5
    assert state.latents["nose"][0] == 0
    with pytest.raises(ValueError, match="read-only"):
        state.latents["nose"][0] = 1
    assert FaceState.from_json(state.to_json()) == state


def test_fields_of_another_program_are_passed_over_when_it_names_them():
    state = FaceState.create({"nose": np.zeros(4)})
    text = json.dumps({**json.loads(state.to_json()), "pose": [0, 0, 0]})
    assert FaceState.from_json(text, beside=("pose",)) == state
    with pytest.raises(ValueError, match="unknown field 'pose'"):
        FaceState.from_json(text)


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
        ({"offsets": {part: ["up", 0] for part in PARTS}}, "offsets are not an array of numbers"),
        ({"latents": {"nose": [[1.0], 2.0]}}, "latents of nose are not an array of numbers"),
        ({"latents": [1.0]}, "latents of a face file must be an object"),
        ({"offsets": [1.0]}, "offsets of a face file must be an object"),
        ({"controls": {"nose.width": "wide"}}, "control nose.width is 'wide': it must be a finite number"),
        ({"control": {}}, "unknown field 'control': did you mean controls"),
        ({"hair": {}}, "unknown field 'hair': it may have format, version, units"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            FaceState.from_json(json.dumps({**good, **change}))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="not a face file"):
        FaceState.from_json("v 1 2 3")
    del good["controls"]
    with pytest.raises(ValueError, match="lacks controls"):
        FaceState.from_json(json.dumps(good))


def test_equal_states_have_equal_numbers():
    def state(**changes):
        return FaceState.create(**{"latents": {"nose": [1.0, 2.0]}, "controls": {"nose.width": 1.0}} | changes)

    assert state() == state(controls={"nose.width": 1.0, "nose.height": 0.0})
    for other in (
        state(latents={"nose": [1.0, 2.5]}),
        state(latents={"nose": [1.0, 2.0], "rest": [0.0]}),
        state(controls={}),
        state(offsets=np.zeros((5, 2))),
    ):
        assert other != state()
    assert state(offsets=np.zeros((5, 2))) != state(offsets=np.ones((5, 2)))
    assert state() != "face"
