import numpy as np
import pytest
import torch

from segmodel import REGIONS, ImageRegressors, RegressorSettings, train_image_regressors
from segmodel._ridge import ridge_by_leave_one_out


@pytest.fixture(scope="module")
def photos(face):
    return face.sample(360, seed=11)


@pytest.fixture(scope="module")
def encodings(photos):
    """A noisy nonlinear 64-d view of the face, scaled unevenly like real embeddings."""
    rng = np.random.default_rng(0)
    mixed = np.tanh(photos.coefficients.numpy() @ rng.standard_normal((30, 64)) / 6)
    return ((mixed + 0.1 * rng.standard_normal(mixed.shape)) * rng.uniform(0.1, 10, 64) + 3).astype(np.float32)


HELD_OUT = np.arange(0, 360, 6)


@pytest.fixture(scope="module")
def result(model, encodings, photos):
    return train_image_regressors(model, encodings, photos, RegressorSettings(epochs=25, batch=32), HELD_OUT)


def test_regressors_beat_the_mean_face_on_validation(result):
    _, report = result
    for region in REGIONS:
        quality = report.regions[region]
        assert quality.autoencoder_rms_mm < quality.rms_mm < 0.8 * quality.mean_face_rms_mm


def test_reported_errors_are_those_of_decoded_vertices(result, model, encodings, photos):
    regressors, report = result
    latents = regressors(torch.from_numpy(encodings[HELD_OUT]))
    vertices = photos.vertices(HELD_OUT)[:, model.layout.vertices("rest")]
    rms = (model.decode_part("rest", latents["rest"]) - vertices).square().sum(-1).mean().sqrt()
    assert float(rms.detach()) == pytest.approx(report.regions["rest"].rms_mm, rel=1e-3)
    train = np.setdiff1d(np.arange(len(photos)), HELD_OUT)
    everyone = photos.vertices(slice(None))[:, model.layout.vertices("rest")]
    mean_error = (everyone[HELD_OUT] - everyone[train].mean(0)).square().sum(-1).mean().sqrt()
    assert float(mean_error) == pytest.approx(report.regions["rest"].mean_face_rms_mm, rel=1e-2)


def test_training_from_the_mean_face_also_beats_it(model, encodings, photos):
    settings = RegressorSettings(init="mean", epochs=15, batch=32)
    _, report = train_image_regressors(model, encodings, photos, settings, HELD_OUT)
    for quality in report.regions.values():
        assert quality.epoch > 0
        assert quality.rms_mm < 0.9 * quality.mean_face_rms_mm


def test_leave_one_out_ridge_equals_brute_force(generator):
    x, y = torch.randn(25, 4, generator=generator), torch.randn(25, 2, generator=generator)
    y = y + x @ torch.randn(4, 2, generator=generator) + 3

    def fit(a, b, penalty):
        centred = (a - a.mean(0)).double()
        gram = centred.T @ centred + penalty * torch.eye(4, dtype=torch.float64)
        weight = torch.linalg.solve(gram, centred.T @ (b - b.mean(0)).double()).T
        return weight, b.mean(0) - weight @ a.double().mean(0)

    def left_out_error(penalty):
        errors = []
        for i in range(25):
            keep = torch.arange(25) != i
            weight, bias = fit(x[keep], y[keep], penalty)
            errors.append((y[i] - weight @ x[i].double() - bias).square().sum())
        return float(torch.stack(errors).sum())

    strongest = float(torch.linalg.matrix_norm((x - x.mean(0)).double(), 2)) ** 2
    best = min((strongest * 10 ** (-7 + 0.25 * i) for i in range(33)), key=left_out_error)
    weight, bias = ridge_by_leave_one_out(x, y)
    expected_weight, expected_bias = fit(x, y, best)
    torch.testing.assert_close(weight, expected_weight.float(), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(bias, expected_bias.float(), atol=1e-2, rtol=1e-2)


def test_ridge_start_passes_the_relus_exactly(model, encodings, photos):
    inputs = torch.from_numpy(encodings)
    latents = model.latents_of(photos)
    regressors = ImageRegressors(64, model.latent_dims).eval()
    regressors.standardise_for(inputs, model)
    regressors.start_at_ridge(inputs, latents)
    standardised = (inputs - regressors.encoding_mean) / regressors.encoding_std
    weight, bias = ridge_by_leave_one_out(standardised, latents["rest"])
    torch.testing.assert_close(regressors(inputs)["rest"], standardised @ weight.T + bias, atol=1e-3, rtol=1e-3)


def test_pure_noise_is_not_learnt(model, photos):
    noise = np.random.default_rng(5).standard_normal((360, 64)).astype(np.float32)
    _, report = train_image_regressors(model, noise, photos, RegressorSettings(epochs=5, batch=64), HELD_OUT)
    for quality in report.regions.values():
        assert quality.rms_mm == pytest.approx(quality.mean_face_rms_mm, rel=0.05)


def test_training_leaves_the_face_model_alone(model, encodings, photos):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    required = [p.requires_grad for p in model.parameters()]
    train_image_regressors(model, encodings, photos, RegressorSettings(epochs=1))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert required == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())


def test_untrained_regressors_answer_the_mean_latent(model):
    regressors = ImageRegressors(8, model.latent_dims)
    regressors.standardise_for(torch.randn(20, 8), model)
    for region, z in regressors.eval()(torch.randn(3, 8)).items():
        torch.testing.assert_close(z, model.latent_mean[region].expand(3, -1))


def test_same_seed_same_weights(model, encodings, photos):
    runs = [train_image_regressors(model, encodings, photos, RegressorSettings(epochs=2))[0] for _ in range(2)]
    first, second = (run.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_saved_regressors_answer_alike(result, encodings, tmp_path):
    regressors, _ = result
    regressors.save(tmp_path / "f.safetensors")
    loaded = ImageRegressors.load(tmp_path / "f.safetensors")
    inputs = torch.from_numpy(encodings[:4])
    assert all(torch.equal(z, loaded(inputs)[region]) for region, z in regressors(inputs).items())
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ImageRegressors.load(tmp_path / "g.safetensors")


def test_bad_encodings_are_named(model, encodings, photos):
    with pytest.raises(ValueError, match=r"encodings have shape \(10, 64\) but there are 360 faces"):
        train_image_regressors(model, encodings[:10], photos)
    broken = encodings.copy()
    broken[7, 3] = np.nan
    with pytest.raises(ValueError, match="encoding of row 7 is not finite"):
        train_image_regressors(model, broken, photos)
    with pytest.raises(ValueError, match="init is 'zero'"):
        RegressorSettings(init="zero")
    with pytest.raises(ValueError, match=r"give \(B, 64\)"):
        ImageRegressors(64, model.latent_dims)(torch.zeros(2, 5))
