import struct

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from dataset_builder.alignment import CANONICAL_FIVE_POINTS_DM
from dataset_builder.assets import AssetMissing
from dataset_builder.bfm_front import ASSEMBLY_FILES, load_bfm_front
from dataset_builder.models import load_face_model

N_BASEL, N_EXPRESSION_MESH = 3_400, 3_200


@pytest.fixture(scope="module")
def face():
    """A face of about 3,000 vertices, in millimetres, that stands for BFM's front crop."""
    return load_face_model("synthetic-3k")


def canonical_landmarks():
    """68 landmarks (68, 3) in decimetres whose five points are the canonical ones."""
    landmarks = np.zeros((68, 3))
    for ids, point in zip(([36, 39], [42, 45], [30], [48], [54]), CANONICAL_FIVE_POINTS_DM, strict=True):
        landmarks[ids] = point
    return landmarks


@pytest.fixture(scope="module")
def made_up(face, tmp_path_factory):
    """The seven files of the official folder with made-up numbers, and what must come out of them."""
    folder = tmp_path_factory.mktemp("BFM")
    rng = np.random.default_rng(0)
    v = face.n_vertices
    in_expression = rng.permutation(N_EXPRESSION_MESH)[:v]
    in_basel = rng.permutation(N_BASEL)[:N_EXPRESSION_MESH]
    chosen = in_basel[in_expression]

    basel_mean = rng.normal(0, 80_000, (N_BASEL, 3))
    basel_mean[chosen] = face.mean * 1000.0 + [3_000, -5_000, 7_000]
    modes = {kind: rng.normal(0, 1e-3, (3 * N_BASEL, 85)).astype(np.float32) for kind in ("shape", "tex")}
    deviations = {kind: rng.uniform(1e5, 9e5, (85, 1)).astype(np.float32) for kind in ("shape", "tex")}
    colours = rng.uniform(60, 200, (N_BASEL, 3)).astype(np.float32)
    savemat(
        folder / "01_MorphableModel.mat",
        {
            "shapeMU": basel_mean.reshape(-1, 1).astype(np.float32),
            "texMU": colours.reshape(-1, 1),
            **{f"{kind}PC": values for kind, values in modes.items()},
            **{f"{kind}EV": values for kind, values in deviations.items()},
            "segbin": np.zeros((N_BASEL, 4)),
        },
    )
    expressions = rng.normal(0, 1, (70, N_EXPRESSION_MESH, 3)).astype("<f4")
    mean_expression = rng.normal(0, 1, 3 * N_EXPRESSION_MESH).astype("<f4")
    content = struct.pack("<i", 70) + mean_expression.tobytes() + expressions.tobytes()
    (folder / "Exp_Pca.bin").write_bytes(content)
    expression_deviations = rng.uniform(100, 900, 79)
    (folder / "std_exp.txt").write_text(" ".join(f"{value:.6e}" for value in expression_deviations))
    savemat(folder / "BFM_front_idx.mat", {"idx": (in_expression + 1).reshape(-1, 1)})
    savemat(folder / "BFM_exp_idx.mat", {"trimIndex": (in_basel + 1).reshape(-1, 1)})
    triangles, landmarks = face.faces + 1, (face.landmarks68 + 1).reshape(1, 68)
    savemat(folder / "facemodel_info.mat", {"point_buf": np.ones((v, 8)), "tri": triangles, "keypoints": landmarks})
    savemat(folder / "similarity_Lm3D_all.mat", {"lm": canonical_landmarks()})

    rows = np.stack([3 * chosen, 3 * chosen + 1, 3 * chosen + 2], 1)
    expected = {
        "mean": face.mean - face.mean.mean(0),
        "id_basis": (modes["shape"] * deviations["shape"].T)[:, :80][rows] / 1000,
        "ex_basis": np.moveaxis(expressions[:64, in_expression], 0, -1) * expression_deviations[:64] / 1000,
        "albedo": colours[chosen] / 255,
        "albedo_basis": (modes["tex"] * deviations["tex"].T)[:, :80][rows] / 255,
    }
    return folder, expected


