import numpy as np
import pytest

from editing import ControllerMap, controller_names, measure, response


def nose_data(n=200, d=9, seed=0):
    """Measurements that are a linear function of nose latents plus an offset, 6 measures."""
    rng = np.random.default_rng(seed)
    latents, mixing = rng.normal(size=(n, d)), rng.normal(size=(d, 6))
    return {"nose": 40 + latents @ mixing}, {"nose": latents}, mixing


def test_map_is_the_least_squares_solution_of_the_paper():
    x, z, _ = nose_data()
    fitted = ControllerMap.fit(x, z).region("nose")
    dx, dz = x["nose"] - x["nose"].mean(axis=0), z["nose"] - z["nose"].mean(axis=0)
    np.testing.assert_allclose(fitted.matrix, np.linalg.solve(dx.T @ dx, dx.T @ dz), atol=1e-10)
    np.testing.assert_allclose(fitted.rows, x["nose"].std(axis=0)[:, None] * fitted.matrix, atol=1e-12)
    assert fitted.names == controller_names("nose")


def test_r2_is_one_when_latents_follow_from_measurements_and_lower_when_not():
    x, z, _ = nose_data(d=6)
    assert ControllerMap.fit(x, z).region("nose").r2 == pytest.approx(1.0, abs=1e-10)
    x, z, _ = nose_data(d=12)
    assert 0.3 < ControllerMap.fit(x, z).region("nose").r2 < 0.7


def test_response_of_a_linear_model_is_exactly_the_identity():
    x, z, mixing = nose_data()
    controllers = ControllerMap.fit(x, z)
    matrix = response(controllers, lambda latents: {"nose": 40 + latents["nose"] @ mixing}, controllers.base_latents())
    np.testing.assert_allclose(matrix.values, np.eye(6), atol=1e-9)
    assert matrix.names[3] == "nose.width"
    assert matrix.diagonal()["nose.width"] == pytest.approx(1.0)


def test_response_names_the_measurement_that_leaks():
    x, z, mixing = nose_data()
    controllers = ControllerMap.fit(x, z)
    sigma = controllers.region("nose").sigma

    def leaking(latents):
        measured = 40 + latents["nose"] @ mixing
        measured[:, 5] += 0.5 * sigma[5] / sigma[2] * measured[:, 2]
        return {"nose": measured}

    matrix = response(controllers, leaking, controllers.base_latents(), step=-2)
    asked, measured, leak = matrix.worst_leak()
    assert (asked, measured) == ("nose.height", "nose.bridge_width")
    assert leak == pytest.approx(0.5)


def test_response_measured_on_decoded_faces(face, points, controllers):
    matrix = response(
        controllers, lambda latents: measure(face.decode(latents)[0], points), controllers.base_latents(), step=1
    )
    diagonal = matrix.diagonal()
    # where the lips meet belongs to the lips, whose latents the controls of rest do not move
    assert diagonal.pop("rest.upper_facial_height") < 0.9
    assert all(0.9 < value < 1.1 for value in diagonal.values()), diagonal
    np.testing.assert_allclose(matrix.block("eyes", "nose"), 0, atol=1e-9)


def test_ridge_shrinks_and_zero_ridge_does_not():
    x, z, _ = nose_data()
    norms = [np.linalg.norm(ControllerMap.fit(x, z, ridge=r).rows("nose")) for r in (0.0, 0.1, 1.0)]
    assert norms[0] > norms[1] > norms[2] > 0
    np.testing.assert_allclose(
        ControllerMap.fit(x, z, ridge=1e-12).rows("nose"), ControllerMap.fit(x, z).rows("nose"), atol=1e-8
    )


def test_collinear_measurements_are_reported():
    x, z, _ = nose_data()
    x["nose"][:, 4] = 2 * x["nose"][:, 3] + np.random.default_rng(1).normal(0, 0.1, len(x["nose"]))
    ((first, second, correlation),) = ControllerMap.fit(x, z).region("nose").collinear
    assert (first, second) == ("width", "tip_width")
    assert correlation > 0.99


def test_apply_adds_rows_and_keeps_type_leading_shape_and_input(controllers):
    z = {"eyes": np.ones((2, 3, 7), dtype=np.float32), "nose": np.zeros(9)}
    before = z["eyes"].copy()
    edited = controllers.apply(z, {"eyes": np.array([0, 2.0, 0, 0, -1.0])})
    rows = controllers.rows("eyes")
    assert edited["eyes"].dtype == np.float32
    np.testing.assert_allclose(edited["eyes"], np.broadcast_to(1 + 2 * rows[1] - rows[4], (2, 3, 7)), rtol=1e-6)
    np.testing.assert_array_equal(z["eyes"], before)
    np.testing.assert_array_equal(edited["nose"], 0)
    assert edited["nose"] is not z["nose"]


