import numpy as np
import pytest

from dataset_builder.face_model import FaceModel
from dataset_builder.face_model_file import save_face_model
from dataset_builder.models import load_face_model


def small_model(**optional):
    """Four vertices: the outer eye corners, the nose tip and the chin."""
    rng = np.random.default_rng(1)
    return FaceModel(
        name="tetra",
        licence="none",
        mean=np.array([[-45, 0, 0], [45, 0, 0], [0, -20, 30], [0, -80, 0]], np.float32),
        id_basis=rng.standard_normal((4, 3, 2)).astype(np.float32),
        ex_basis=rng.standard_normal((4, 3, 1)).astype(np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int64),
        landmarks68=np.where(np.arange(68) == 8, 3, np.arange(68) % 4),
        ex_names=("jawOpen",),
        ex_range=np.array([[0, 1]], np.float32),
        **optional,
    )


@pytest.mark.parametrize(
    "optional",
    [
        {},
        {"mirror": np.array([1, 0, 2, 3]), "labels": np.array([1, 2, 1, 1]), "uv": np.zeros((4, 2), np.float32)},
        {"albedo": np.full((4, 3), 0.5, np.float32), "albedo_basis": np.ones((4, 3, 2), np.float32)},
    ],
)
def test_a_saved_model_comes_back(tmp_path, optional):
    model = small_model(**optional, source="made up")
    path = tmp_path / "sub" / "face.npz"
    save_face_model(model, path)
    loaded = load_face_model(path)
    assert (loaded.name, loaded.licence, loaded.source) == ("tetra", "none", "made up")
    assert loaded.ex_names == model.ex_names
    assert loaded.topology_hash() == model.topology_hash()
    for field in (
        "mean",
        "id_basis",
        "ex_basis",
        "faces",
        "landmarks68",
        "ex_range",
        "mirror",
        "uv",
        "labels",
        "chart",
        "albedo",
        "albedo_basis",
    ):
        kept, given = getattr(loaded, field), getattr(model, field)
        assert (kept is None) == (given is None)
        if given is not None:
            np.testing.assert_array_equal(kept, given)
            assert kept.dtype == given.dtype
    assert [file.name for file in path.parent.iterdir()] == ["face.npz"]


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "face.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_face_model(small_model(), path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_procedural_faces_are_kept_in_the_given_folder(tmp_path):
    model = load_face_model("synthetic-3k", cache_dir=tmp_path)
    assert 2_700 < model.n_vertices < 3_300
    assert len(list(tmp_path.iterdir())) == 1
    assert load_face_model("synthetic-3k", cache_dir=tmp_path).topology_hash() == model.topology_hash()


def test_unknown_name_lists_the_names():
    with pytest.raises(
        ValueError, match=r"unknown face model 'bmf': use synthetic, synthetic-3k, synthetic-35k, ict, bfm"
    ):
        load_face_model("bmf")


def test_foreign_and_broken_files_are_named(tmp_path):
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"foreign\.npz: neither a saved face model nor the ICT layout.*weights"):
        load_face_model(foreign)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"\x00\x01")
    with pytest.raises(ValueError, match=r"broken\.npz: not a readable \.npz face model"):
        load_face_model(broken)
    partial = tmp_path / "partial.npz"
    np.savez(partial, name="x", licence="y", faces=np.zeros((1, 3), np.int64))
    with pytest.raises(ValueError, match=r"partial\.npz: the saved face model lacks mean, id_basis"):
        load_face_model(partial)


def test_incomplete_ict_layout_goes_to_the_ict_loader(tmp_path):
    path = tmp_path / "ict.npz"
    np.savez(path, quads=np.zeros((1, 4), np.int64), mean=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="not the ICT face, the archive lacks id_basis"):
        load_face_model(path)


def test_a_folder_without_a_face_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"a folder without a face model; ICT-FaceKit has generic_neutral_mesh\.obj, BFM"
    ):
        load_face_model(tmp_path)


