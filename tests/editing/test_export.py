import io
import json

import numpy as np
import pygltflib
import pytest
from PIL import Image

from editing import LABEL_IDS, PART_COLOURS, REGIONS, export_glb, export_obj, export_ply, face_labels, part_colours

NUMPY = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def read_view(gltf, view_index):
    view = gltf.bufferViews[view_index]
    assert view.byteOffset % 4 == 0
    return gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]


def read_accessor(gltf, index):
    """An accessor as an array, written from the glTF 2.0 specification, sparse ones filled up."""
    accessor = gltf.accessors[index]
    width, kind = WIDTH[accessor.type], NUMPY[accessor.componentType]
    if accessor.bufferView is None:
        values = np.zeros((accessor.count, width), dtype=kind)
    else:
        values = np.frombuffer(read_view(gltf, accessor.bufferView), dtype=kind).reshape(accessor.count, width).copy()
    if accessor.sparse:
        sparse = accessor.sparse
        ids = np.frombuffer(read_view(gltf, sparse.indices.bufferView), dtype=NUMPY[sparse.indices.componentType])
        assert len(ids) == sparse.count
        assert np.all(np.diff(ids.astype(int)) > 0)
        values[ids] = np.frombuffer(read_view(gltf, sparse.values.bufferView), dtype=kind).reshape(-1, width)
    return values


def read_glb(path):
    gltf = pygltflib.GLTF2().load(str(path))
    (mesh,) = gltf.meshes
    (primitive,) = mesh.primitives
    return gltf, mesh, primitive


def local_delta(face):
    delta = np.zeros_like(face.vertices)
    delta[face.labels == LABEL_IDS["nose"]] = [0.5, 0.0, -2.0]
    return delta