@pytest.fixture
def folder(made_up, tmp_path):
    """A copy of the made-up folder to damage."""
    for file in made_up[0].iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def replace(path, content):
    path.unlink()
    if isinstance(content, dict):
        savemat(path, content)
    else:
        path.write_bytes(content)


def test_front_crop_is_assembled_from_the_official_files(made_up, face):
    folder, expected = made_up
    model = load_bfm_front(folder)
    assert (model.name, model.n_vertices, len(model.faces)) == ("bfm", face.n_vertices, len(face.faces))
    assert (model.n_identity, model.n_expression, model.n_albedo) == (80, 64, 80)
    np.testing.assert_array_equal(model.faces, face.faces)
    np.testing.assert_array_equal(model.landmarks68, face.landmarks68)
    for name, values in expected.items():
        assert getattr(model, name).dtype == np.float32
        np.testing.assert_allclose(getattr(model, name), values, rtol=1e-4, atol=0.02 if name == "mean" else 1e-3)
    np.testing.assert_allclose(model.mean.mean(0), 0, atol=1e-3)
    assert model.source == ", ".join(ASSEMBLY_FILES)
    assert model.ex_names[63] == "expression_63"


@pytest.fixture(scope="module")
def ready(made_up, face):
    """What the official code would have stored as BFM_model_front.mat: decimetres, colours to 255, ids from 1."""
    _, expected = made_up
    flat = {name: values.reshape(-1, *values.shape[2:]).astype(np.float32) for name, values in expected.items()}
    return {
        "meanshape": (flat["mean"].reshape(1, -1) + np.float32(30)) / 100,
        "idBase": flat["id_basis"] / 100,
        "exBase": flat["ex_basis"] / 100,
        "meantex": flat["albedo"].reshape(1, -1) * 255,
        "texBase": flat["albedo_basis"] * 255,
        "tri": face.faces + 1,
        "keypoints": (face.landmarks68 + 1).reshape(1, 68),
        "skinmask": np.ones((1, face.n_vertices)),
    }


def test_ready_file_and_its_parts_give_the_same_face(made_up, ready, tmp_path):
    savemat(tmp_path / "BFM_model_front.mat", ready)
    assembled = load_bfm_front(made_up[0])
    for place in (tmp_path, tmp_path / "BFM_model_front.mat"):
        model = load_face_model(place)
        for name in ("mean", "id_basis", "ex_basis", "albedo", "albedo_basis"):
            np.testing.assert_allclose(getattr(model, name), getattr(assembled, name), rtol=1e-4, atol=1e-3)
        assert model.topology_hash() == assembled.topology_hash()
    assert model.source == "BFM_model_front.mat"


def test_triangles_wound_the_other_way_are_turned(ready, face, tmp_path):
    savemat(tmp_path / "BFM_model_front.mat", {**ready, "tri": face.faces[:, ::-1] + 1})
    np.testing.assert_array_equal(load_bfm_front(tmp_path).faces, face.faces)


def test_bfm_is_found_among_the_assets(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        AssetMissing, match=r"load_face_model\('bfm'\) needs BFM_model_front\.mat, or 01_Morph.*BFM or "
    ):
        load_face_model("bfm")
    (tmp_path / "BFM").symlink_to(made_up[0])
    assert load_face_model("bfm").n_identity == 80


@pytest.mark.parametrize("name", ASSEMBLY_FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"the BFM front crop needs BFM_model_front.mat, or {name} as well"):
        load_bfm_front(folder)


@pytest.mark.parametrize("name", [*ASSEMBLY_FILES, "similarity_Lm3D_all.mat"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.6])
def test_a_truncated_file_is_named(folder, name, kept):
    content = (folder / name).read_bytes()
    replace(folder / name, content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=rf"{name}: ") as failure:
        load_bfm_front(folder)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", [name for name in ASSEMBLY_FILES if name.endswith(".mat")])
def test_a_file_with_other_keys_is_named(folder, name):
    replace(folder / name, {"something": np.zeros(3)})
    with pytest.raises(ValueError, match=rf"{name}: lacks "):
        load_bfm_front(folder)


