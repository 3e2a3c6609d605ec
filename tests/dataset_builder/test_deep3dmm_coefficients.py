import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builder.alignment import CANONICAL_FIVE_POINTS_DM, _fit_camera
from dataset_builder.face_coefficients import FaceCoefficients
from dataset_builder.face_model import FaceModel
from dataset_builder.spherical_harmonics import irradiance_basis, sh_shading


def a_face(seed=0, n=12):
    rng = np.random.default_rng(seed)
    faces = np.array([[i, (i + 1) % n, (i + 5) % n] for i in range(n)], np.int64)
    return FaceModel(
        name="made up",
        licence="none",
        mean=rng.normal(0, 40, (n, 3)).astype(np.float32),
        id_basis=rng.normal(0, 1, (n, 3, 80)).astype(np.float32),
        ex_basis=rng.normal(0, 1, (n, 3, 64)).astype(np.float32),
        faces=faces,
        landmarks68=np.arange(68) % n,
        ex_names=tuple(f"e{i}" for i in range(64)),
        ex_range=np.zeros((64, 2), np.float32),
        albedo=rng.uniform(0.3, 0.7, (n, 3)).astype(np.float32),
        albedo_basis=rng.normal(0, 0.005, (n, 3, 80)).astype(np.float32),
    )


def network_outputs(n=3, seed=1):
    outputs = np.random.default_rng(seed).normal(0, 0.5, (n, 257)).astype(np.float32)
    outputs[:, 224:227] *= 0.4
    return outputs


def official_camera_points(outputs, model):
    """Camera-frame vertices in decimetres, step by step as Deng et al. 2019 define them."""
    shape = (model.mean + model.id_basis @ outputs[:80] + model.ex_basis @ outputs[80:144]).astype(float) / 100
    x, y, z = outputs[224:227].astype(float)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.array([about_z @ about_y @ about_x @ point + outputs[254:] for point in shape])


def test_outputs_are_split_in_the_official_order():
    outputs = np.arange(257, dtype=np.float32)[None]
    face = FaceCoefficients.from_network(outputs)
    for values, first, last in (
        (face.identity, 0, 79),
        (face.expression, 80, 143),
        (face.texture, 144, 223),
        (face.angles, 224, 226),
    ):
        assert (values[0, 0], values[0, -1]) == (first, last)
    np.testing.assert_allclose(face.light[0, :, 1], [228, 237, 246])
    np.testing.assert_allclose(face.light[0, :, 0], [227.8, 236.8, 245.8])
    np.testing.assert_allclose(face.translation[0], [25400, 25500, 25600])


def test_network_outputs_come_back():
    outputs = network_outputs()
    face = FaceCoefficients.from_network(outputs)
    np.testing.assert_allclose(face.to_network(), outputs, atol=1e-6)
    assert len(face) == 3
    assert all(getattr(face, name).dtype == np.float32 for name in FaceCoefficients.__dataclass_fields__)


def test_pose_and_landmarks_are_those_of_the_official_camera():
    model, outputs = a_face(), network_outputs()
    face = FaceCoefficients.from_network(outputs)
    posed, landmarks = face.posed(model), face.landmarks(model)
    for row in range(3):
        in_dm = official_camera_points(outputs[row], model)
        np.testing.assert_allclose(posed[row], 100 * in_dm, atol=1e-3)
        u = 1015 * in_dm[:, 0] / (10 - in_dm[:, 2]) + 112
        up = 1015 * in_dm[:, 1] / (10 - in_dm[:, 2]) + 112
        np.testing.assert_allclose(landmarks[row], np.stack([u, 224 - up], 1)[model.landmarks68], atol=1e-3)


def test_the_neutral_shape_has_neither_expression_nor_pose():
    model, outputs = a_face(), network_outputs()
    changed = outputs.copy()
    changed[:, 80:144], changed[:, 224:227], changed[:, 254:] = 0, 0, 7
    neutral = FaceCoefficients.from_network(outputs).neutral(model)
    np.testing.assert_array_equal(neutral, FaceCoefficients.from_network(changed).neutral(model))
    np.testing.assert_allclose(neutral[0], model.mean + model.id_basis @ outputs[0, :80], atol=1e-3)


