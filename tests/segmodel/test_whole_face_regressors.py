"""Image regressors and fine-tuning of the rivals: what the part models get, for models without parts too."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segmodel import (
    REGIONS,
    BaselineSettings,
    FineTuneSettings,
    ImageRegressors,
    RegressorSettings,
    SwapSettings,
    fine_tune,
    train_baseline,
    train_image_regressors,
)
from segmodel._ridge import ridge_by_leave_one_out
from segmodel.regressors import ImageRegressor

HELD_OUT = np.arange(0, 120, 5)
TRAIN = np.setdiff1d(np.arange(120), HELD_OUT)
WHOLE = ["global-pca", "global-vae", "ld-vae"]


@pytest.fixture(scope="module")
def rivals(layout, shapes):
    settings = BaselineSettings(rest_dim=10, part_dim=3, epochs=3, swap=SwapSettings(steps=150, groups=2, records=1))
    return {name: train_baseline(name, layout, shapes, settings)[0] for name in [*WHOLE, "part-pca"]}


@pytest.fixture(scope="module")
def photos(face):
    return face.sample(120, seed=31)


@pytest.fixture(scope="module")
def encodings(photos):
    rng = np.random.default_rng(2)
    seen = photos.coefficients.numpy() @ rng.standard_normal((30, 40)) / 5
    return torch.from_numpy((seen + 0.2 * rng.standard_normal((120, 40)) + 1).astype(np.float32))


@pytest.fixture(scope="module")
def regressed(rivals, encodings, photos):
    """{name: (regressors, report)}"""
    settings = RegressorSettings(epochs=4, batch=32)
    return {
        name: train_image_regressors(model, encodings, photos, settings, HELD_OUT) for name, model in rivals.items()
    }


def face_rms(faces, truth):
    return float((faces - truth).detach().double().square().sum(2).mean().sqrt())


@pytest.mark.parametrize("name", WHOLE)
def test_the_error_of_a_whole_face_is_that_of_its_vertices(regressed, rivals, encodings, photos, name):
    regressors, report = regressed[name]
    model, truth = rivals[name], photos.vertices(HELD_OUT)
    latents = regressors(encodings[HELD_OUT])
    assert {key: z.shape[1] for key, z in latents.items()} == model.latent_dims
    assert list(report.regions) == ["face"]
    quality = report.regions["face"]
    assert quality.rms_mm == pytest.approx(face_rms(model.decode(latents, blend=False), truth), rel=1e-3)
    mean = photos.vertices(TRAIN).mean(0)
    assert quality.mean_face_rms_mm == pytest.approx(face_rms(mean, truth), rel=1e-3)
    assert quality.autoencoder_rms_mm == pytest.approx(face_rms(model.decode(model.encode(truth)), truth), rel=1e-3)
    assert quality.autoencoder_rms_mm < quality.rms_mm < 0.9 * quality.mean_face_rms_mm


def test_a_global_pca_starts_as_the_ridge_regression_of_its_coefficients(rivals, encodings, photos):
    model = rivals["global-pca"]
    settings = RegressorSettings(epochs=0)
    regressors, report = train_image_regressors(model, encodings, photos, settings, HELD_OUT)
    x = (encodings - encodings[TRAIN].mean(0)) / encodings[TRAIN].std(0, correction=0)
    weight, bias = ridge_by_leave_one_out(x[TRAIN], model.latents_of(photos)["face"][TRAIN])
    expected = model.decode({"face": x[HELD_OUT] @ weight.T + bias})
    torch.testing.assert_close(model.decode(regressors(encodings[HELD_OUT])), expected, atol=2e-2, rtol=0)
    assert report.regions["face"].epoch == 0


def test_a_wide_latent_starts_at_all_of_its_ridge_regression(generator):
    inputs, latents = torch.randn(200, 50, generator=generator), torch.randn(200, 40, generator=generator)
    latents = latents + inputs @ torch.randn(50, 40, generator=generator)
    head = ImageRegressor(50, 40, dropout=0.0)
    head.start_at_ridge(inputs, latents)
    weight, bias = ridge_by_leave_one_out(inputs, latents)
    torch.testing.assert_close(head(inputs)[0], inputs @ weight.T + bias, atol=1e-3, rtol=1e-3)


def test_every_slice_of_an_ld_vae_learns_from_the_whole_face(regressed):
    regressors, report = regressed["ld-vae"]
    assert report.regions["face"].epoch > 0
    start = {name: head.trunk_in.weight.detach() for name, head in regressors.heads.items()}
    for region in REGIONS:  # at the start they carry exact pairs of a value and its negative
        pairs = start[region][: 2 * regressors.latent_dims[region]].view(2, -1, 40)
        assert (pairs[0] + pairs[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["global-pca", "ld-vae", "part-pca"])
def test_saved_regressors_keep_names_order_and_answers(regressed, rivals, encodings, tmp_path, name):
    regressors, _ = regressed[name]
    regressors.save(tmp_path / "f.safetensors")
    loaded = ImageRegressors.load(tmp_path / "f.safetensors")
    assert list(loaded.latent_dims.items()) == list(rivals[name].latent_dims.items())
    faces = [rivals[name].decode(f(encodings[:3]), blend=False) for f in (regressors, loaded)]
    assert torch.equal(*faces)


def test_a_file_without_names_holds_the_six_regions(regressed, encodings, tmp_path):
    regressors, _ = regressed["ld-vae"]
    path = tmp_path / "f.safetensors"
    regressors.save(path)
    save_file(load_file(path), path, metadata={"format": "neo3df-image-regressors-1"})
    loaded = ImageRegressors.load(path)
    assert list(loaded.latent_dims) == list(REGIONS)
    assert all(torch.equal(z, regressors(encodings)[name]) for name, z in loaded(encodings).items())
    save_file({"encoding_mean": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="holds no image regressors"):
        ImageRegressors.load(path)


@pytest.mark.parametrize("name", [*WHOLE, "part-pca"])
def test_fine_tuning_lowers_the_loss_of_every_rival(regressed, rivals, encodings, photos, splats, name):
    model, regressors = copy.deepcopy(rivals[name]), copy.deepcopy(regressed[name][0])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    masks = torch.cat([splats(photos.vertices(range(i, i + 24)), None) for i in range(0, 120, 24)])
    with torch.no_grad():
        for head in regressors.heads.values():
            head.latent_mean += 0.5 * head.latent_std
    settings = FineTuneSettings(epochs=2, batch=16, lr=2e-3)
    report = fine_tune(model, regressors, lambda rows: encodings[rows], photos, splats, masks, None, settings, HELD_OUT)
    losses = {entry["epoch"]: entry for entry in report.history if entry["split"] == "validation"}
    assert report.best_epoch > 0
    assert losses[report.best_epoch]["total"] < 0.97 * losses[0]["total"]
    assert losses[report.best_epoch]["shape"] < losses[0]["shape"]
    assert losses[report.best_epoch]["parts"] < losses[0]["parts"]
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert all(key.startswith("offset_regressor") for key in changed)
    assert bool(changed) == (name == "part-pca")


def test_regressors_of_another_model_are_refused(regressed, rivals, encodings, photos, splats):
    words = r"the regressors answer face \(25\) but LdVae has the latents eyebrows \(3\), .*rest \(10\): use regressors"
    regressors, model = regressed["global-pca"][0], rivals["ld-vae"]
    with pytest.raises(ValueError, match=words):
        fine_tune(model, regressors, lambda rows: encodings[rows], photos, splats, torch.zeros(120, 32, 32, 5))
    with pytest.raises(ValueError, match=words):
        regressors.standardise_for(encodings, model)
    with pytest.raises(ValueError, match="latents lack face: give one"):
        regressors.start_at_ridge(encodings, model.latents_of(photos))
    with pytest.raises(ValueError, match="latent_dims names no latent"):
        ImageRegressors(40, {})
    with pytest.raises(ValueError, match="this model has"):
        train_image_regressors(model, encodings, photos.region(np.arange(9)))
