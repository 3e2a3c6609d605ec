import numpy as np
import pytest

from dataset_builder.face_model import FaceModel
from dataset_builder.face_model_file import save_face_model
from dataset_builder.models import load_face_model


def small_model(**optional):
    rng = np.random.default_rng(1)
    return FaceModel(
        name="tetra",
        licence="none",
        mean=rng.standard_normal((4, 3)).astype(np.float32),
        id_basis=rng.standard_normal((4, 3, 2)).astype(np.float32),
        ex_basis=rng.standard_normal((4, 3, 1)).astype(np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int64),
        landmarks68=np.arange(68) % 4,
        ex_names=("jawOpen",),
        ex_range=np.array([[0, 1]], np.float32),
        **optional,
    )


@pytest.mark.parametrize(
    "optional",
    [{}, {"mirror": np.array([1, 0, 2, 3]), "labels": np.array([1, 2, 1, 1]), "uv": np.zeros((4, 2), np.float32)}],
)
def test_a_saved_model_comes_back(tmp_path, optional):
    model = small_model(**optional)
    path = tmp_path / "sub" / "face.npz"
    save_face_model(model, path)
    loaded = load_face_model(path)
    assert (loaded.name, loaded.licence, loaded.ex_names) == (model.name, model.licence, model.ex_names)
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
    with pytest.raises(ValueError, match=r"unknown face model 'bfm': use synthetic, synthetic-3k, synthetic-35k, ict"):
        load_face_model("bfm")


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
