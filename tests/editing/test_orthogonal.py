import numpy as np
import pytest

from editing import CONTROLLERS_BY_REGION, ControllerMap, latent_lengths, measure, orthogonalised, response

D = 8


def noses(mixing, n=400):
    """Latents, a decoder that measures 6 numbers, linear in the latents, and the plain fit."""
    latents = {"nose": np.random.default_rng(0).normal(size=(n, D)) * np.linspace(0.5, 3, D)}

    def decode_and_measure(z):
        return {"nose": 40 + z["nose"] @ mixing}

    return latents, decode_and_measure, ControllerMap.fit(decode_and_measure(latents), latents)


def random_mixing():
    return np.random.default_rng(1).normal(size=(D, 6))


def nearly_collinear_mixing():
    mixing = random_mixing()
    mixing[:, 4] = mixing[:, 3] + 0.1 * mixing[:, 4]
    return mixing


def test_of_linear_measurements_it_finds_the_shortest_movement_that_moves_nothing_else():
    mixing = random_mixing()
    latents, decode_and_measure, plain = noses(mixing)
    found = orthogonalised(plain, decode_and_measure, latents, longest=20)
    covariance, sigma = np.cov(latents["nose"].T), plain.region("nose").sigma
    shortest = sigma[:, None] * np.linalg.solve(mixing.T @ covariance @ mixing, mixing.T @ covariance)
    np.testing.assert_allclose(found.rows("nose"), shortest, atol=0.02 * np.abs(shortest).max())
    own = np.diag(response(found, decode_and_measure, found.base_latents()).values)
    np.testing.assert_allclose(own, 1, atol=0.005)


def test_names_sigma_means_and_pairs_are_those_of_the_fit():
    latents, decode_and_measure, plain = noses(nearly_collinear_mixing())
    before, after = (m.region("nose") for m in (plain, orthogonalised(plain, decode_and_measure, latents)))
    assert (after.names, after.collinear, after.r2) == (before.names, before.collinear, before.r2)
    assert [pair[:2] for pair in after.collinear] == [("width", "tip_width")]
    for field in ("sigma", "mean_measurement", "mean_latent"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))


def test_collinear_measurements_are_held_as_far_as_the_longest_movement_allows():
    latents, decode_and_measure, plain = noses(nearly_collinear_mixing())
    assert latent_lengths(plain, latents)["nose"].max() > 5
    cross = []
    for longest in (1.0, 2.0, 4.0):
        found = orthogonalised(plain, decode_and_measure, latents, longest=longest)
        matrix = response(found, decode_and_measure, found.base_latents())
        assert latent_lengths(found, latents)["nose"].max() <= 1.06 * longest
        np.testing.assert_allclose(np.diag(matrix.values), 1, atol=0.06)
        cross.append(matrix.cross_response("nose"))
    assert cross[0] > 1.5 * cross[1] > 1.5 * 1.2 * cross[2] > 0


def test_with_length_one_the_others_follow_as_they_do_in_the_data():
    latents, decode_and_measure, plain = noses(random_mixing())
    found = orthogonalised(plain, decode_and_measure, latents, longest=1.0)
    others = ~np.eye(6, dtype=bool)
    natural = np.corrcoef(decode_and_measure(latents)["nose"].T)[others]
    moved = response(found, decode_and_measure, found.base_latents()).values[others]
    assert np.corrcoef(moved, natural)[0, 1] > 0.9
    assert np.abs(moved).mean() > 0.5 * np.abs(natural).mean()


def test_at_both_ends_of_the_slider_it_does_what_least_squares_does_not():
    rng = np.random.default_rng(2)
    latents = {"lower_lip": rng.normal(size=(500, 5))}

    def decode_and_measure(z):
        a, b, c, d, e = z["lower_lip"].T
        return {"lower_lip": np.stack([np.hypot(5 + a, 2 * b + 1.5 * a), 20 + c, 5 + d + 0.1 * e], axis=1)}

    plain = ControllerMap.fit(decode_and_measure(latents), latents)
    found = orthogonalised(plain, decode_and_measure, latents, longest=2.5)

    def worst(controllers):
        base = controllers.base_latents()
        both = [np.diag(response(controllers, decode_and_measure, base, step).values) for step in (3, -3)]
        return np.abs(np.array(both) - 1).max()

    assert worst(plain) > 0.2
    assert worst(found) < 0.1


