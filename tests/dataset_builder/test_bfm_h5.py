import json
import sys

import numpy as np
import pytest

from dataset_builder.bfm_h5 import NAMED_LANDMARKS, load_bfm_h5
from dataset_builder.models import load_face_model

h5py = pytest.importorskip("h5py")

SHIFT = np.array([1.0, 2.0, 90.0])  # the files are not centred


@pytest.fixture(scope="module")
def face():
    return load_face_model("synthetic-3k")


@pytest.fixture(scope="module")
def content(face):
    """The datasets of a made-up file, by their place."""
    rng = np.random.default_rng(0)
    v = face.n_vertices
    groups = {
        "shape": ((face.mean + SHIFT).ravel(), 7),
        "expression": (rng.normal(0, 1, 3 * v), 5),
        "color": (rng.uniform(0.2, 0.8, 3 * v), 4),
    }
    data = {}
    for group, (mean, modes) in groups.items():
        data[f"{group}/model/mean"] = mean.astype(np.float32)
        data[f"{group}/model/pcaBasis"] = rng.normal(0, 0.01, (3 * v, modes)).astype(np.float32)
        data[f"{group}/model/pcaVariance"] = rng.uniform(1, 900, modes).astype(np.float32)
        data[f"{group}/model/noiseVariance"] = np.float32(0)
    data["shape/representer/cells"] = face.faces.T.astype(np.int32)
    data["shape/representer/points"] = face.mean.T
    points = face.mean[face.landmarks68] + SHIFT
    data["metadata/landmarks/json"] = json.dumps(
        [{"id": name, "coordinates": points[number].tolist()} for name, number in NAMED_LANDMARKS.items()]
        + [{"id": "left.ear.tragus.tip", "coordinates": [80.0, 0.0, 0.0]}]
    )
    return data


def write(path, content):
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file[key] = values
    return path


def without(content, *prefixes):
    return {key: values for key, values in content.items() if not key.startswith(prefixes)}


def test_shape_expression_and_colour_are_read(content, face, tmp_path):
    model = load_face_model(write(tmp_path / "model2019_face12.h5", content))
    assert (model.name, model.n_identity, model.n_expression, model.n_albedo) == ("model2019_face12", 7, 1 + 5, 4)
    np.testing.assert_allclose(model.mean, face.mean - face.mean.mean(0), atol=1e-3)
    for name, group, skipped in (("id_basis", "shape", 0), ("ex_basis", "expression", 1), ("albedo_basis", "color", 0)):
        basis, variance = content[f"{group}/model/pcaBasis"], content[f"{group}/model/pcaVariance"]
        for mode in range(len(variance)):
            expected = (basis[:, mode] * np.sqrt(variance[mode])).reshape(-1, 3)
            np.testing.assert_allclose(getattr(model, name)[..., skipped + mode], expected, rtol=1e-5)
    np.testing.assert_allclose(model.albedo.ravel(), content["color/model/mean"])
    np.testing.assert_array_equal(model.faces, face.faces)
    assert model.source == "model2019_face12.h5, landmarks of its 12 named points"


def test_neutral_face_is_without_the_mean_expression_and_a_file_face_with_it(content, tmp_path):
    model = load_bfm_h5(write(tmp_path / "m.h5", content))
    assert model.ex_names[:2] == ("mean_expression", "expression_00")
    assert model.ex_range[:2].tolist() == [[0, 1], [-3, 3]]
    identity = np.zeros(7)
    np.testing.assert_allclose(model.shape(identity), model.mean, atol=1e-4)
    offset = model.shape(identity, np.eye(6)[0]) - model.mean
    np.testing.assert_allclose(offset.ravel(), content["expression/model/mean"], atol=1e-4)


def test_landmarks_come_from_the_named_points(content, face, tmp_path):
    model = load_bfm_h5(write(tmp_path / "m.h5", content))
    named = list(NAMED_LANDMARKS.values())
    np.testing.assert_array_equal(model.mean[model.landmarks68[named]], model.mean[face.landmarks68[named]])
    apart = np.linalg.norm(model.mean[model.landmarks68] - model.mean[face.landmarks68], axis=1)
    assert apart.max() < 0.1


