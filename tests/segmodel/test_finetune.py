import copy

import numpy as np
import pytest
import torch
from torch import nn

from segmodel import (
    FineTuneSettings,
    RegressorSettings,
    fine_tune,
    parsing_loss,
    shape_loss,
    train_image_regressors,
)

HELD_OUT = np.arange(0, 64, 5)


@pytest.fixture(scope="module")
def scene(face, splats, model):
    photos = face.sample(64, seed=21)
    render = splats
    masks = torch.cat([render(photos.vertices(range(i, i + 16)), None) for i in range(0, 64, 16)])
    rng = np.random.default_rng(1)
    encodings = photos.coefficients.numpy() @ rng.standard_normal((30, 40)) / 5 + 0.2 * rng.standard_normal((64, 40))
    encodings = torch.from_numpy(encodings.astype(np.float32))
    regressors, _ = train_image_regressors(model, encodings, photos, RegressorSettings(epochs=2, batch=16), HELD_OUT)
    return photos, render, masks, encodings, regressors


class Encoder(nn.Module):
    def __init__(self, encodings):
        super().__init__()
        self.encodings = encodings
        self.linear = nn.Linear(40, 40)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, rows):
        assert not self.training
        return self.linear(self.encodings[rows])


@pytest.fixture(scope="module")
def tuned(scene, model):
    """Fine-tuning of a model that puts every part one standard deviation (about 4 mm) too high."""
    photos, render, masks, encodings, regressors = scene
    own_model, own_regressors, encoder = copy.deepcopy(model), copy.deepcopy(regressors), Encoder(encodings)
    with torch.no_grad():
        own_model.offset_regressor.head_bias[0::2] += 1.0
    settings = FineTuneSettings(epochs=4, batch=8, lr=5e-3, encoder_lr=1e-5)
    report = fine_tune(own_model, own_regressors, encoder, photos, render, masks, None, settings, HELD_OUT)
    return own_model, own_regressors, encoder, report


def test_fine_tuning_moves_misplaced_parts_towards_their_masks(tuned):
    report = tuned[-1]
    validation = {e["epoch"]: e for e in report.history if e["split"] == "validation"}
    assert report.best_epoch > 0
    assert report.lambda_parts > 0
    assert validation[report.best_epoch]["total"] == min(e["total"] for e in validation.values())
    assert validation[report.best_epoch]["parts"] < 0.8 * validation[0]["parts"]
    assert validation[report.best_epoch]["shape"] < validation[0]["shape"]


def test_networks_are_left_at_the_best_epoch(tuned, scene):
    own_model, own_regressors, encoder, report = tuned
    photos, render, masks, _, _ = scene
    best = next(e for e in report.history if e["split"] == "validation" and e["epoch"] == report.best_epoch)
    with torch.no_grad():
        composed, _ = own_model.compose(own_regressors(encoder(HELD_OUT)))
    assert float(shape_loss(composed, photos.vertices(HELD_OUT), own_model)) == pytest.approx(best["shape"], rel=1e-4)
    assert float(parsing_loss(render(composed, HELD_OUT), masks[HELD_OUT])) == pytest.approx(best["parts"], rel=1e-4)


def test_decoders_stay_while_regressors_offsets_and_encoder_move(tuned, model, scene):
    own_model, own_regressors, encoder, _ = tuned
    before, after = model.state_dict(), own_model.state_dict()
    for name in before:
        assert torch.equal(before[name], after[name]) == (
            not name.startswith("offset_regressor") or before[name].ndim == 0 or "mean" in name or "std" in name
        ), name
    assert not torch.equal(scene[-1].heads["nose"].mu_head.weight, own_regressors.heads["nose"].mu_head.weight)
    assert not torch.equal(encoder.linear.weight, torch.eye(40))
    assert all(p.requires_grad for p in own_model.parameters())


def test_plain_function_encoder_and_fixed_weight_work(scene, model):
    photos, render, masks, encodings, regressors = scene
    settings = FineTuneSettings(epochs=1, lambda_parts=2.0)
    report = fine_tune(
        copy.deepcopy(model), copy.deepcopy(regressors), lambda rows: encodings[rows], photos, render, masks.numpy(),
        settings=settings,
    )  # fmt: skip
    assert report.lambda_parts == 2.0
    assert [(e["epoch"], e["split"]) for e in report.history] == [(0, "validation"), (1, "train"), (1, "validation")]


def test_balance_equalises_the_two_gradient_lengths(scene, model):
    photos, render, masks, encodings, regressors = scene
    arguments = (lambda rows: encodings[rows], photos, render, masks, None)

    def weight(balance, lambda_shape):
        settings = FineTuneSettings(epochs=0, balance=balance, lambda_shape=lambda_shape, balance_batches=1)
        return fine_tune(copy.deepcopy(model), copy.deepcopy(regressors), *arguments, settings).lambda_parts

    assert weight(3.0, 1.0) == pytest.approx(3 * weight(1.0, 1.0), rel=1e-5)
    assert weight(1.0, 5.0) == pytest.approx(5 * weight(1.0, 1.0), rel=1e-5)


def test_shape_loss_counts_regions_equally(model, layout):
    target = torch.zeros(2, layout.n_vertices, 3)
    moved = target.clone()
    moved[:, layout.core("nose"), 1] = 3.0
    assert float(shape_loss(moved, target, model)) == pytest.approx(9.0 / 6)
    moved[:, layout.core("rest"), 2] = 2.0
    assert float(shape_loss(moved, target, model)) == pytest.approx((9.0 + 4.0) / 6)