def test_zero_controls_return_the_latents_bit_for_bit(controllers):
    z = {"nose": np.random.default_rng(0).normal(size=9)}
    np.testing.assert_array_equal(controllers.apply(z, {"nose": np.zeros(6)})["nose"], z["nose"])


def test_sigma_for_value_moves_the_measurement_by_what_is_wanted(controllers, face, points):
    base = controllers.base_latents()
    now = measure(face.decode(base)[0], points)["eyes"]
    c = np.zeros(5)
    c[1] = controllers.sigma_for_value("eyes", "eye_height", now[1], now[1] + 0.3)
    moved = measure(face.decode(controllers.apply(base, {"eyes": c}))[0], points)["eyes"]
    assert moved[1] - now[1] == pytest.approx(0.3, abs=1e-6)


def test_map_survives_plain_arrays(controllers):
    again = ControllerMap.from_dict(controllers.to_dict())
    assert list(again.regions) == list(controllers.regions)
    for region, fitted in controllers.regions.items():
        for field, value in vars(fitted).items():
            np.testing.assert_array_equal(getattr(again.regions[region], field), value)


def test_some_controllers_of_a_region_can_be_fitted_alone():
    x, z, _ = nose_data()
    controllers = ControllerMap.fit({"nose": x["nose"][:, [2, 4]]}, z, names={"nose": ["height", "tip_width"]})
    assert controllers.rows("nose").shape == (2, 9)
    assert controllers.position("nose", "tip_width") == 1


def test_a_stored_map_with_wrong_shapes_is_refused(controllers):
    stored = controllers.to_dict()
    stored["nose"]["sigma"] = stored["nose"]["sigma"][:-1]
    with pytest.raises(ValueError, match=r"stored sigma of nose has shape \(5,\): expected \(6,\)"):
        ControllerMap.from_dict(stored)
    del stored["nose"]["sigma"]
    with pytest.raises(ValueError, match="stored controllers of nose lack sigma"):
        ControllerMap.from_dict(stored)


def test_wrong_data_for_the_fit_is_refused_in_one_line():
    x, z, _ = nose_data()
    still, nan = x["nose"].copy(), x["nose"].copy()
    still[:, 3], nan[3, 3] = 35.0, np.nan
    for arguments, message in [
        (({"nose": x["nose"]}, {"eyes": z["nose"]}), "give the same regions"),
        (({"chin": x["nose"]}, {"chin": z["nose"]}), "unknown regions"),
        (({"nose": x["nose"][:, :5]}, z), r"measurements of nose have shape \(200, 5\): expected \(N, 6\)"),
        ((x, {"nose": z["nose"][:-1]}), r"latents of nose have shape \(199, 9\)"),
        (({"nose": x["nose"][:6]}, {"nose": z["nose"][:6]}), "6 faces cannot determine the 6 controllers"),
        (({"nose": still}, z), r"nose\.width does not vary"),
        (({"nose": nan}, z), "not finite"),
        ((x, z, -1.0), "ridge is -1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            ControllerMap.fit(*arguments)


def test_wrong_edits_are_refused_in_one_line(controllers):
    z = {"nose": np.zeros(9)}
    for latents, controls, message in [
        (z, {"nose": np.zeros(5)}, r"controls of nose have shape \(5,\): expected \(\.\.\., 6\)"),
        ({"nose": np.zeros(8)}, {"nose": np.zeros(6)}, r"latents of nose have shape \(8,\)"),
        (z, {"eyes": np.zeros(5)}, "controls for 'eyes' but no latents"),
    ]:
        with pytest.raises(ValueError, match=message):
            controllers.apply(latents, controls)
    with pytest.raises(ValueError, match="no controller 'length' in nose"):
        controllers.position("nose", "length")
    with pytest.raises(ValueError, match="no controllers for region 'chin'"):
        controllers.rows("chin")
    with pytest.raises(ValueError, match="step is 0"):
        response(controllers, lambda latents: latents, controllers.base_latents(), step=0)


def test_response_refuses_measurements_of_another_shape():
    x, z, _ = nose_data()
    controllers = ControllerMap.fit(x, z)
    with pytest.raises(ValueError, match=r"measurements of nose have shape \(7, 9\): expected \(7, 6\)"):
        response(controllers, lambda latents: latents, controllers.base_latents())
