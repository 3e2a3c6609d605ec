import numpy as np
import pytest

from dataset_builder.camera import CropCamera
from dataset_builder.face_model import FaceModel
from dataset_builder.parts import LABEL_IDS
from dataset_builder.procedural import (
    build_procedural_face,
    cached_procedural_face,
    front_valid,
    triangle_labels,
    valid_identity,
)
from dataset_builder.procedural import cache as cache_module
from dataset_builder.procedural.handles import HANDLES, Warp
from dataset_builder.procedural.identity import PARAMETERS, sample_parameters


@pytest.fixture(scope="module")
def model():
    return build_procedural_face(3000)


def expression(model, **values):
    return np.array([values.get(name, 0.0) for name in model.ex_names], np.float32)


def nearest(model, x, y, part=None):
    distance = np.linalg.norm(model.chart - np.array([x, y], np.float32), axis=1)
    if part is not None:
        distance[model.labels != LABEL_IDS[part]] = np.inf
    return int(distance.argmin())


def test_model_has_the_promised_contents(model):
    assert model.n_identity == 64
    assert {"smile", "blink_left", "blink_right", "jaw_open", "brow_raise"} <= set(model.ex_names)
    np.testing.assert_array_equal(model.ex_range, np.tile([0, 1], (model.n_expression, 1)))
    assert model.uv.min() >= 0
    assert model.uv.max() <= 1
    assert set(np.unique(model.labels)) == {1, 2, 3, 4, 5, 6}
    assert model.mean.dtype == np.float32


def test_same_seed_same_face_other_seed_other_modes(model):
    again = build_procedural_face(3000)
    assert again.topology_hash() == model.topology_hash()
    np.testing.assert_array_equal(again.mean, model.mean)
    np.testing.assert_allclose(np.abs(again.id_basis), np.abs(model.id_basis), atol=1e-3)
    assert build_procedural_face(3000, seed=1).topology_hash() != model.topology_hash()


def test_modes_are_sorted_orthogonal_and_carry_nearly_everything(model):
    flat = model.id_basis.reshape(-1, 64).astype(float)
    gram = flat.T @ flat
    variance = np.diag(gram)
    assert (np.diff(variance) <= 1e-3 * variance[:-1]).all()
    assert np.abs(gram - np.diag(variance)).max() < 1e-3 * variance[0]
    assert variance[-1] < 1e-3 * variance[0]


def test_mean_face_is_symmetric_and_labels_follow(model):
    np.testing.assert_allclose(model.mean[model.mirror], model.mean * [-1, 1, 1], atol=0.4)
    np.testing.assert_array_equal(model.labels[model.mirror], model.labels)


def test_triangle_labels_agree_with_vertex_labels(model):
    labels = triangle_labels(model)
    for part in ("eyebrows", "eyes", "nose"):
        inside = (model.labels[model.faces] == LABEL_IDS[part]).all(1)
        assert (labels[inside] == LABEL_IDS[part]).mean() > 0.97
        assert (model.labels[model.faces[labels == LABEL_IDS[part]]] == LABEL_IDS[part]).all()


def test_landmarks_are_on_their_parts_and_symmetric(model):
    part = model.labels[model.landmarks68]
    assert (part[17:27] == LABEL_IDS["eyebrows"]).all()
    assert (part[27:36] == LABEL_IDS["nose"]).all()
    assert (part[36:48] == LABEL_IDS["eyes"]).all()
    assert (part[[49, 50, 51, 52, 53, 61, 62, 63]] == LABEL_IDS["upper_lip"]).all()
    assert (part[[55, 56, 57, 58, 59, 65, 66, 67]] == LABEL_IDS["lower_lip"]).all()
    pairs = [(0, 16), (4, 12), (17, 26), (21, 22), (31, 35), (36, 45), (39, 42), (37, 44), (41, 46), (48, 54), (60, 64)]
    for a, b in pairs:
        assert model.mirror[model.landmarks68[a]] == model.landmarks68[b]
    assert model.mean[model.landmarks68[0], 0] < 0


def test_random_people_are_valid_and_the_few_folded_ones_get_shrunk(model):
    people = model.sample(150, seed=2)
    assert np.mean([front_valid(model, model.shape(p)) for p in people]) > 0.97
    wild = valid_identity(model, people * 4)
    assert all(front_valid(model, model.shape(p)) for p in wild)
    assert (np.linalg.norm(wild, axis=1) < np.linalg.norm(people * 4, axis=1)).any()
    calm = valid_identity(model, people[:3] * 0.1)
    np.testing.assert_array_equal(calm, people[:3] * np.float32(0.1))


