"""Training that is interrupted, stopped early, on a GPU or in bfloat16, and the stacked networks it runs on."""

import math
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from segmodel import REGIONS, LinearShapes, PartLayout, PartVae, VaeSettings, train_segment_vaes, vae_loss
from segmodel._stack import StackedFit, VaeStack, pad_stack
from segmodel._subspace import ShapePenalty

TINY = VaeSettings(init="random", rest_dim=4, part_dim=3, epochs=4, batch=32, lr=1e-3, seed=5)


@pytest.fixture(scope="module")
def few(face):
    return face.sample(240, seed=2)


class Killed(Exception):
    """What stops a training in the middle."""


def killed_after(epochs):
    def on_epoch(epoch, loss):
        if epoch == epochs:
            raise Killed

    return on_epoch


def assert_same(result, expected):
    (model, report), (other, expected_report) = result, expected
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert replace(report, seconds=0) == replace(expected_report, seconds=0)


@pytest.mark.parametrize("settings", [TINY, replace(TINY, init="pca", patience=4, smoothness="absolute")])
def test_an_interrupted_training_comes_to_the_same_bits(layout, few, tmp_path, settings):
    whole = train_segment_vaes(layout, few, settings)
    path = tmp_path / "training.pt"
    with pytest.raises(Killed):
        train_segment_vaes(layout, few, settings, on_epoch=killed_after(3), checkpoint=path, checkpoint_every=2)
    seen = []
    resumed = train_segment_vaes(
        layout, few, settings, on_epoch=lambda epoch, loss: seen.append(epoch), checkpoint=path, checkpoint_every=2
    )
    assert seen == [3, 4]
    assert_same(resumed, whole)
    assert [p.name for p in tmp_path.iterdir()] == ["training.pt"]

    again = train_segment_vaes(layout, few, settings, on_epoch=killed_after(4), checkpoint=path)
    assert_same(again, whole)


