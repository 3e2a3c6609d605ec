import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from dataset_builder.ict import load_ict
from dataset_builder.ict_folder import LANDMARKS68, N_NARROW, NEUTRAL_FILE, ict_folder, read_ict_folder
from dataset_builder.models import load_face_model

COLUMNS, ROWS = 313, 22  # a grid that has N_NARROW vertices once two holes with 42 rim vertices are cut
HOLE_WIDTH, HOLE_HEIGHT = 10, 11


def eye_holes():
    """Grid vertices inside the holes, and grid cells (by their first vertex) that the holes take away."""
    inside, cells = np.zeros((ROWS, COLUMNS), bool), np.zeros((ROWS, COLUMNS), bool)
    for left in (90, COLUMNS - 1 - 90 - HOLE_WIDTH):
        inside[6 : 5 + HOLE_HEIGHT, left + 1 : left + HOLE_WIDTH] = True
        cells[5 : 5 + HOLE_HEIGHT, left : left + HOLE_WIDTH] = True
    return inside, cells


@pytest.fixture(scope="module")
def grid():
    """Neutral vertices (N_NARROW, 3) in cm and quads of a mirrored, face-like grid with the official landmark ids."""
    x, y = np.meshgrid(np.linspace(-7, 7, COLUMNS), np.linspace(9, -9, ROWS))
    inside, gone = eye_holes()
    points = np.stack([x, y, 8 - 0.08 * x**2 - 0.04 * y**2], -1)[~inside]
    face = load_face_model("synthetic-3k")
    cost = cdist(face.mean[face.landmarks68, :2] / 10, points[:, :2])
    landmark = linear_sum_assignment(cost)[1]  # 68 vertices, all different, near a face's landmarks
    points[landmark[30], 2] += 0.5
    order = np.full(N_NARROW, -1)
    order[LANDMARKS68] = landmark
    order[order < 0] = np.setdiff1d(np.arange(N_NARROW), landmark)
    new_id = np.full((ROWS, COLUMNS), -1)
    new_id[~inside] = np.argsort(order)
    quads = np.stack([new_id[1:, :-1], new_id[1:, 1:], new_id[:-1, 1:], new_id[:-1, :-1]], -1)[~gone[:-1, :-1]]
    return points[order], quads


def write_obj(path, vertices, quads=None, uv=None):
    lines = ["mtllib ICTFaceModelMaterial.mtl", *(f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices)]
    if uv is not None:
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in uv]
    if quads is not None:
        corner = "{0}" if uv is None else "{0}/{0}"
        lines += ["f " + " ".join(corner.format(i) for i in quad) for quad in (quads + 1).tolist()]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def made_up(grid, tmp_path_factory):
    """A folder with three identities and two expressions, and its modes in mm."""
    folder = tmp_path_factory.mktemp("FaceXModel")
    vertices, quads = grid
    rest = np.random.default_rng(0).normal(0, 1, (50, 3))  # what lies behind the face: teeth, eyeballs
    back = np.array([[N_NARROW, N_NARROW + 1, N_NARROW + 2, N_NARROW + 3]])
    uv = np.random.default_rng(1).uniform(0, 1, (N_NARROW + 50, 2))
    write_obj(folder / NEUTRAL_FILE, np.vstack([vertices, rest]), np.vstack([quads, back]), uv)
    modes = {}
    for seed, name in enumerate(("identity000", "identity001", "identity002", "jawOpen", "browDown_L")):
        modes[name] = np.random.default_rng(seed).normal(0, 0.01, (N_NARROW, 3))
        write_obj(folder / f"{name}.obj", np.vstack([vertices + modes[name], rest]))
    write_obj(folder / "PupilDilate_L.obj", vertices)
    (folder / "vertex_indices.json").write_text(json.dumps({"expressions": ["browDown_L", "jawOpen"]}))
    return folder, {name: 10 * mode for name, mode in modes.items()}, uv


@pytest.fixture
def folder(made_up, tmp_path):
    """A copy of the made-up folder to damage."""
    for file in made_up[0].iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def replace(path, text):
    path.unlink()
    path.write_text(text)


def test_the_folder_becomes_a_face_with_its_modes(made_up, grid):
    folder, modes, uv = made_up
    data = read_ict_folder(folder)
    np.testing.assert_allclose(data["mean"], 10 * grid[0], atol=1e-4)
    np.testing.assert_allclose(data["id_basis"], [modes[f"identity00{i}"] for i in range(3)], atol=1e-4)
    np.testing.assert_allclose(data["ex_basis"], [modes["browDown_L"], modes["jawOpen"]], atol=1e-4)
    np.testing.assert_array_equal(data["quads"], grid[1])
    model = load_face_model(folder)
    assert (model.name, model.ex_names, model.n_identity) == ("ict", ("browDown_L", "jawOpen"), 3)
    np.testing.assert_array_equal(model.landmarks68, LANDMARKS68)
    np.testing.assert_allclose(model.id_basis[:N_NARROW, :, 1], modes["identity001"], atol=1e-4)
    np.testing.assert_allclose(model.uv[:N_NARROW], uv[:N_NARROW], atol=1e-5)
    assert model.mirror is not None


