import json

import numpy as np
import pytest

from flows.edit import RunFaces
from flows.errors import UserError
from flows.face_file import export_face, read_face


@pytest.fixture(scope="module")
def faces(tiny_run):
    return RunFaces(tiny_run.folder)


@pytest.fixture
def edited(faces):
    editor = faces.open(None)
    editor.set("nose.width", 1.0)
    return editor


def saved(faces, editor, path, **changes):
    path.write_text(json.dumps(json.loads(faces.save(editor, None)) | changes))
    return path


def test_without_a_file_a_tab_starts_with_the_mean_face(faces):
    editor = faces.open(None)
    for region, latent in faces.controllers.base_latents().items():
        np.testing.assert_array_equal(editor.state.latents[region], latent)
    assert editor.can_measure
    assert faces.editable().title == "neo3df: mean face"
    assert faces.open(None) is not editor


def test_a_saved_face_opens_and_exports_as_any_other(faces, edited, tmp_path):
    path = saved(faces, edited, tmp_path / "face.json")
    assert read_face(path).run == faces.run_dir
    np.testing.assert_array_equal(faces.open(path.read_text()).vertices(), edited.vertices())
    written = np.loadtxt(line[2:] for line in export_face(path, tmp_path / "f.obj").open() if line[:2] == "v ")
    np.testing.assert_allclose(written[:, :3], edited.vertices(), atol=1e-3)


def test_the_editor_starts_with_a_face_file_and_keeps_its_name_and_pose(faces, edited, tmp_path):
    pose = json.loads(faces.save(edited, None))["pose"] | {"angles_rad": [0.1, 0.2, 0.3]}
    path = saved(faces, edited, tmp_path / "face.json", name="somebody", pose=pose)
    again = RunFaces(faces.run_dir, path)
    editor = again.open(None)
    np.testing.assert_array_equal(editor.vertices(), edited.vertices())
    editor.set("nose.width", 0.0)
    kept = json.loads(again.save(editor, None))
    assert (kept["name"], kept["controls"]) == ("somebody", {})
    np.testing.assert_allclose(kept["pose"]["angles_rad"], [0.1, 0.2, 0.3], atol=1e-6)
    loaded = json.loads(faces.save(editor, path.read_text()))
    assert (loaded["name"], loaded["controls"]) == ("somebody", {})


def test_faces_of_another_run_are_refused_in_one_line(faces, edited, tmp_path):
    for changes, message in [
        ({"topology_hash": "0" * 64}, "topology 000000000000, this run has"),
        ({"run": "/somewhere/else"}, "belongs to run /somewhere/else"),
        ({"latents": {"nose": [1.0]}}, "no latents of"),
    ]:
        path = saved(faces, edited, tmp_path / "face.json", **changes)
        with pytest.raises(ValueError, match=message):
            faces.open(path.read_text())
    path = saved(faces, edited, tmp_path / "face.json", topology_hash="0" * 64)
    with pytest.raises(UserError, match="belongs to topology 000000000000"):
        RunFaces(faces.run_dir, path)


def test_the_page_is_told_what_blending_moves_and_every_format_is_written(faces, edited, tmp_path):
    editable = faces.editable()
    labels = np.asarray(editable.labels)
    assert editable.transition.any()
    assert set(labels[editable.transition]) == {1}
    for ending in editable.formats:
        path = tmp_path / f"face{ending}"
        editable.export(edited, path)
        assert path.stat().st_size > 10_000
