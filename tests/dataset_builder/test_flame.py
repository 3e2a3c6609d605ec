import os
import pickle
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from dataset_builder.flame import load_flame
from dataset_builder.models import load_face_model


@pytest.fixture(scope="module")
def face():
    return load_face_model("synthetic-3k")


@pytest.fixture(scope="module")
def numbers(face):
    """The arrays of a made-up FLAME: metres, 30 identities and 100 expressions."""
    rng = np.random.default_rng(0)
    return {
        "v_template": face.mean.astype(np.float64) / 1000 + [0.01, -0.02, 0.03],
        "shapedirs": rng.normal(0, 1e-3, (face.n_vertices, 3, 130)),
        "f": face.faces.astype(np.uint32),
        "weights": rng.uniform(0, 1, (face.n_vertices, 5)),
        "bs_type": "lrotmin",
    }


@pytest.fixture(scope="module")
def embedding(face):
    """The 68 landmarks as points on triangles: the heaviest corner of each is the landmark's vertex."""
    triangles = np.array([np.flatnonzero((face.faces == vertex).any(1))[0] for vertex in face.landmarks68])
    heaviest = face.faces[triangles] == face.landmarks68[:, None]
    return triangles, np.where(heaviest, 0.6, 0.2)


def write_ids(path, face):
    path.write_text(" ".join(map(str, face.landmarks68)))