def test_the_checkpoint_of_another_training_is_refused_by_what_differs(layout, few, face, tmp_path):
    path, short = tmp_path / "new" / "training.pt", replace(TINY, epochs=1)
    train_segment_vaes(layout, few, short, checkpoint=path)
    with pytest.raises(ValueError, match=r"another training \(epochs is 1 there and 2 here; lr is 0.001 there and 0.5"):
        train_segment_vaes(layout, few, replace(short, epochs=2, lr=0.5), checkpoint=path)
    with pytest.raises(ValueError, match=r"another training \(the faces or the held-out rows differ\): delete it"):
        train_segment_vaes(layout, face.sample(240, seed=3), short, checkpoint=path)
    with pytest.raises(ValueError, match=r"another training \(the faces or the held-out rows differ\)"):
        train_segment_vaes(layout, few, short, validation_rows=[0, 1], checkpoint=path)
    moved = PartLayout.from_labels(layout.labels, layout.faces, layout.template * 1.01)
    with pytest.raises(ValueError, match=r"another training \(the labels or the mesh differ\)"):
        train_segment_vaes(moved, few, short, checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"nothing of ours", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(layout, few, tmp_path, content):
    path = tmp_path / "training.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"training\.pt is not a checkpoint"):
        train_segment_vaes(layout, few, TINY, checkpoint=path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"training\.pt is not a checkpoint"):
        train_segment_vaes(layout, few, TINY, checkpoint=path)


def test_patience_keeps_the_best_epoch_of_each_region_and_stops(layout, face):
    settings = replace(TINY, epochs=40, batch=8, lr=3e-3, validation_fraction=0.3, patience=3)
    _, report = train_segment_vaes(layout, face.sample(40, seed=4), settings)
    assert len(report.history) < 40
    assert report.held_out_mm.keys() == set(REGIONS)
    epochs = []
    for region, errors in report.held_out_mm.items():
        assert len(errors) == len(report.history)
        quality = report.regions[region]
        assert quality.epoch == np.argmin(errors) + 1
        assert quality.rms_mm == pytest.approx(min(errors), rel=1e-5)
        epochs.append(quality.epoch)
    assert len(report.history) == max(epochs) + 3
    assert len(set(epochs)) > 1


def test_patience_keeps_a_start_at_pca_that_training_only_spoils(layout, face):
    settings = VaeSettings(rest_dim=4, part_dim=3, epochs=40, batch=8, lr=3e-3, validation_fraction=0.3, patience=2)
    few = face.sample(30, seed=4)
    model, report = train_segment_vaes(layout, few, settings)
    start, _ = train_segment_vaes(layout, few, replace(settings, epochs=0))
    assert len(report.history) == 2
    assert {quality.epoch for quality in report.regions.values()} == {0}
    assert all(torch.equal(tensor, start.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_without_patience_the_last_epoch_is_kept_and_nothing_is_measured_on_the_way(layout, few):
    _, report = train_segment_vaes(layout, few, replace(TINY, epochs=2, patience=None))
    assert report.held_out_mm == {region: [] for region in REGIONS}
    assert {quality.epoch for quality in report.regions.values()} == {2}


def vaes_of_several_sizes(generator):
    sizes = ((30, 12, 5), (45, 9, 3), (21, 4, 2))
    bases = [torch.linalg.qr(torch.randn(n, r, generator=generator))[0] for n, r, _ in sizes]
    return [PartVae(torch.zeros(n), q, d, scale=1.5) for (n, _, d), q in zip(sizes, bases, strict=True)]


@pytest.mark.parametrize("with_penalty", [False, True])
def test_stacked_networks_have_the_losses_and_gradients_of_each(generator, with_penalty):
    torch.manual_seed(0)
    vaes = vaes_of_several_sizes(generator)
    ranks = [vae.basis.shape[1] for vae in vaes]
    u = [torch.randn(8, r, generator=generator) for r in ranks]
    noise = [torch.randn(8, vae.latent_dim, generator=generator) for vae in vaes]
    factors = [torch.randn(r, r, generator=generator) for r in ranks]
    penalties = [ShapePenalty(torch.randn(r, r), torch.randn(1, r), torch.rand(1, 1)) for r in ranks]
    penalties = penalties if with_penalty else [None] * 3
    stack = VaeStack(vaes)
    fit = StackedFit.of(list(zip(factors, penalties, strict=True)))
    terms = stack.loss(pad_stack(u), fit, pad_stack(noise) + 100 * (1 - stack.latent_mask), torch.float32)
    (terms.fit + 0.3 * terms.kl).sum().backward()
    for i, vae in enumerate(vaes):
        own = vae_loss(vae, u[i], factors[i], noise[i], penalties[i])
        (own.fit + 0.3 * own.kl).backward()
        torch.testing.assert_close(terms.fit[i], own.fit, rtol=1e-5, atol=0)
        torch.testing.assert_close(terms.kl[i], own.kl, rtol=1e-5, atol=0)
        for name, gradient in ((name, weight.grad[i]) for name, weight in stack.weights.items()):
            expected = getattr(vae, name).weight.grad.T
            rows, columns = expected.shape
            torch.testing.assert_close(gradient[:rows, :columns], expected, rtol=1e-4, atol=1e-4)
            assert not gradient[rows:].any()
            assert not gradient[:, columns:].any()
            torch.testing.assert_close(
                stack.biases[name].grad[i, 0, :columns], getattr(vae, name).bias.grad, rtol=1e-4, atol=1e-4
            )


def test_weights_come_back_from_the_stack(generator):
    vaes = vaes_of_several_sizes(generator)
    stack = VaeStack(vaes)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(2.0)
    u = [torch.randn(4, vae.basis.shape[1], generator=generator) for vae in vaes]
    mu, logvar = stack.encode(pad_stack(u))
    decoded = stack.decode(mu)
    stack.write_back(vaes)
    for i, vae in enumerate(vaes):
        own_mu, own_logvar = vae.encode_coordinates(u[i])
        torch.testing.assert_close(mu[i, :, : vae.latent_dim], own_mu)
        torch.testing.assert_close(logvar[i, :, : vae.latent_dim], own_logvar)
        torch.testing.assert_close(decoded[i, :, : u[i].shape[1]], vae.decode_coordinates(own_mu))


def test_bfloat16_products_train_float32_weights_nearly_as_well(layout, shapes):
    settings = VaeSettings(rest_dim=12, part_dim=6, epochs=2, lambda_kl=0.1)
    exact, rounded = (
        train_segment_vaes(layout, shapes, replace(settings, precision=precision))
        for precision in ("float32", "bfloat16")
    )
    assert all(
        tensor.dtype == torch.float32 for tensor in rounded[0].state_dict().values() if tensor.is_floating_point()
    )
    assert rounded[1].history != exact[1].history
    for region in REGIONS:
        assert rounded[1].regions[region].rms_mm == pytest.approx(exact[1].regions[region].rms_mm, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_a_gpu_reaches_the_same_error_and_returns_a_model_on_the_cpu(layout, shapes, tmp_path, precision):
    settings = VaeSettings(rest_dim=12, part_dim=6, epochs=2, precision=precision)
    here = train_segment_vaes(layout, shapes, settings)
    there = train_segment_vaes(layout, shapes, replace(settings, device="cuda"))
    path = tmp_path / "training.pt"
    with pytest.raises(Killed):
        train_segment_vaes(layout, shapes, replace(settings, device="cuda"), on_epoch=killed_after(1), checkpoint=path)
    resumed = train_segment_vaes(layout, shapes, replace(settings, device="cuda"), checkpoint=path)
    assert there[0].device.type == "cpu"
    for region in REGIONS:
        assert there[1].regions[region].rms_mm == pytest.approx(here[1].regions[region].rms_mm, rel=0.05)
        assert resumed[1].regions[region].rms_mm == pytest.approx(there[1].regions[region].rms_mm, rel=1e-3)


def test_the_model_records_how_it_was_trained(layout, few, face):
    model, report = train_segment_vaes(layout, few, replace(TINY, epochs=0, lr=None))
    record = model.training_record
    assert report.init == record["settings"]["init"] == "random"
    assert record["settings"]["lr"] == VaeSettings(init="random").peak_lr
    assert (record["training_faces"], record["held_out_faces"]) == (216, 24)
    assert record["packages"]["torch"] == version("torch")
    assert len(record["data_sha256"]) == 64

    def digest(shapes):
        return train_segment_vaes(layout, shapes, replace(TINY, epochs=0))[0].training_record["data_sha256"]

    assert digest(face.sample(240, seed=2)) == record["data_sha256"]
    changed = few.coefficients.clone()
    changed[7, 3] += 1e-3
    assert digest(LinearShapes(few.mean, few.basis, changed)) != record["data_sha256"]


def test_epochs_and_rate_follow_the_initialisation_unless_given():
    pca, random = VaeSettings(), VaeSettings(init="random")
    assert pca.n_epochs < random.n_epochs
    assert pca.peak_lr < random.peak_lr
    assert VaeSettings(epochs=3, lr=0.5).as_json().items() >= {"epochs": 3, "lr": 0.5, "init": "pca"}.items()
    assert None not in {key: value for key, value in random.as_json().items() if key != "patience"}.values()
    assert math.isclose(random.as_json()["lr"], random.peak_lr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothness": "none"}, "smoothness is 'none': use 'difference' or 'absolute'"),
        ({"precision": "float16"}, "precision is 'float16': use 'float32' or 'bfloat16'"),
        ({"patience": 0}, "patience is 0: give at least 1"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VaeSettings(**arguments)


def test_a_checkpoint_interval_below_one_is_named(layout, few, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every is 0"):
        train_segment_vaes(layout, few, TINY, checkpoint=tmp_path / "x.pt", checkpoint_every=0)