def test_the_folder_of_the_repository_is_found_too(made_up, tmp_path):
    (tmp_path / "FaceXModel").symlink_to(made_up[0])
    assert ict_folder(tmp_path) == tmp_path / "FaceXModel"
    assert ict_folder(tmp_path / "absent") is None


def test_meshes_and_archive_of_the_same_face_give_the_same_model(tmp_path):
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no ICT face")
    archive = Path(os.environ["NEO3DF_ASSETS"]) / "ict_face.npz"
    with np.load(archive) as data:
        mean, names = data["mean"] / 10, [str(name) for name in data["ex_names"]][:3]
        quads, landmarks = data["quads"], data["landmarks68"]
        identities, expressions = data["id_basis"][:2].astype(float) / 10, data["ex_basis"][:3].astype(float) / 10
    np.testing.assert_array_equal(landmarks, LANDMARKS68)
    write_obj(tmp_path / NEUTRAL_FILE, mean, quads)
    for k, mode in enumerate(identities):
        write_obj(tmp_path / f"identity{k:03d}.obj", mean + mode)
    for name, mode in zip(names, expressions, strict=True):
        write_obj(tmp_path / f"{name}.obj", mean + mode)
    (tmp_path / "vertex_indices.json").write_text(json.dumps({"expressions": names}))
    from_archive, from_meshes = load_ict(archive), load_ict(tmp_path)
    assert from_meshes.topology_hash() == from_archive.topology_hash()
    assert from_meshes.ex_names == from_archive.ex_names[:3]
    np.testing.assert_allclose(from_meshes.mean, from_archive.mean, atol=1e-3)
    np.testing.assert_allclose(from_meshes.id_basis, from_archive.id_basis[..., :2], atol=1e-3)
    np.testing.assert_allclose(from_meshes.ex_basis, from_archive.ex_basis[..., :3], atol=1e-3)
    np.testing.assert_array_equal(from_meshes.landmarks68, from_archive.landmarks68)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("identity00", "lacks identity000.obj and its successors"),
        ("jawOpen.obj", r"lacks jawOpen\.obj, which vertex_indices\.json lists"),
        ("vertex_indices.json", r"vertex_indices\.json: needed for the names of the expressions"),
    ],
)
def test_missing_files_are_named(folder, name, message):
    for file in folder.glob(f"{name}*"):
        file.unlink()
    with pytest.raises(ValueError, match=message):
        load_face_model(folder)


@pytest.mark.parametrize("name", ["identity001.obj", NEUTRAL_FILE])
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.95])
def test_a_truncated_mesh_is_named(folder, name, kept):
    text = (folder / name).read_text()
    if name == NEUTRAL_FILE:
        kept *= text.index("\nvt ") / len(text)
    replace(folder / name, text[: int(kept * len(text))])
    with pytest.raises(ValueError, match=rf"{name}: .*is the file truncated\?"):
        read_ict_folder(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("v ", "v x", "a 'v' line holds no number"),
        ("v ", "v nan 1 2 ", "each 'v' line must hold 3 finite numbers"),
        ("f ", "f 1/1 2/2 3/3\nf ", "the narrow face must be made of quads"),
        ("f ", "f 1/1 2/2 3/3 0/4\nf ", "an 'f' line names a vertex outside 1 to 6756"),
        ("f ", "f 1/1 2/2 3/3 4/99999\nf ", "names a texture coordinate outside 1 to 6756"),
        ("f ", "f 1/1 2/2 3/3 a/4\nf ", "an 'f' line holds no vertex number"),
    ],
)
def test_a_bent_mesh_is_named(folder, old, new, message):
    text = (folder / NEUTRAL_FILE).read_text()
    replace(folder / NEUTRAL_FILE, text.replace(f"\n{old}", f"\n{new}", 1))
    with pytest.raises(ValueError, match=rf"generic_neutral_mesh\.obj: .*{message}"):
        read_ict_folder(folder)


def test_a_face_that_is_not_mirrored_is_refused(folder, grid):
    text = (folder / NEUTRAL_FILE).read_text()
    lines = text.splitlines()
    lines[1] = "v 1.234 5.678 9.1"
    replace(folder / NEUTRAL_FILE, "\n".join(lines))
    with pytest.raises(ValueError, match="the mean face is not mirrored in x = 0"):
        load_ict(folder)


def test_a_face_in_other_units_is_refused(grid, made_up, tmp_path):
    data = read_ict_folder(made_up[0])
    np.savez(tmp_path / "cm.npz", **{**data, "mean": data["mean"] / 10})
    with pytest.raises(ValueError, match=r"cm\.npz: the outer eye corners are .* mm apart, expected 55 to 140"):
        load_ict(tmp_path / "cm.npz")
