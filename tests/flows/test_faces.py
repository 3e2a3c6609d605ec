"""Editable faces of a run: ``face.json``, what editing moves, and the files for other programs."""

import json
from dataclasses import replace

import numpy as np
import pygltflib
import pytest
import torch
from typer.testing import CliRunner

from editing import ResponseMatrix
from flows import cli
from flows.contracts import REGIONS
from flows.controller_table import read_controllers, write_controllers
from flows.errors import UserError
from flows.face_editor import editor_of
from flows.face_file import export_face, named_controls, read_face, state_of
from flows.face_texture import textured
from flows.run_model import Pose, load_controllers, load_part_face_model
from flows.tables import read_table


@pytest.fixture(scope="module")
def model(tiny_run):
    return load_part_face_model(
        {stage: tiny_run.output(stage) for stage in ("build_dataset", "train_segments", "learn_modes")}
    )


@pytest.fixture(scope="module")
def controllers(tiny_run, model):
    return load_controllers({"fit_controllers": tiny_run.output("fit_controllers")}, model)


@pytest.fixture(scope="module")
def stored(tiny_run):
    return read_face(tiny_run.output("evaluate") / "face.json")


@pytest.fixture
def editor(model, controllers, stored):
    return editor_of(model, stored.state, *controllers)


def shapes_of(run):
    return read_table(sorted(run.output("fit_photos").glob("shapes-*.parquet")), "shapes")


def without(text, field):
    """A JSON object's text without one of its fields."""
    return json.dumps({key: value for key, value in json.loads(text).items() if key != field})


def read_glb(path):
    """glTF document, vertices (V, 3), triangles (F, 3) and the names of the morph targets."""
    document = pygltflib.GLTF2().load(str(path))
    (mesh,) = document.meshes
    (primitive,) = mesh.primitives

    def values(index, dtype):
        accessor = document.accessors[index]
        view = document.bufferViews[accessor.bufferView]
        return np.frombuffer(document.binary_blob()[view.byteOffset :][: view.byteLength], dtype)

    vertices = values(primitive.attributes.POSITION, "<f4").reshape(-1, 3)
    triangles = values(primitive.indices, "<u2").reshape(-1, 3)
    assert len(primitive.targets) == len(mesh.weights) == len(mesh.extras["targetNames"])
    return document, vertices, triangles, mesh.extras["targetNames"]


def test_a_face_reads_back_as_it_was_written(stored, tmp_path):
    again = read_face(stored.write(tmp_path / "face.json"))
    assert (again.name, again.topology, again.run) == (stored.name, stored.topology, stored.run)
    assert again.state.controls == stored.state.controls
    assert list(again.state.latents) == list(REGIONS)
    for region in REGIONS:
        np.testing.assert_array_equal(again.state.latents[region], stored.state.latents[region])
    np.testing.assert_array_equal(again.state.offsets, stored.state.offsets)
    for found, wanted in zip(vars(again.pose).values(), vars(stored.pose).values(), strict=True):
        assert torch.equal(found, wanted)