def test_albedo_is_the_mean_plus_modes_within_zero_and_one():
    model, outputs = a_face(), network_outputs()
    albedo = FaceCoefficients.from_network(outputs).albedo(model)
    np.testing.assert_allclose(albedo[1], model.albedo + model.albedo_basis @ outputs[1, 144:224], atol=1e-6)
    outputs[:, 144:224] *= 1e4
    extreme = FaceCoefficients.from_network(outputs).albedo(model)
    assert (extreme.min(), extreme.max()) == (0, 1)


def test_without_predicted_light_the_ambient_term_remains():
    model, outputs = a_face(), network_outputs()
    outputs[:, 227:254] = 0
    face = FaceCoefficients.from_network(outputs)
    np.testing.assert_allclose(face.lit_colours(model), face.albedo(model) * 0.8 * np.sqrt(np.pi) / 2, rtol=1e-5)


def test_light_from_the_front_brightens_what_faces_the_camera_only():
    light = np.zeros((3, 9))
    light[:, 2] = 1
    towards, away, up = sh_shading(np.array([[0.0, 0, 1], [0, 0, -1], [0, 1, 0]]), light)
    np.testing.assert_allclose(towards, -away)
    assert (towards > 0.5).all()
    np.testing.assert_allclose(up, 0, atol=1e-12)


def test_basis_is_orthogonal_with_the_factors_of_its_bands():
    z, weights = np.polynomial.legendre.leggauss(8)
    turn = np.arange(16) * 2 * np.pi / 16
    radius = np.sqrt(1 - z**2)[:, None]
    normals = np.stack([radius * np.cos(turn), radius * np.sin(turn), np.broadcast_to(z[:, None], (8, 16))], -1)
    values = irradiance_basis(normals)
    gram = np.einsum("ijk,ijl,i->kl", values, values, weights * 2 * np.pi / 16)
    bands = np.array([np.pi, *[2 * np.pi / np.sqrt(3)] * 3, *[2 * np.pi / np.sqrt(8)] * 5])
    np.testing.assert_allclose(gram, np.diag(bands**2), atol=1e-9)


def test_signs_of_the_basis():
    x, y, z = 0.6, 0.64, 0.48
    signs = np.sign(irradiance_basis(np.array([x, y, z])))
    expected = np.sign([1, -y, z, -x, x * y, -y * z, 3 * z * z - 1, -x * z, x * x - y * y])
    np.testing.assert_array_equal(signs, expected)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.zeros((2, 256)), r"network outputs must be \(N, 257\), got \(2, 256\)"),
        (np.zeros(257), r"network outputs must be \(N, 257\), got \(257,\)"),
        (np.vstack([np.zeros(257), np.full(257, np.nan)]), "coefficients of face 1 are not finite"),
    ],
)
def test_wrong_outputs_are_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        FaceCoefficients.from_network(outputs)


def test_photos_are_aligned_as_by_the_official_procedure():
    """Camera and five points of the 13 photos, to a hundredth of a pixel, before the crop's corner is truncated."""
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no parity fixture")
    data = Path(os.environ["NEO3DF_ASSETS"])
    fixture = json.loads((data / "parity" / "deep3dmm_alignment.json").read_text())
    np.testing.assert_allclose(CANONICAL_FIVE_POINTS_DM, fixture["canonical_five_points_dm"], atol=1e-6)
    assert len(fixture["photos"]) == 13
    for name, official in fixture["photos"].items():
        path = data / "photos" / "deep3d" / name
        points = np.loadtxt(path.with_suffix(".txt"))
        with Image.open(path) as image:
            width, height = image.size
        scale, tx, ty = _fit_camera(points, height)
        np.testing.assert_allclose([width, height, scale, tx, ty], official["w0_h0_scale_tx_ty"], atol=1e-4)
        up = np.stack([points[:, 0], height - 1 - points[:, 1]], 1)
        resized = np.array([width, height]) * scale
        in_crop = (up - [tx, ty]) * scale + (resized - resized.astype(int)) / 2 + 112
        np.testing.assert_allclose(in_crop, official["points_in_crop_y_up"], atol=0.01, err_msg=name)