def test_parsing_loss_is_error_per_target_pixel_and_skips_hidden_parts():
    target = torch.zeros(1, 20, 20, 5)
    target[0, :5, :10, 0] = 1
    target[0, 0, :3, 1] = 1
    rendered = torch.zeros_like(target)
    rendered[..., 1] = 1
    assert float(parsing_loss(rendered, target)) == pytest.approx(1.0)
    assert float(parsing_loss(rendered, target, min_mask_px=2)) == pytest.approx((50 + 397) / 53)
    half = parsing_loss(rendered, target, soften=lambda image: 0.5 * image)
    assert float(half) == pytest.approx(0.25)
    assert float(parsing_loss(rendered, torch.zeros_like(target))) == 0.0


def test_disconnected_renderer_and_wrong_masks_are_named(scene, model):
    photos, render, masks, encodings, regressors = scene

    def encode(rows):
        return encodings[rows]

    with pytest.raises(ValueError, match="the parsing loss has no gradient"):
        fine_tune(model, regressors, encode, photos, lambda v, rows: masks[rows] * 0.5, masks)
    with pytest.raises(
        ValueError, match=r"render_parts returned \(16, 32, 32, 5\) but the target masks are \(16, 32, 32, 4\)"
    ):
        fine_tune(model, regressors, encode, photos, render, masks[..., :4])


def test_encoding_noise_is_added_in_training_only_and_repeatable(scene, model):
    photos, render, masks, encodings, regressors = scene

    def losses(noise):
        settings = FineTuneSettings(epochs=1, lambda_parts=2.0, encoding_noise=noise, lr=1e-12)
        report = fine_tune(
            copy.deepcopy(model), copy.deepcopy(regressors), lambda rows: encodings[rows], photos, render, masks, None,
            settings, HELD_OUT,
        )  # fmt: skip
        return {(e["epoch"], e["split"]): e["shape"] for e in report.history}

    clean, noisy = losses(0.0), losses(0.5)
    assert noisy == losses(0.5)
    assert noisy[1, "train"] > 1.05 * clean[1, "train"]
    assert noisy[1, "validation"] == pytest.approx(clean[1, "validation"], rel=1e-5)


class PhotoEncoder(nn.Module):
    """A small convolutional encoder with random weights and batch statistics, as any encoder of photos may have."""

    def __init__(self, photos):
        super().__init__()
        self.photos, self.augmented_rows = photos, []
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(5, 8, 5, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 7 * 7, 40)

    def forward(self, rows):
        return self.embed(self.photos[rows])

    def embed(self, photos):
        return self.linear(torch.relu(self.norm(self.convolution(photos))).flatten(1))

    def augmented(self, rows, own):
        self.augmented_rows += rows[own].tolist()
        return self.embed(self.photos[rows[own]] * 1.1)


@pytest.fixture(scope="module")
def through_photos(scene, model):
    """Fine-tuning through an encoder that looks at pictures: the part images of the faces themselves."""
    photos, render, masks, _, _ = scene
    encoder = PhotoEncoder(masks.movedim(-1, 1)).eval()
    with torch.no_grad():
        encodings = encoder(np.arange(64))
    regressors, _ = train_image_regressors(model, encodings, photos, RegressorSettings(epochs=2, batch=16), HELD_OUT)
    before = copy.deepcopy(encoder)
    settings = FineTuneSettings(epochs=4, batch=8, lr=1e-4, encoder_lr=2e-3, balance=2.0, patience=4)
    report = fine_tune(
        copy.deepcopy(model), regressors, encoder, photos, render, masks, None, settings, HELD_OUT, encoder.augmented
    )
    return before, encoder, report


def test_an_encoder_of_photos_learns_from_masks_and_keeps_its_statistics(through_photos):
    before, encoder, report = through_photos
    assert report.best_epoch > 0
    losses = {e["epoch"]: e for e in report.history if e["split"] == "validation"}
    assert losses[report.best_epoch]["parts"] < 0.95 * losses[0]["parts"]
    assert losses[report.best_epoch]["shape"] < losses[0]["shape"]
    assert not torch.equal(before.convolution.weight, encoder.convolution.weight)
    assert torch.equal(before.norm.running_mean, encoder.norm.running_mean)
    assert torch.equal(before.norm.num_batches_tracked, encoder.norm.num_batches_tracked)


def test_augmented_photos_are_trained_on_and_never_validated_on(through_photos):
    _, encoder, report = through_photos
    epochs = sum(e["split"] == "train" for e in report.history)
    training = np.setdiff1d(np.arange(64), HELD_OUT)
    assert sorted(encoder.augmented_rows) == sorted(training.tolist() * epochs)


def test_softening_is_of_the_difference():
    """The blur is linear, so softening both images and softening their difference is the same number."""
    generator = torch.Generator().manual_seed(3)
    rendered, target = torch.rand(2, 1, 20, 20, 5, generator=generator)

    def blur(images):
        return torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 3, 1, 1).movedim(1, -1)

    direct = (blur(rendered) - blur(target)).square().sum() / target.sum()
    assert float(parsing_loss(rendered, target, soften=blur)) == pytest.approx(float(direct), rel=1e-5)
