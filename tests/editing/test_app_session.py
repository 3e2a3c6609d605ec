import json
from dataclasses import replace

import numpy as np
import pytest

from editing import FaceEditor, FaceState, export_ply, part_colours
from editing.app import EditableFaces
from editing.app.session import HEAT, PARTS, PHOTO, SKIN, TRANSITION, EditSession


@pytest.fixture
def faces(face, decoder, controllers, points):
    state = FaceState.create(controllers.base_latents(), offsets=np.zeros((5, 2)))

    def open_face(text):
        opened = state if text is None else FaceState.from_json(text)
        return FaceEditor(opened, decoder, controllers, points)

    def export(editor, path):
        export_ply(path, editor.vertices(), face.faces, labels=face.labels)

    near = np.abs(face.vertices[:, 0]) < 30
    return EditableFaces(open_face, face.faces, face.labels, transition=near, export=export, formats=(".ply",))


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def session(faces, clock):
    return EditSession(faces, lambda: clock[0])


def test_a_drag_of_a_slider_is_one_step_back(session, clock):
    for sigma in (0.1, 0.2, 0.3):
        session.set("nose.width", sigma)
        clock[0] += 0.1
    dragged = session.editor.vertices()
    session.edit(lambda editor: editor.undo())
    assert not session.editor.state.controls
    np.testing.assert_array_equal(session.editor.vertices(), session.start)
    session.edit(lambda editor: editor.redo())
    np.testing.assert_array_equal(session.editor.vertices(), dragged)


def test_two_drags_are_two_steps_back(session, clock):
    session.set("nose.width", 0.1)
    clock[0] += 5
    session.set("nose.width", 0.2)
    session.set("nose.height", 1.0)
    for expected in ({"nose.width": 0.2}, {"nose.width": 0.1}, {}):
        session.edit(lambda editor: editor.undo())
        assert dict(session.editor.state.controls) == expected


def test_a_drag_that_comes_back_or_follows_an_undo_takes_nothing_with_it(session):
    session.set("nose.height", 1.0)
    session.set("nose.width", 0.5)
    session.set("nose.width", 0.0)
    session.set("nose.width", 0.7)
    session.edit(lambda editor: editor.undo())
    assert dict(session.editor.state.controls) == {"nose.height": 1.0}
    session.set("nose.width", 0.2)
    session.edit(lambda editor: editor.undo())
    assert dict(session.editor.state.controls) == {"nose.height": 1.0}


def test_a_refused_value_in_a_drag_leaves_the_one_before(session):
    session.set("nose.width", 0.5)
    with pytest.raises(ValueError, match="use -6 to 6"):
        session.set("nose.width", 60.0)
    assert dict(session.editor.state.controls) == {"nose.width": 0.5}


def test_every_view_has_its_colours(session, face):
    assert session.views == (SKIN, PARTS, TRANSITION, HEAT)
    assert session.picture().colours is None
    session.view = PARTS
    np.testing.assert_array_equal(session.picture().colours, part_colours(face.labels))
    session.view = TRANSITION
    assert (session.picture().colours != part_colours(face.labels)).any()
    assert session.picture().legend_mm is None


def test_the_heat_map_shows_where_the_face_has_moved(session, face):
    session.set("nose.width", 2.0)
    session.view = HEAT
    picture = session.picture()
    moved = np.linalg.norm(session.editor.vertices() - session.start, axis=1)
    hot = (picture.colours != part_colours([1])[0]).any(axis=1)
    assert moved.max() <= picture.legend_mm <= 5 * moved.max()
    assert set(face.labels[hot]) == {4}
    assert picture.colours[moved.argmax()].sum() == picture.colours.sum(axis=1).min()


def test_comparing_shows_the_start_and_keeps_the_edits(session):
    session.set("nose.width", 2.0)
    session.comparing = True
    assert session.picture().vertices is session.start
    session.view = HEAT
    assert len(np.unique(session.picture().colours, axis=0)) == 1
    session.comparing = False
    np.testing.assert_array_equal(session.picture().vertices, session.editor.vertices())


def test_a_saved_face_loads_as_the_same_face_in_another_tab(session, faces):
    session.set("nose.width", 1.5)
    other = EditSession(faces)
    assert not other.editor.state.controls
    other.load(session.save())
    np.testing.assert_array_equal(other.editor.vertices(), session.editor.vertices())
    np.testing.assert_array_equal(other.start, session.editor.vertices())
    assert other.read(session.save()).controls == {"nose.width": 1.5}


def test_saving_hands_on_the_text_the_face_came_from(faces):
    kept = EditSession(replace(faces, save=lambda editor, text: json.dumps([dict(editor.state.controls), text])))
    assert json.loads(kept.save()) == [{}, None]
    text = FaceState.from_json(faces.open(None).to_json()).to_json()
    kept.load(text.encode())
    kept.set("nose.width", 1.0)
    assert json.loads(kept.save()) == [{"nose.width": 1.0}, text]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "it is not text"), (b"v 1 2 3", "not a face file"), (b"{}", "its format")],
)
def test_a_file_that_is_no_face_changes_nothing(session, content, message):
    session.set("nose.width", 1.0)
    with pytest.raises(ValueError, match=message):
        session.load(content)
    assert dict(session.editor.state.controls) == {"nose.width": 1.0}


def test_export_gives_the_file_and_refuses_other_formats(session, faces):
    assert session.export(".ply").startswith(b"ply\nformat binary_little_endian")
    with pytest.raises(ValueError, match=r"cannot export \.fbx: the formats are \.ply"):
        session.export(".fbx")
    with pytest.raises(ValueError, match="the formats are none"):
        EditSession(replace(faces, export=None)).export(".ply")


def test_moving_a_part_is_a_drag_too(session, face):
    for dy in (0.5, 1.0, 1.5):
        session.move("nose", dy, -1.0)
    moved = session.editor.vertices() - session.start
    np.testing.assert_allclose(moved[face.labels == 4], np.broadcast_to([0, 1.5, -1.0], (331, 3)), atol=1e-9)
    session.edit(lambda editor: editor.undo())
    np.testing.assert_array_equal(session.editor.vertices(), session.start)


def test_the_photo_is_shown_on_its_own_face_only(faces, face):
    assert "Photo" not in EditSession(faces).views
    photo = np.arange(face.vertices.size, dtype=np.uint8).reshape(-1, 3)
    session = EditSession(replace(faces, photo=photo))
    session.view = PHOTO
    np.testing.assert_array_equal(session.picture().colours, photo)
    session.load(session.save())
    assert session.picture().colours is None


def test_faces_that_do_not_fit_together_are_refused(faces):
    with pytest.raises(ValueError, match=r"transition has shape \(3,\): expected"):
        replace(faces, transition=np.zeros(3, bool))
    with pytest.raises(ValueError, match="the mesh has 3 vertices"):
        replace(faces, labels=np.ones(3, int), transition=None)