def test_a_landmark_file_for_a_model_with_landmarks_is_refused(tmp_path):
    landmarks = tmp_path / "landmarks.txt"
    with pytest.raises(ValueError, match="face model 'synthetic' has its own landmarks; leave the landmark file out"):
        load_face_model("synthetic", landmarks=landmarks)
    save_face_model(small_model(), tmp_path / "face.npz")
    with pytest.raises(ValueError, match=r"face\.npz: has its own landmarks; leave the landmark file out"):
        load_face_model(tmp_path / "face.npz", landmarks=landmarks)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("mean", lambda x: x / 1000, "the outer eye corners are 0.09 mm apart, expected 55 to 140"),
        ("mean", lambda x: x[:, [0, 2, 1]], r"the eyes are not above the chin in \+y and the nose is not before"),
        ("mean", lambda x: x * [-1, 1, 1], r"the subject's left eye is not at \+x; turn the face to \+x left"),
        ("mean", lambda x: x.ravel(), r"mean is \(12,\) of float32, expected float32 with 2 axes"),
        ("mean", lambda x: x[:3], r"must be \(V, 3\), \(V, 3, Ni\) and \(V, 3, Ne\) with the same V"),
        ("id_basis", lambda x: x.astype(int), r"id_basis is \(4, 3, 2\) of int64, expected float32 with 3 axes"),
        ("faces", lambda x: x * 1.0, r"faces is \(4, 3\) of float64, expected int64 with 2 axes"),
        ("faces", lambda x: x[:0], r"faces is \(0, 3\) of int64, expected int64 with 2 axes"),
        ("faces", lambda x: x + 1, r"faces must be \(F, 3\) with ids in 0\.\.3"),
        ("landmarks68", lambda x: x[:67], r"landmarks68 must be 68 vertex ids in 0\.\.3"),
        ("ex_names", lambda _: np.array(["a", "b"]), "ex_names and ex_range must have 1 rows"),
        ("albedo", lambda _: np.zeros((5, 3)), r"albedo has shape \(5, 3\), expected \(4, 3\)"),
        ("albedo_basis", lambda _: np.zeros((4, 3, 2)), "albedo_basis must be .* and come with an albedo"),
        ("ex_basis", lambda x: x * np.nan, "ex_basis holds a value that is not finite"),
    ],
)
def test_a_bent_file_is_named(tmp_path, field, change, message):
    path = tmp_path / "bent.npz"
    save_face_model(small_model(), path)
    with np.load(path) as data:
        arrays = dict(data)
    arrays[field] = change(arrays.get(field))
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as failure:
        load_face_model(path)
    assert "\n" not in str(failure.value)


def test_every_truncation_of_a_file_is_named(tmp_path):
    path = tmp_path / "cut.npz"
    save_face_model(small_model(), path)
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.npz: not a readable \.npz face model"):
            load_face_model(path)


def test_colours_are_the_mean_and_its_modes():
    basis = np.zeros((4, 3, 1), np.float32)
    basis[2] = 0.3
    model = small_model(albedo=np.full((4, 3), 0.5, np.float32), albedo_basis=basis)
    assert model.n_albedo == 1
    np.testing.assert_allclose(model.colours()[2], 0.5)
    colours = model.colours(np.array([[1.0], [-9.0]]))
    assert colours.shape == (2, 4, 3)
    np.testing.assert_allclose(colours[:, 2, 0], [0.8, 0])
    np.testing.assert_allclose(colours[:, 3], 0.5)
    with pytest.raises(ValueError, match="face model 'tetra' has no colours"):
        small_model().colours()
    with pytest.raises(ValueError, match="has a mean colour but no colour modes"):
        small_model(albedo=model.albedo).colours(np.zeros(1))
    with pytest.raises(ValueError, match="colour coefficients have 2 values, this face model has 1"):
        model.colours(np.zeros(2))