def test_glb_holds_the_mesh_in_metres_in_the_same_order(face, tmp_path):
    path = export_glb(tmp_path / "face.glb", face.vertices, face.faces)
    gltf, _, primitive = read_glb(path)
    position = read_accessor(gltf, primitive.attributes.POSITION)
    np.testing.assert_allclose(position, face.vertices / 1000, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(read_accessor(gltf, primitive.indices).reshape(-1, 3), face.faces)
    accessor = gltf.accessors[primitive.attributes.POSITION]
    np.testing.assert_array_equal(accessor.min, position.min(axis=0).astype(float))
    np.testing.assert_array_equal(accessor.max, position.max(axis=0).astype(float))
    assert gltf.asset.extras["unit"] == "metre"
    assert gltf.nodes[gltf.scenes[gltf.scene].nodes[0]].mesh == 0


def test_glb_normals_are_unit_and_face_the_front(face, tmp_path):
    gltf, _, primitive = read_glb(export_glb(tmp_path / "face.glb", face.vertices, face.faces))
    normals = read_accessor(gltf, primitive.attributes.NORMAL)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (normals[:, 2] > 0).all()


def test_normals_of_a_sphere_point_outward(tmp_path):
    octahedron = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    gltf, _, primitive = read_glb(export_glb(tmp_path / "o.glb", octahedron, faces))
    np.testing.assert_allclose(read_accessor(gltf, primitive.attributes.NORMAL), octahedron, atol=1e-6)


def test_glb_colours_are_the_part_colours_in_linear_light(face, tmp_path):
    gltf, _, primitive = read_glb(export_glb(tmp_path / "f.glb", face.vertices, face.faces, labels=face.labels))
    linear = read_accessor(gltf, primitive.attributes.COLOR_0) / 65535
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_array_equal(np.rint(srgb[:, :3] * 255), part_colours(face.labels))
    assert (linear[:, 3] == 1).all()
    assert gltf.accessors[primitive.attributes.COLOR_0].normalized


def test_glb_morph_targets_keep_names_and_movements(face, tmp_path):
    rng = np.random.default_rng(0)
    targets = {
        "id_nose_width": local_delta(face),
        "id_rest_facial_height": rng.normal(0, 1, face.vertices.shape),
        "id_eyes_eye_height": np.zeros_like(face.vertices),
    }
    path = export_glb(tmp_path / "f.glb", face.vertices, face.faces, morph_targets=targets, extras={"errors_mm": [0.1]})
    gltf, mesh, primitive = read_glb(path)
    assert mesh.extras["targetNames"] == list(targets)
    assert mesh.weights == [0, 0, 0]
    assert gltf.asset.extras["errors_mm"] == [0.1]
    for target, delta in zip(primitive.targets, targets.values(), strict=True):
        attributes = target if isinstance(target, dict) else {k: v for k, v in vars(target).items() if v is not None}
        assert sorted(attributes) == ["NORMAL", "POSITION"], "every target has the same attributes"
        read = read_accessor(gltf, attributes["POSITION"])
        np.testing.assert_allclose(read, delta / 1000, rtol=0, atol=1e-8)
        accessor = gltf.accessors[attributes["POSITION"]]
        np.testing.assert_allclose(accessor.min, read.min(axis=0), atol=1e-12)
        np.testing.assert_allclose(accessor.max, read.max(axis=0), atol=1e-12)


def test_normals_turn_with_a_morph_target(face, tmp_path):
    delta = 0.2 * face.vertices * [1, 0, 0] * (face.labels == LABEL_IDS["nose"])[:, None]
    gltf, _, primitive = read_glb(export_glb(tmp_path / "f.glb", face.vertices, face.faces, morph_targets={"a": delta}))
    turned, _, moved = read_glb(export_glb(tmp_path / "g.glb", face.vertices + delta, face.faces))
    wanted = read_accessor(turned, moved.attributes.NORMAL)
    start = read_accessor(gltf, primitive.attributes.NORMAL)
    (target,) = primitive.targets
    index = target["NORMAL"] if isinstance(target, dict) else target.NORMAL
    assert np.abs(wanted - start).max() > 0.05
    np.testing.assert_allclose(start + read_accessor(gltf, index), wanted, atol=0.0101)


def test_local_targets_are_sparse_and_global_ones_are_not(face, tmp_path):
    everywhere = np.random.default_rng(0).normal(size=face.vertices.shape)
    targets = {"local": local_delta(face), "global": everywhere}
    path = export_glb(tmp_path / "f.glb", face.vertices, face.faces, morph_targets=targets)
    gltf = pygltflib.GLTF2().load(str(path))
    sparse = [accessor.sparse for accessor in gltf.accessors if accessor.sparse]
    nose = int((face.labels == LABEL_IDS["nose"]).sum())
    moved, turned = (s.count for s in sparse)
    assert moved == nose
    assert 0 < turned < 2 * nose
    content = path.read_bytes()
    document = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    for local in (accessor for accessor in document["accessors"] if "sparse" in accessor):
        assert not {"bufferView", "byteOffset"} & set(local), "the schema allows byteOffset beside a bufferView only"
    plain = export_glb(tmp_path / "g.glb", face.vertices, face.faces, morph_targets={"global": everywhere})
    assert path.stat().st_size - plain.stat().st_size < 16 * len(face.vertices) * 0.1 + 600


def test_glb_texture_and_flipped_coordinates(face, tmp_path):
    uv = (face.flat[:, :2] + [72, 78]) / [144, 164]
    texture = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    gltf, _, primitive = read_glb(
        export_glb(
            tmp_path / "f.glb", face.vertices, face.faces, uv=uv, texture=texture, morph_targets={"a": face.flat}
        )
    )
    coordinates = read_accessor(gltf, primitive.attributes.TEXCOORD_0)
    np.testing.assert_allclose(coordinates, np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1), atol=1e-6)
    material = gltf.materials[primitive.material]
    image = gltf.images[gltf.textures[material.pbrMetallicRoughness.baseColorTexture.index].source]
    with Image.open(io.BytesIO(read_view(gltf, image.bufferView))) as stored:
        np.testing.assert_array_equal(np.asarray(stored), texture)


def test_large_meshes_get_wide_indices(tmp_path):
    vertices = np.random.default_rng(0).normal(size=(70_000, 3))
    faces = np.array([[0, 1, 69_999]])
    delta = np.zeros_like(vertices)
    delta[69_999] = 1
    gltf, _, primitive = read_glb(export_glb(tmp_path / "f.glb", vertices, faces, morph_targets={"far": delta}))
    np.testing.assert_array_equal(read_accessor(gltf, primitive.indices).ravel(), faces[0])
    assert {a.sparse.indices.componentType for a in gltf.accessors if a.sparse} == {pygltflib.UNSIGNED_INT}