def test_controls_of_symmetric_faces_stay_symmetric():
    """The last latent is an asymmetry that a mean of both sides sees by its square only."""
    rng = np.random.default_rng(3)
    latents = {"eyes": rng.normal(size=(600, 9))}
    mixing = rng.normal(size=(8, 5))

    def decode_and_measure(z):
        linear = z["eyes"][:, :8] @ mixing
        return {"eyes": 30 + linear + 0.1 * linear * np.abs(linear) + 0.3 * z["eyes"][:, 8:] ** 2 * np.sign(linear)}

    plain = ControllerMap.fit(decode_and_measure(latents), latents)
    symmetric = {"eyes": latents["eyes"] * (np.arange(9) < 8)}
    free = orthogonalised(plain, decode_and_measure, latents, longest=3)
    held = orthogonalised(plain, decode_and_measure, latents, symmetric=symmetric, longest=3)
    assert np.abs(free.rows("eyes")[:, 8]).max() > 0.01
    assert np.abs(held.rows("eyes")[:, 8]).max() < 0.05 * np.abs(held.rows("eyes")).max()
    assert np.abs(held.rows("eyes")[:, :8]).max() > 0.3


def test_every_control_of_a_whole_face_keeps_its_promise(face, points, controllers, latents):
    def decode_and_measure(z):
        return measure(face.decode(z)[0], points)

    found = orthogonalised(controllers, decode_and_measure, latents, longest=3, step=1.5)
    for step in (1.5, -1.5):
        matrix = response(found, decode_and_measure, found.base_latents(), step)
        diagonal = matrix.diagonal()
        # where the lips meet belongs to the lips, whose latents the controls of rest do not move
        diagonal.pop("rest.upper_facial_height")
        assert all(0.9 < value < 1.1 for value in diagonal.values()), diagonal
    assert list(found.regions) == list(CONTROLLERS_BY_REGION)


def test_cross_response_and_worst_leak_look_inside_one_region(face, points, controllers):
    matrix = response(controllers, lambda z: measure(face.decode(z)[0], points), controllers.base_latents(), step=1)
    block = matrix.block("nose")
    off = [abs(block[i, j]) for i in range(6) for j in range(6) if i != j]
    assert matrix.cross_response("nose") == pytest.approx(np.mean(off))
    asked, measured, leak = matrix.worst_leak("nose")
    assert asked.startswith("nose.")
    assert measured.startswith("nose.")
    assert abs(leak) == pytest.approx(max(off))
    assert abs(matrix.worst_leak()[2]) >= max(abs(matrix.worst_leak(region)[2]) for region in controllers.regions)


def test_lengths_are_mahalanobis():
    latents, _, plain = noses(random_mixing())
    inverse = np.linalg.inv(np.cov(latents["nose"].T))
    expected = [np.sqrt(row @ inverse @ row) for row in plain.rows("nose")]
    np.testing.assert_allclose(latent_lengths(plain, latents)["nose"], expected, rtol=1e-5)


def test_wrong_arguments_are_refused_in_one_line():
    latents, decode_and_measure, plain = noses(random_mixing())
    for arguments, keywords, message in [
        ((decode_and_measure, latents), {"longest": 0.9}, "longest is 0.9: .* a length of 1 or more"),
        ((decode_and_measure, latents), {"longest": np.nan}, "longest is nan"),
        ((decode_and_measure, latents), {"step": 0}, "step is 0: ask for a positive number"),
        ((decode_and_measure, {}), {}, "no latents of nose"),
        ((decode_and_measure, {"nose": np.full((20, D), np.inf)}), {}, "latents of nose are not finite"),
        ((decode_and_measure, latents, {"eyes": np.zeros(D)}), {}, "base has no latents of nose"),
        ((decode_and_measure, {"nose": latents["nose"][:D]}), {}, r"latents of nose have shape \(8, 8\)"),
        ((decode_and_measure, {"nose": latents["nose"][:, 1:]}), {}, r"expected \(N, 8\) with N above 8"),
        ((decode_and_measure, latents), {"symmetric": {"eyes": latents["nose"]}}, "no latents of nose: .* eyes"),
        ((lambda z: {"nose": z["nose"][:, :5]}, latents), {}, r"measurements of nose must be finite and \(1, 6\)"),
        ((lambda z: {"nose": np.full((len(z["nose"]), 6), np.nan)}, latents), {}, "must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            orthogonalised(plain, *arguments, **keywords)