@pytest.mark.parametrize(
    ("name", "key", "values", "message"),
    [
        ("facemodel_info.mat", "tri", np.zeros((4, 3)), r"tri holds ids 0 to 0, expected 1 to"),
        ("facemodel_info.mat", "keypoints", np.full((1, 68), 40_000), r"keypoints holds ids 40000 to 40000"),
        ("BFM_front_idx.mat", "idx", np.array([[9_999]]), r"idx holds ids 9999 to 9999, expected 1 to 3200"),
        ("BFM_exp_idx.mat", "trimIndex", np.zeros((0, 1)), r"trimIndex holds ids none to none, expected 1 to 3400"),
        ("similarity_Lm3D_all.mat", "lm", np.zeros((67, 3)), r"lm has shape \(67, 3\), expected \(68, 3\)"),
        (
            "similarity_Lm3D_all.mat",
            "lm",
            100 * canonical_landmarks(),
            r"its five points are .* dm from those that crops",
        ),
        ("BFM_front_idx.mat", "idx", np.array(["a"]), r"idx holds <U1, expected numbers"),
    ],
)
def test_wrong_numbers_are_named(folder, name, key, values, message):
    content = {k: v for k, v in loadmat(folder / name).items() if not k.startswith("__")}
    replace(folder / name, {**content, key: values})
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        load_bfm_front(folder)


def test_too_few_modes_and_deviations_are_named(folder):
    basel = {k: v for k, v in loadmat(folder / "01_MorphableModel.mat").items() if not k.startswith("__")}
    replace(folder / "01_MorphableModel.mat", {**basel, "shapePC": basel["shapePC"][:, :70]})
    with pytest.raises(ValueError, match=r"shapePC has shape \(10200, 70\), expected \(10200, 80 or more\)"):
        load_bfm_front(folder)
    replace(folder / "01_MorphableModel.mat", {**basel, "texEV": basel["texEV"][:9]})
    with pytest.raises(ValueError, match="texEV has 9 standard deviations, expected 80 or more"):
        load_bfm_front(folder)
    replace(folder / "01_MorphableModel.mat", basel)
    replace(folder / "std_exp.txt", b"1.0 two 3.0")
    with pytest.raises(ValueError, match=r"std_exp\.txt: not a list of numbers"):
        load_bfm_front(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meanshape": 100.0}, "outer eye corners are .*mm apart, expected 55 to 140; the file has other units"),
        ({"meanshape": 0.001}, "outer eye corners are 0.0816 mm apart"),
        ({"meanshape": -1.0}, r"not at \+x and the eyes are not above the chin in \+y and the nose is not before"),
    ],
)
def test_wrong_units_and_axes_are_named(ready, tmp_path, change, message):
    savemat(tmp_path / "BFM_model_front.mat", {**ready, **{key: ready[key] * factor for key, factor in change.items()}})
    with pytest.raises(ValueError, match=message):
        load_bfm_front(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("idBase", np.zeros((12, 80)), r"idBase has shape \(12, 80\), expected \(\d+, 80 or more\)"),
        ("meantex", np.zeros((1, 9)), r"meantex has 9 numbers, expected three for each of \d+ vertices"),
        ("keypoints", np.ones((1, 67)), "landmarks68 must be 68 vertex ids"),
        ("meanshape", np.zeros((1, 0)), "meanshape has 0 numbers"),
    ],
)
def test_a_bent_ready_file_is_named(ready, tmp_path, key, value, message):
    savemat(tmp_path / "BFM_model_front.mat", {**ready, key: value})
    with pytest.raises(ValueError, match=message):
        load_bfm_front(tmp_path)


def test_values_that_are_not_finite_are_refused(ready, tmp_path):
    broken = ready["exBase"].copy()
    broken[5, 3] = np.nan
    savemat(tmp_path / "BFM_model_front.mat", {**ready, "exBase": broken})
    with pytest.raises(ValueError, match="face model 'bfm': ex_basis holds a value that is not finite"):
        load_bfm_front(tmp_path)