def test_trimesh_reads_the_glb(face, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is a development check only")
    path = export_glb(tmp_path / "f.glb", face.vertices, face.faces, labels=face.labels)
    (mesh,) = trimesh.load(path, process=False).geometry.values()
    np.testing.assert_allclose(mesh.vertices * 1000, face.vertices, atol=1e-4)
    np.testing.assert_array_equal(mesh.faces, face.faces)


def read_obj(path):
    lines = path.read_text().splitlines()
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], dtype=float)
    uv = np.array([line.split()[1:] for line in lines if line.startswith("vt ")], dtype=float)
    group, triangles, groups = None, [], []
    for line in lines:
        if line.startswith("g "):
            group = line.split()[1]
        elif line.startswith("f "):
            triangles.append([[int(i) for i in corner.split("/")] for corner in line.split()[1:]])
            groups.append(group)
    return vertices, uv, np.array(triangles), np.array(groups), lines


def test_obj_counts_from_one_and_keeps_every_bit_of_float32(face, tmp_path):
    single = face.vertices.astype(np.float32)
    vertices, _, triangles, groups, lines = read_obj(export_obj(tmp_path / "f.obj", single, face.faces))
    np.testing.assert_array_equal(vertices.astype(np.float32), single)
    np.testing.assert_array_equal(triangles[:, :, 0] - 1, face.faces)
    assert any(line.startswith("#") and "mm" in line for line in lines)
    assert set(groups) == {"skin"}
    assert [p.name for p in tmp_path.iterdir()] == ["f.obj"]


def test_obj_has_a_group_and_a_material_per_part(face, tmp_path):
    _, _, triangles, groups, lines = read_obj(
        export_obj(tmp_path / "f.obj", face.vertices, face.faces, labels=face.labels)
    )
    owner = face_labels(face.labels, face.faces)
    for region in REGIONS:
        written = triangles[groups == region][:, :, 0] - 1
        np.testing.assert_array_equal(written, face.faces[owner == LABEL_IDS[region]])
    assert "mtllib f.mtl" in lines
    materials = (tmp_path / "f.mtl").read_text()
    red, green, blue = (c / 255 for c in PART_COLOURS["nose"])
    assert f"newmtl nose\nKd {red:.4f} {green:.4f} {blue:.4f}\n" in materials
    assert materials.count("newmtl") == 6