def test_average_measurements_are_those_of_people(model):
    mean = model.mean.astype(float)
    eyes = abs(mean[nearest(model, 29.6, 27.2), 0] - mean[nearest(model, -29.6, 27.2), 0])
    tip = mean[nearest(model, 0, -3.7)]
    nose = mean[model.labels == LABEL_IDS["nose"]]
    assert eyes == pytest.approx(59.1, abs=1.5)
    assert tip[2] == pytest.approx(51.0, abs=2.0)
    assert np.ptp(nose[:, 1]) == pytest.approx(47.2, abs=1.5)
    assert np.ptp(nose[:, 0]) == pytest.approx(35.8, abs=1.5)
    assert np.ptp(mean[:, 0]) == pytest.approx(146.0, abs=3.0)


def test_mean_face_fills_the_crop(model):
    pixels = CropCamera().project(model.mean)
    assert pixels.min() > 20
    assert pixels.max() < 210


def test_expressions_at_full_strength_fold_nothing(model):
    for k in range(model.n_expression):
        assert front_valid(model, model.shape(np.zeros(64), np.eye(model.n_expression)[k])), model.ex_names[k]


def test_jaw_open_parts_the_lips_and_leaves_the_corners_together(model):
    closed = model.shape(np.zeros(64))
    upper, lower = model.landmarks68[62], model.landmarks68[66]
    np.testing.assert_allclose(closed[upper], closed[lower], atol=1e-5)
    opened = model.shape(np.zeros(64), expression(model, jaw_open=1.0))
    assert opened[upper, 1] - opened[lower, 1] > 12
    np.testing.assert_allclose(opened[model.landmarks68[[48, 54]]], closed[model.landmarks68[[48, 54]]], atol=0.5)


def test_blink_closes_one_eye_only(model):
    shut = model.shape(np.zeros(64), expression(model, blink_left=1.0))
    left, right = shut[model.landmarks68[[43, 47]], 1], shut[model.landmarks68[[38, 40]], 1]
    assert left[0] - left[1] < 1.0
    assert right[0] - right[1] > 4.5


def test_brow_edit_moves_no_other_part():
    points = np.array([[29.6, 27.2], [0, 0], [0, -33], [60, -20]], float)
    warp = Warp(points)
    parameter = next(p for p in PARAMETERS if p.name == "brow front thickness")
    assert np.abs(warp(parameter.moves)).max() < 0.05
    everywhere = Warp(np.array(list(HANDLES.values()), float))({"tip": (0, 1)})
    assert everywhere[list(HANDLES).index("tip")] == pytest.approx([0, 1], abs=1e-6)
    assert np.abs(np.delete(everywhere, list(HANDLES).index("tip"), 0)).max() < 1e-6


def test_parameters_are_standard_normal_and_share_their_causes():
    values = sample_parameters(4000, seed=3)
    assert np.abs(values.mean(0)).max() < 0.08
    assert np.abs(values.std(0) - 1).max() < 0.08
    names = [p.name for p in PARAMETERS]
    lips = values[:, [names.index("upper lip height"), names.index("lower lip height")]]
    assert np.corrcoef(lips.T)[0, 1] > 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((100,), "n_vertices is 100, must be between"), ((3000, 0, 9.0), "spread is 9.0, must be above 0")],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_procedural_face(*arguments)


def test_triangle_labels_need_canonical_points(model):
    plain = FaceModel("plain", "", model.mean, model.id_basis, model.ex_basis, model.faces, model.landmarks68,
                      model.ex_names, model.ex_range)  # fmt: skip
    with pytest.raises(ValueError, match="'plain' has no canonical points"):
        triangle_labels(plain)


def test_cache_is_read_back_rebuilt_when_damaged_and_leaves_no_litter(tmp_path, monkeypatch, model):
    built = []
    monkeypatch.setattr(cache_module, "build_procedural_face", lambda n, seed: built.append(n) or model)
    first = cached_procedural_face(3000, tmp_path)
    second = cached_procedural_face(3000, tmp_path)
    assert built == [3000]
    for name in ("mean", "id_basis", "ex_basis", "faces", "landmarks68", "mirror", "uv", "labels", "chart"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (second.name, second.licence, second.ex_names) == (model.name, model.licence, model.ex_names)
    (stored,) = tmp_path.iterdir()
    stored.write_bytes(stored.read_bytes()[:5000])
    cached_procedural_face(3000, tmp_path)
    assert built == [3000, 3000]
    damaged = bytearray(stored.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    stored.write_bytes(bytes(damaged))
    cached_procedural_face(3000, tmp_path)
    assert built == [3000, 3000, 3000]
    assert [p.suffix for p in tmp_path.iterdir()] == [".npz"]
    cached_procedural_face(6000, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