def test_landmarks_come_from_the_file_beside_the_model(content, face, tmp_path):
    path = write(tmp_path / "m.h5", without(content, "metadata"))
    with pytest.raises(ValueError, match=r"m\.h5: holds no landmarks; put m\.landmarks68\.txt with 68 vertex ids"):
        load_bfm_h5(path)
    (tmp_path / "m.landmarks68.txt").write_text("\n".join(map(str, face.landmarks68)))
    model = load_bfm_h5(path)
    np.testing.assert_array_equal(model.landmarks68, face.landmarks68)
    assert model.source == "m.h5, landmarks of m.landmarks68.txt"
    (tmp_path / "other.txt").write_text(" ".join(map(str, face.landmarks68)))
    assert load_face_model(path, landmarks=tmp_path / "other.txt").source == "m.h5, landmarks of other.txt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "holds 3 vertex ids, expected 68 in 0 to"),
        (" ".join(["99999"] * 68), "holds 68 vertex ids, expected 68 in 0 to"),
        ("one two", "not a list of 68 vertex ids"),
    ],
)
def test_a_wrong_landmark_file_is_named(content, tmp_path, text, message):
    (tmp_path / "m.landmarks68.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"m\.landmarks68\.txt: {message}"):
        load_bfm_h5(write(tmp_path / "m.h5", content))


def test_a_model_of_shape_alone_is_read(content, tmp_path):
    model = load_bfm_h5(write(tmp_path / "m.h5", without(content, "expression", "color")))
    assert (model.n_identity, model.n_expression, model.n_albedo, model.albedo) == (7, 0, 0, None)


def test_colours_to_255_and_triangles_in_rows_are_understood(content, face, tmp_path):
    changed = {
        **content,
        "color/model/mean": content["color/model/mean"] * 255,
        "color/model/pcaBasis": content["color/model/pcaBasis"] * 255,
        "shape/representer/cells": face.faces[:, ::-1],
        "metadata/landmarks/json": np.frombuffer(content["metadata/landmarks/json"].encode(), np.uint8),
    }
    model, plain = (load_bfm_h5(write(tmp_path / f"{i}.h5", data)) for i, data in enumerate((changed, content)))
    np.testing.assert_allclose(model.albedo, plain.albedo, atol=1e-6)
    np.testing.assert_allclose(model.albedo_basis, plain.albedo_basis, atol=1e-6)
    np.testing.assert_array_equal(model.faces, face.faces)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("shape/model/mean", None, "lacks shape/model/mean"),
        ("shape/model/pcaVariance", None, "lacks shape/model/pcaVariance"),
        ("shape/representer/cells", None, "lacks shape/representer/cells"),
        ("shape/model/mean", lambda x: x[:-1], r"shape/model/mean has shape \(\d+,\), expected three numbers a vertex"),
        ("color/model/mean", lambda x: x[:-3], r"color/model/mean has shape \(\d+,\), expected \(\d+,\)"),
        ("shape/model/pcaBasis", lambda x: x[:, :-1], r"pcaBasis has shape \(\d+, 6\), expected \(\d+, 7\)"),
        ("expression/model/pcaVariance", lambda x: -x, "pcaVariance holds -.*, a variance below 0"),
        ("shape/representer/cells", lambda x: x + 9_999, r"must be triangles of vertices 0 to \d+"),
        ("shape/representer/cells", lambda x: x[0], r"cells \(\d+,\) must be triangles"),
        ("shape/model/pcaVariance", lambda _: "text", "pcaVariance holds .*, expected numbers"),
        ("metadata/landmarks/json", lambda _: "{not json", "landmarks/json is no list of named points"),
        ("metadata/landmarks/json", lambda _: '[{"id": "a", "coordinates": [1, 2]}]', "'a' is no point of three numb"),
        ("metadata/landmarks/json", lambda _: "[]", "only 0 of the 68 landmarks are named, at least 6 needed"),
        ("shape/model/mean", lambda x: x * 1000, "landmarks put others .* mm from the surface; give all 68 in a file"),
    ],
)
def test_what_is_wrong_is_named(content, tmp_path, key, change, message):
    data = {**content, key: content[key]}
    if change is None:
        del data[key]
    else:
        data[key] = change(content[key])
    with pytest.raises(ValueError, match=rf"m\.h5: .*{message}") as failure:
        load_bfm_h5(write(tmp_path / "m.h5", data))
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("factor", [0.001, 10.0])
def test_wrong_units_are_named(content, face, tmp_path, factor):
    scaled = {**content, "shape/model/mean": content["shape/model/mean"] * factor}
    (tmp_path / "m.landmarks68.txt").write_text(" ".join(map(str, face.landmarks68)))
    with pytest.raises(ValueError, match=r"m\.h5: the outer eye corners are .* mm apart, expected 55 to 140"):
        load_bfm_h5(write(tmp_path / "m.h5", scaled))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_named(content, tmp_path, kept):
    path = write(tmp_path / "m.h5", content)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"m\.h5: not a readable HDF5 file .*; is it truncated\?"):
        load_bfm_h5(path)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install 'neo3df-dataset-builder\[bfm\]'"):
        load_bfm_h5(tmp_path / "m.h5")