def test_the_example_is_the_first_fitted_face(stored, editor, tiny_run):
    shapes = shapes_of(tiny_run)
    assert stored.name == shapes["face_id"][0]
    assert stored.state.controls, "the fit moved controls, and they stay editable"
    np.testing.assert_allclose(editor.vertices(), shapes["vertices"][0], atol=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:200], "cannot read face .*not a face file"),
        (lambda text: text.replace("neo3df-face", "cube"), "cannot read face .*its format must be 'neo3df-face'"),
        (lambda text: without(text, "pose"), "lacks 'pose': give a face.json written by neo3df"),
        (lambda text: without(text, "topology_hash"), "lacks 'topology_hash'"),
        (lambda text: text.replace('"pose"', '"place"'), "cannot read face .*unknown field 'place'"),
    ],
)
def test_what_is_no_face_is_refused_in_one_line(change, message, stored, tmp_path):
    path = stored.write(tmp_path / "face.json")
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        read_face(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read face"):
        read_face(tmp_path / "absent.json")


def test_a_nose_edit_leaves_everything_outside_nose_and_transition_area_bit_identical(editor, model):
    before = editor.vertices().copy()
    editor.set("nose.width", editor.get("nose.width") + 2)
    moved = (editor.vertices() != before).any(1)
    may_move = np.zeros(len(before), bool)
    may_move[model.segments.layout.vertices("nose")] = True
    area = model.blender.area
    may_move[area.vertex_ids[area.free]] = True
    assert not moved[~may_move].any()
    assert (~may_move).sum() > 300
    nose = model.segments.layout.core("nose")
    assert moved[nose].mean() > 0.9
    assert moved[area.vertex_ids[area.free]].any(), "the skin around the nose follows"
    editor.undo()
    np.testing.assert_array_equal(editor.vertices(), before)


def test_an_edit_of_the_rest_carries_the_parts_along(editor, model):
    before = editor.vertices().copy()
    editor.set("rest.mandibular_width", 3.0)
    nose = model.segments.layout.core("nose")
    shift = (editor.vertices() - before)[nose]
    assert np.ptp(shift, axis=0).max() < 1e-3, "a part that is carried along keeps its shape"
    assert np.abs(shift).max() > 1e-4


def test_controls_of_a_fit_are_named_in_the_order_of_the_parts(controllers):
    names = named_controls(controllers[0], np.arange(22.0))
    assert list(names.values()) == list(range(22))
    assert next(iter(names)).startswith("eyebrows.")
    assert list(names)[-1].startswith("lower_lip.")
    with pytest.raises(ValueError, match="zip"):
        named_controls(controllers[0], np.zeros(21))


def test_controllers_come_back_from_their_table_exactly(tiny_run, controllers, tmp_path):
    stored = controllers[0]

    names = tuple(f"{region}.{name}" for region, fitted in stored.regions.items() for name in fitted.names)
    write_controllers(tmp_path, stored, ResponseMatrix(names, np.eye(30) + 0.25, 1.0), "t")
    sizes = {region: len(fitted.mean_latent) for region, fitted in stored.regions.items()}
    again = read_controllers(tmp_path, sizes)
    assert list(again.regions) == list(stored.regions)
    for region, fitted in stored.regions.items():
        found = vars(again.regions[region])
        assert found["names"] == fitted.names
        assert len(found["collinear"]) == len(fitted.collinear)
        for (a, b, r), (a2, b2, r2) in zip(fitted.collinear, found["collinear"], strict=True):
            assert (a, b) == (a2, b2)
            assert r == pytest.approx(r2, abs=1e-4)
        for key in ("matrix", "sigma", "mean_measurement", "mean_latent"):
            np.testing.assert_array_equal(found[key], vars(fitted)[key])
    longer = read_controllers(tmp_path, {region: size + 3 for region, size in sizes.items()})
    for region, fitted in stored.regions.items():
        np.testing.assert_array_equal(longer.regions[region].matrix[:, : sizes[region]], fitted.matrix)
        assert not longer.regions[region].matrix[:, sizes[region] :].any()
    table = read_table(tmp_path / "controllers.parquet", "controllers", topology_hash="t")
    assert len(table["name"]) == 30
    assert set(table["unit"]) == {"mm"}
    np.testing.assert_array_equal(table["response"], np.full(30, 1.25))
    np.testing.assert_array_equal(table["leak"], np.full(30, 0.25))


def test_glb_of_the_run_has_thirty_named_morph_targets_in_metres(tiny_run, model, controllers, editor):
    document, vertices, triangles, names = read_glb(tiny_run.output("evaluate") / "face.glb")
    controls = [f"id_{name.replace('.', '_')}" for name in editor.names]
    assert len(set(controls)) == 30
    expressions = ["smile", "blinkLeft", "blinkRight", "jawOpen", "browRaise", "browLower", "pucker", "mouthFrown"]
    assert names == [*controls, *expressions]
    assert document.asset.extras["morph_families"] == {"controls": controls, "expressions": expressions}
    assert document.asset.extras["morph_unit"] == {"controls": "1 = 1 sigma", "expressions": "1 = full"}
    np.testing.assert_allclose(vertices, editor.vertices() / 1000, atol=1e-7)
    assert 0.1 < np.ptp(vertices[:, 1]) < 0.4, "a face is some 20 cm high"
    np.testing.assert_array_equal(triangles, model.face_model.faces)
    assert document.asset.extras["unit"] == "metre"
    assert set(document.asset.extras["morph_max_error_mm_at_3_sigma"]) == set(controls)
    assert set(document.asset.extras["morph_range_sigma"]) == set(controls)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_export_command_writes_the_face(suffix, tiny_run, model, editor, tmp_path):
    source, target = tiny_run.output("evaluate") / "face.json", tmp_path / f"face{suffix}"
    done = CliRunner().invoke(cli.app, ["export", str(source), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert str(target) in done.output.replace("\n", "")
    if suffix == ".glb":
        vertices, triangles = (read_glb(target)[i] for i in (1, 2))
        vertices = vertices * 1000
    elif suffix == ".obj":
        lines = [line.split() for line in target.read_text().splitlines() if line]
        vertices = np.array([line[1:4] for line in lines if line[0] == "v"], float)
        triangles = (
            np.array([[corner.split("/")[0] for corner in line[1:]] for line in lines if line[0] == "f"], int) - 1
        )
    else:
        header, _, body = target.read_bytes().partition(b"end_header\n")
        assert f"element vertex {len(editor.vertices())}".encode() in header
        assert b"binary_little_endian" in header
        stride = sum({b"float": 4, b"uchar": 1, b"int": 4}[line.split()[1]] for line in _vertex_properties(header))
        rows = np.frombuffer(body, np.uint8, stride * len(editor.vertices())).reshape(-1, stride)
        vertices, triangles = rows[:, :12].copy().view("<f4"), None
    np.testing.assert_allclose(vertices, editor.vertices(), atol=1e-3)
    if triangles is not None:
        assert {tuple(sorted(t)) for t in triangles.tolist()} == {
            tuple(sorted(t)) for t in model.face_model.faces.tolist()
        }


def _vertex_properties(header):
    """The property lines of the vertices in a PLY header."""
    lines = header.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(b"element vertex")) + 1
    end = next(i for i, line in enumerate(lines) if line.startswith(b"element face"))
    return lines[first:end]


def test_export_refuses_another_topology_another_ending_and_a_lost_run(stored, tmp_path):
    other = replace(stored, topology="0" * 64).write(tmp_path / "other.json")
    with pytest.raises(UserError, match=r"other\.json belongs to topology 000000000000, run .* has [0-9a-f]{12}"):
        export_face(other, tmp_path / "face.glb")
    face = stored.write(tmp_path / "face.json")
    with pytest.raises(UserError, match=r"cannot write face\.fbx: the ending must be \.obj, \.ply, \.glb or \.stl"):
        export_face(face, tmp_path / "face.fbx")
    lost = replace(stored, run=tmp_path / "nowhere").write(tmp_path / "lost.json")
    with pytest.raises(UserError, match=r"nowhere is not a run folder: no run\.json"):
        export_face(lost, tmp_path / "face.glb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.json", "lost.json", "other.json"]


def test_export_keeps_the_texture_beside_the_face_and_closes_the_print(stored, model, tmp_path):
    texture = textured(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8), model.face_model.uv)
    texture.write(tmp_path)
    face = stored.write(tmp_path / "face.json")
    document = read_glb(export_face(face, tmp_path / "face.glb"))[0]
    assert len(document.images) == 1
    export_face(face, tmp_path / "face.obj")
    assert "map_Kd face.png" in (tmp_path / "face.mtl").read_text()
    assert (tmp_path / "face.png").exists()
    header = export_face(face, tmp_path / "face.ply").read_bytes().partition(b"end_header")[0]
    assert b"uchar red" in header
    trimesh = pytest.importorskip("trimesh", reason="trimesh is a development check only")
    printed = trimesh.load(export_face(face, tmp_path / "face.stl"))
    assert printed.is_watertight
    assert printed.volume > 0


def test_faces_are_taken_apart_and_put_together_again(model, tiny_run):
    vertices = torch.from_numpy(model.face_model.shape(model.face_model.sample(3, 7)))
    with torch.no_grad():
        face = model.encode(vertices)
        again = model.neutral(face, model.blender)
    error = (again - vertices).norm(dim=-1).mean()
    spread = (vertices - torch.from_numpy(model.face_model.mean)).norm(dim=-1).mean()
    assert error < 0.5 * spread
    alone = model.neutral(face.rows(slice(1, 2)), model.blender)
    assert torch.allclose(again[1:2], alone, atol=1e-4)
    state = state_of(face, {"nose.width": 1.0, "eyes.width": 0.0}, row=2)
    assert state.controls == {"nose.width": 1.0}
    np.testing.assert_array_equal(state.latents["rest"], face.latents["rest"][2])
    pose = Pose(torch.zeros(3, model.face_model.ex_basis.shape[2]), torch.zeros(3, 3), torch.ones(3, 3))
    assert torch.allclose(model.posed(vertices, pose), vertices + 1)


def test_the_face_file_is_plain_json_with_units(stored, tmp_path):
    content = json.loads(stored.write(tmp_path / "face.json").read_text())
    assert set(content["offsets"]) == {"eyebrows", "eyes", "nose", "upper_lip", "lower_lip"}
    assert set(content["pose"]) == {"expression", "angles_rad", "translation_mm"}
    assert "mm" in content["units"]["offsets"]