def test_obj_texture_with_coordinates_per_corner(face, tmp_path):
    uv = np.random.default_rng(0).uniform(size=(len(face.vertices) + 5, 2))
    texture = np.full((4, 4, 3), 200, dtype=np.uint8)
    path = export_obj(
        tmp_path / "f.obj", face.vertices, face.faces, uv=uv, uv_faces=face.faces + 5, texture=texture, name="my face"
    )
    _, read_uv, triangles, _, lines = read_obj(path)
    np.testing.assert_allclose(read_uv, uv, atol=1e-8)
    np.testing.assert_array_equal(triangles[:, :, 1] - 1, face.faces + 5)
    assert "o my_face" in lines
    assert "map_Kd f.png" in (tmp_path / "f.mtl").read_text()
    with Image.open(tmp_path / "f.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored), texture)


def test_obj_with_texture_comes_back_from_another_reader(face, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is a development check only")
    uv = (face.flat[:, :2] + [72, 78]) / [144, 164]
    texture = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    path = export_obj(tmp_path / "f.obj", face.vertices, face.faces, uv=uv, texture=texture)
    mesh = trimesh.load(path, process=False)
    np.testing.assert_allclose(mesh.vertices, face.vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, face.faces)
    np.testing.assert_allclose(mesh.visual.uv, uv, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(mesh.visual.material.image), texture)


def test_vertex_colours_reach_obj_and_ply(face, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, face.vertices.shape, dtype=np.uint8)
    lines = export_obj(tmp_path / "f.obj", face.vertices, face.faces, vertex_colours=colours).read_text().splitlines()
    read = np.array([line.split()[4:] for line in lines if line.startswith("v ")], dtype=float)
    np.testing.assert_array_equal(np.rint(255 * read), colours)
    path = export_ply(tmp_path / "f.ply", face.vertices, face.faces, labels=face.labels, vertex_colours=colours)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    assert b"property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar label\n" in header
    rows = np.frombuffer(body, np.uint8, 28 * len(face.vertices)).reshape(-1, 28)
    np.testing.assert_array_equal(rows[:, 24:27], colours)
    np.testing.assert_array_equal(rows[:, 27], face.labels)


def test_triangle_label_is_the_majority_or_rest():
    labels = np.array([4, 4, 5, 2, 1])
    triangles = np.array([[0, 1, 2], [2, 0, 1], [0, 2, 1], [0, 2, 3], [4, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(face_labels(labels, triangles), [4, 4, 4, 1, 4, 4])


@pytest.mark.parametrize("with_labels", [True, False])
def test_ply_is_binary_and_holds_positions_normals_and_labels(face, tmp_path, with_labels):
    path = export_ply(tmp_path / "f.ply", face.vertices, face.faces, labels=face.labels if with_labels else None)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
    assert b"unit mm" in header
    assert (b"property uchar label" in header) == with_labels
    kind = [(axis, "<f4") for axis in ("x", "y", "z", "nx", "ny", "nz")] + [("label", "u1")] * with_labels
    vertices = np.frombuffer(body, dtype=kind, count=len(face.vertices))
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(vertices[name], face.vertices[:, axis].astype(np.float32))
    assert (vertices["nz"] > 0).all()
    if with_labels:
        np.testing.assert_array_equal(vertices["label"], face.labels)
    triangles = np.frombuffer(body, dtype=[("n", "u1"), ("ids", "<i4", 3)], offset=vertices.nbytes)
    assert (triangles["n"] == 3).all()
    np.testing.assert_array_equal(triangles["ids"], face.faces)


def test_part_colours_differ_and_refuse_ids_without_a_part():
    assert len(set(PART_COLOURS.values())) == 6
    np.testing.assert_array_equal(part_colours([[4]])[0, 0], PART_COLOURS["nose"])
    with pytest.raises(ValueError, match="labels run from 0 to 0"):
        part_colours([0])


def test_a_failed_export_leaves_the_old_file_and_no_rubbish(face, tmp_path, monkeypatch):
    path = export_ply(tmp_path / "f.ply", face.vertices, face.faces)
    before = path.read_bytes()

    def full_disk(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        export_ply(path, 2 * face.vertices, face.faces)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.ply"]


def test_wrong_meshes_are_refused_by_every_writer(face, tmp_path):
    v, f = face.vertices, face.faces
    broken = v.copy()
    broken[0, 0] = np.nan
    for writer in (export_obj, export_ply, export_glb):
        path = tmp_path / "bad"
        for vertices, faces, labels, message in [
            (v[:, :2], f, None, r"vertices have shape .* expected \(V, 3\)"),
            (broken, f, None, "not finite"),
            (v, f[:, :2], None, r"faces have shape .* expected \(F, 3\)"),
            (v, f.astype(float), None, "expected integers"),
            (v, f + 1, None, "the mesh has 4859 vertices"),
            (v, f, face.labels[:-1], "one id per vertex"),
            (v, f, face.labels - 1, r"vertex labels are 1 \(rest\) to 6"),
        ]:
            with pytest.raises(ValueError, match=message):
                writer(path, vertices, faces, labels=labels)
        with pytest.raises(ValueError, match=r"the folder .* does not exist"):
            writer(tmp_path / "nowhere" / "f", v, f)
    assert not list(tmp_path.iterdir())


def test_wrong_glb_and_obj_options_are_refused(face, tmp_path):
    v, f, uv = face.vertices, face.faces, face.flat[:, :2]
    texture = np.zeros((2, 2, 3), dtype=np.uint8)
    for writer, options, message in [
        (export_glb, {"labels": face.labels, "vertex_colours": part_colours(face.labels)}, "only one"),
        (export_glb, {"vertex_colours": np.zeros(v.shape)}, "vertex_colours are float64"),
        (export_glb, {"texture": texture}, "a texture needs uv"),
        (export_glb, {"uv": uv[:-1]}, r"expected \(4859, 2\), one per vertex"),
        (export_glb, {"uv": uv, "texture": texture[..., 0]}, r"expected uint8 \(H, W, 3\)"),
        (export_glb, {"uv": uv * np.nan}, "uv has coordinates that are not finite"),
        (export_glb, {"morph_targets": {"id_a": v[:-1]}}, r"morph target 'id_a' has shape \(4858, 3\)"),
        (export_glb, {"morph_targets": {"id_a": v * np.nan}}, "morph target 'id_a' is not finite"),
        (export_obj, {"texture": texture}, "a texture needs uv"),
        (export_obj, {"vertex_colours": np.zeros(v.shape)}, "vertex_colours are float64"),
        (export_ply, {"vertex_colours": np.zeros((3, 3), np.uint8)}, r"vertex_colours are uint8 \(3, 3\)"),
        (export_obj, {"uv_faces": f}, "uv_faces without uv"),
        (export_obj, {"uv": uv[:-1]}, "one per vertex"),
        (export_obj, {"uv": uv, "uv_faces": f + 1}, "uv_faces have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            writer(tmp_path / "f", v, f, **options)