@pytest.fixture
def chumpy_variable(monkeypatch):
    """Wraps an array as the chumpy package does, which the made-up pickle needs and its reader must not."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


def assert_is_the_made_up_face(model, numbers, face):
    assert (model.name, model.n_vertices, model.n_identity, model.n_expression) == ("flame", face.n_vertices, 30, 100)
    np.testing.assert_allclose(model.mean, face.mean - face.mean.mean(0), atol=1e-3)
    np.testing.assert_allclose(model.id_basis, 1000 * numbers["shapedirs"][..., :30], rtol=1e-5)
    np.testing.assert_allclose(model.ex_basis, 1000 * numbers["shapedirs"][..., 30:], rtol=1e-5)
    np.testing.assert_array_equal(model.faces, face.faces)
    np.testing.assert_array_equal(model.landmarks68, face.landmarks68)


def test_npz_and_pickle_give_the_same_face(numbers, face, chumpy_variable, tmp_path):
    np.savez(tmp_path / "a.npz", **numbers)
    pickled = {
        **numbers,
        "v_template": chumpy_variable(numbers["v_template"]),
        "shapedirs": chumpy_variable(numbers["shapedirs"]),
        "J_regressor": sparse.csc_matrix(np.eye(5)),
    }
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(pickled, 2))
    for name in ("a", "b"):
        write_ids(tmp_path / f"{name}.landmarks68.txt", face)
    for name in ("a.npz", "b.pkl"):
        model = load_face_model(tmp_path / name)
        assert_is_the_made_up_face(model, numbers, face)
        assert model.source == f"{name}, landmarks of {name[0]}.landmarks68.txt"


def test_landmarks_of_deca_are_found_beside_the_model(numbers, face, embedding, tmp_path):
    triangles, weights = embedding
    content = {
        "full_lmk_faces_idx": triangles[None],
        "full_lmk_bary_coords": weights[None],
        "static_lmk_faces_idx": triangles[17:],
        "static_lmk_bary_coords": weights[17:],
    }
    np.save(tmp_path / "landmark_embedding.npy", content, allow_pickle=True)
    np.savez(tmp_path / "flame.npz", **numbers)
    model = load_flame(tmp_path / "flame.npz")
    assert_is_the_made_up_face(model, numbers, face)
    assert model.source == "flame.npz, landmarks of landmark_embedding.npy"


def test_inner_landmarks_and_frontal_jaw_are_joined(numbers, face, embedding, tmp_path):
    triangles, weights = embedding
    static = {"lmk_face_idx": triangles[17:].astype(np.uint32), "lmk_b_coords": weights[17:]}
    (tmp_path / "flame_static_embedding.pkl").write_bytes(pickle.dumps(static, 2))
    np.savez(tmp_path / "flame.npz", **numbers)
    with pytest.raises(ValueError, match=r"no 68 landmarks, the 17 of the jaw are missing"):
        load_flame(tmp_path / "flame.npz")
    turned = np.concatenate([triangles[None, :17], np.zeros((78, 17), np.int64)])
    dynamic = {"lmk_face_idx": turned, "lmk_b_coords": np.broadcast_to(weights[:17], (79, 17, 3))}
    np.save(tmp_path / "flame_dynamic_embedding.npy", dynamic, allow_pickle=True)
    assert_is_the_made_up_face(load_flame(tmp_path / "flame.npz"), numbers, face)


def test_an_embedding_can_be_named(numbers, face, embedding, tmp_path):
    triangles, weights = embedding
    np.savez(tmp_path / "flame.npz", **numbers)
    np.savez(tmp_path / "points.npz", lmk_face_idx=triangles, lmk_b_coords=weights)
    assert_is_the_made_up_face(
        load_face_model(tmp_path / "flame.npz", landmarks=tmp_path / "points.npz"), numbers, face
    )


def test_missing_landmarks_are_named(numbers, tmp_path):
    np.savez(tmp_path / "flame.npz", **numbers)
    with pytest.raises(
        ValueError, match=r"put landmark_embedding\.npy .* or flame\.landmarks68\.txt with 68 vertex ids"
    ):
        load_flame(tmp_path / "flame.npz")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lmk_face_idx": np.arange(68)}, "no 68 landmarks, the 17 of the jaw and the 51 inner ones are missing"),
        (
            {"lmk_face_idx": np.arange(68), "lmk_b_coords": np.ones((67, 3))},
            r"lmk has ids \(68,\) and weights \(67, 3\)",
        ),
        ({"lmk_face_idx": np.arange(68) + 10**6, "lmk_b_coords": np.ones((68, 3))}, "names triangles outside 0 to"),
        ({"lmk_face_idx": np.zeros(68), "lmk_b_coords": np.ones((68, 3))}, "lmk has ids"),
    ],
)
def test_a_wrong_embedding_is_named(numbers, tmp_path, fields, message):
    np.savez(tmp_path / "flame.npz", **numbers)
    np.savez(tmp_path / "points.npz", **fields)
    with pytest.raises(ValueError, match=message):
        load_flame(tmp_path / "flame.npz", landmarks=tmp_path / "points.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": None}, "not FLAME, the file lacks v_template"),
        ({"shapedirs": None, "f": None}, "not FLAME, the file lacks shapedirs, f"),
        ({"v_template": np.zeros((5, 2))}, r"v_template has shape \(5, 2\) of float64, expected numbers \(\*, 3\)"),
        (
            {"shapedirs": np.zeros((7, 3, 130))},
            r"shapedirs has shape \(7, 3, 130\) of float64, expected numbers \(\d+, 3",
        ),
        ({"shapedirs": np.zeros((3026, 3, 100))}, "shapedirs has 100 modes, FLAME has identities and then 100 express"),
        ({"f": np.full((4, 3), 9_999)}, "f names 9999 to 9999, expected 0 to"),
        ({"f": np.zeros((0, 3), int)}, r"f has shape \(0, 3\)"),
        ({"v_template": "a text"}, r"v_template has shape \(\) of <U6"),
        ({"shapedirs": sparse.csc_matrix(np.eye(2))}, r"shapedirs is a scipy\.sparse\._?csc\.csc_matrix, not an array"),
    ],
)
def test_a_bent_pickle_is_named(numbers, face, tmp_path, change, message):
    content = {key: values for key, values in {**numbers, **change}.items() if values is not None}
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(content, 2))
    write_ids(tmp_path / "flame.landmarks68.txt", face)
    with pytest.raises(ValueError, match=rf"flame\.pkl: .*{message}") as failure:
        load_face_model(tmp_path / "flame.pkl")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1000, "the outer eye corners are .* mm apart, expected 55 to 140; the file has other units"),
        (0.01, "the outer eye corners are .* mm apart"),
        ([1, -1, -1], r"the eyes are not above the chin in \+y and the nose is not before the eyes in \+z; turn"),
        ([-1, 1, 1], r"the subject's left eye is not at \+x"),
    ],
)
def test_wrong_units_and_axes_are_named(numbers, face, tmp_path, factor, message):
    np.savez(tmp_path / "flame.npz", **{**numbers, "v_template": numbers["v_template"] * factor})
    write_ids(tmp_path / "flame.landmarks68.txt", face)
    with pytest.raises(ValueError, match=rf"flame\.npz: {message}"):
        load_flame(tmp_path / "flame.npz")


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(numbers, face, tmp_path, suffix, kept):
    path = tmp_path / f"flame{suffix}"
    if suffix == ".npz":
        np.savez(path, **numbers)
    else:
        path.write_bytes(pickle.dumps(numbers, 2))
    write_ids(tmp_path / "flame.landmarks68.txt", face)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"flame\{suffix}: not a readable"):
        load_face_model(path)


def test_an_archive_with_pickled_arrays_is_not_run(numbers, face, tmp_path):
    np.savez(tmp_path / "flame.npz", **{**numbers, "v_template": np.array([{"a": 1}], object)})
    write_ids(tmp_path / "flame.landmarks68.txt", face)
    with pytest.raises(ValueError, match=r"flame\.npz: not a readable NumPy archive of FLAME"):
        load_flame(tmp_path / "flame.npz")


class RunsOnLoad:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_wants_to_run_something_is_refused(numbers, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps({**numbers, "v_template": RunsOnLoad(marker)}, 2))
    with pytest.raises(ValueError, match=r"flame\.pkl: refused, the pickle wants to call \w+\.system"):
        load_face_model(tmp_path / "flame.pkl")
    assert not marker.exists()
