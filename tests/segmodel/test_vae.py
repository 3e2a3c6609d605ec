import numpy as np
import pytest
import torch

from segmodel import PARTS, REGIONS, PartVae, VaeSettings, kl_to_standard_normal, recentre, train_segment_vaes, vae_loss
from segmodel._mesh import cotangent_laplacian, renumber
from segmodel._subspace import Subspace, coordinates, fit_subspace, shape_penalty, smoothness_factor


def region_setup(layout, shapes, region):
    own = shapes.region(layout.vertices(region))
    centres = None if region == "rest" else own.box_centres()
    rows = np.arange(len(shapes))
    subspace = fit_subspace(own, centres, rows)
    faces = renumber(layout.part_faces(region), layout.vertices(region), layout.n_vertices)
    return own, centres, subspace, faces


@pytest.mark.parametrize("region", REGIONS)
def test_recentred_shapes_lie_exactly_in_the_subspace(layout, shapes, region):
    own, centres, subspace, _ = region_setup(layout, shapes, region)
    vertices = own.vertices(range(20))
    vertices = vertices if region == "rest" else recentre(vertices)[0]
    basis = torch.from_numpy(subspace.basis)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]).double(), atol=1e-10, rtol=0)
    mean = torch.from_numpy(subspace.mean)
    reduced = coordinates(mean, basis, own, centres, np.arange(20)).double()
    rebuilt = (mean + reduced @ basis.T).view_as(vertices)
    assert (rebuilt - vertices).abs().max() < 5e-5


def test_subspace_axes_are_pca_axes(layout, shapes):
    own, centres, subspace, _ = region_setup(layout, shapes, "nose")
    reduced = coordinates(*map(torch.from_numpy, (subspace.mean, subspace.basis)), own, centres, np.arange(len(shapes)))
    covariance = np.cov(reduced.numpy().T.astype(np.float64), bias=True)
    np.testing.assert_allclose(covariance, np.diag(subspace.variance), atol=1e-5 * subspace.variance[0])
    assert (np.diff(subspace.variance) <= 0).all()


def dense_loss(vae, flat, laplacian, noise, weight, smoothness):
    """The paper's loss with the KL done right, on layers as wide as the vertices and an explicit Laplacian, float64."""
    v = {name: tensor.double() for name, tensor in vae.state_dict().items()}
    relu = torch.relu
    first = v["encoder_in.weight"] @ v["basis"].T / v["scale"]
    hidden = relu(flat @ first.T + v["encoder_in.bias"] - first @ v["mean"])
    hidden = relu(hidden @ v["encoder_mid.weight"].T + v["encoder_mid.bias"])
    mu = hidden @ v["mu_head.weight"].T + v["mu_head.bias"]
    logvar = hidden @ v["logvar_head.weight"].T + v["logvar_head.bias"]
    hidden = relu((mu + (0.5 * logvar).exp() * noise) @ v["decoder_in.weight"].T + v["decoder_in.bias"])
    hidden = relu(hidden @ v["decoder_mid.weight"].T + v["decoder_mid.bias"])
    last = v["scale"] * v["basis"] @ v["decoder_out.weight"]
    out = hidden @ last.T + v["scale"] * v["basis"] @ v["decoder_out.bias"] + v["mean"]
    smooth = (out - flat if smoothness == "difference" else out).view(len(flat), -1, 3)
    differential = torch.einsum("ij,bjc->bic", laplacian, smooth)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0)).sum(1).mean()
    return ((out - flat).square().sum(1) + weight * differential.square().sum((1, 2))).mean(), kl


def float64_vertices(own, centres, rows):
    """Flattened vertices ``(B, 3n)`` of a region, minus their float32 box centres, without another rounding."""
    vertices = own.mean.double() + torch.einsum("vck,bk->bvc", own.basis.double(), own.coefficients[rows].double())
    if centres is not None:
        vertices[..., 1:] -= centres[rows, None].double()
    return vertices.flatten(1)


@pytest.mark.parametrize("smoothness", ["difference", "absolute"])
@pytest.mark.parametrize("init", ["pca", "random"])
@pytest.mark.parametrize("region", ["rest", "nose", "lower_lip"])
def test_reduced_loss_equals_dense_loss_on_vertices(layout, shapes, region, init, smoothness, generator):
    own, centres, subspace, faces = region_setup(layout, shapes, region)
    torch.manual_seed(0)
    vae = PartVae.for_subspace(subspace, 6)
    if init == "pca":
        vae.start_at_pca(torch.from_numpy(subspace.variance), 0.1)
    rows = np.arange(16)
    noise = torch.randn(16, 6, generator=generator)
    template = layout.template[layout.vertices(region)]
    penalty = None
    factor = smoothness_factor(subspace, template, faces, 2.5)
    if smoothness == "absolute":
        factor, penalty = torch.eye(len(factor)), shape_penalty(subspace, template, faces, 2.5)
    reduced = vae_loss(vae, coordinates(vae.mean, vae.basis, own, centres, rows), factor, noise, penalty)
    laplacian = torch.from_numpy(cotangent_laplacian(template, faces).toarray())
    fit, kl = dense_loss(vae, float64_vertices(own, centres, rows), laplacian, noise.double(), 2.5, smoothness)
    assert float(reduced.fit.detach()) == pytest.approx(float(fit), rel=1e-6)
    assert float(reduced.kl.detach()) == pytest.approx(float(kl), rel=1e-6)


def test_absolute_smoothness_of_a_region_with_fewer_numbers_than_axes_is_exact(generator):
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    template = torch.randn(4, 3, generator=generator).double().numpy()
    basis = np.linalg.qr(torch.randn(12, 12, generator=generator).double().numpy())[0]
    mean = torch.randn(12, generator=generator).double().numpy()
    penalty = shape_penalty(Subspace(mean, basis, np.ones(12)), template, faces, 3.0)
    u = torch.randn(5, 12, generator=generator)
    shape = (torch.from_numpy(mean) + u.double() @ torch.from_numpy(basis).T).view(5, 4, 3)
    laplacian = torch.from_numpy(cotangent_laplacian(template, faces).toarray())
    expected = 3.0 * torch.einsum("ij,bjc->bic", laplacian, shape).square().sum((1, 2))
    found = (u @ penalty.factor + penalty.offset).square().sum(1) + penalty.constant[0, 0]
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-4)


def test_kl_agrees_with_torch_and_is_stationary_at_the_prior(generator):
    mu = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    logvar = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, (0.5 * logvar).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), expected)
    zero = torch.zeros(3, requires_grad=True)
    value = kl_to_standard_normal(zero, zero).sum()
    assert value.item() == 0
    assert torch.equal(torch.autograd.grad(value, zero)[0], torch.zeros(3))


def test_pca_start_is_the_pca_of_the_training_faces(layout, shapes):
    model, report = train_segment_vaes(layout, shapes, VaeSettings(rest_dim=12, part_dim=6, epochs=0))
    for region in REGIONS:
        assert report.regions[region].ratio == pytest.approx(1.0, abs=1e-4)
        assert report.regions[region].kl == pytest.approx(report.regions[region].kl_linear, rel=0.1)
        torch.testing.assert_close(model.latent_std[region], torch.ones(model.latent_dims[region]), atol=0.02, rtol=0)
        torch.testing.assert_close(
            model.latent_mean[region], torch.zeros_like(model.latent_mean[region]), atol=0.02, rtol=0
        )


def test_pca_start_error_equals_an_independent_pca_of_the_vertices(layout, shapes):
    held_out = np.arange(0, len(shapes), 5)
    settings = VaeSettings(rest_dim=12, part_dim=6, epochs=0)
    _, report = train_segment_vaes(layout, shapes, settings, validation_rows=held_out)
    train = np.setdiff1d(np.arange(len(shapes)), held_out)
    for region, dim in (("nose", 6), ("rest", 12)):
        vertices = shapes.region(layout.vertices(region)).vertices(slice(None))
        flat = (vertices if region == "rest" else recentre(vertices)[0]).flatten(1).double().numpy()
        mean = flat[train].mean(0)
        axes = np.linalg.svd(flat[train] - mean, full_matrices=False)[2][:dim]
        residual = flat[held_out] - mean
        residual -= residual @ axes.T @ axes
        rms = np.sqrt((residual.reshape(len(held_out), -1, 3) ** 2).sum(2).mean())
        assert report.regions[region].pca_rms_mm == pytest.approx(rms, rel=1e-4)
        assert report.regions[region].rms_mm == pytest.approx(rms, rel=1e-4)


def test_training_from_pca_does_not_lose_accuracy_and_lowers_the_loss(trained):
    _, report, _ = trained
    assert report.history[-1] < report.history[0]
    for quality in report.regions.values():
        assert quality.ratio < 1.03
        assert quality.active_dims > 0
        assert quality.kl == pytest.approx(quality.kl_linear, rel=0.25)


def test_training_from_random_weights_approaches_pca(layout, shapes):
    settings = VaeSettings(init="random", rest_dim=12, part_dim=6, epochs=8, batch=32, lr=2e-3)
    _, report = train_segment_vaes(layout, shapes, settings)
    for region in PARTS:
        assert report.regions[region].ratio < 1.5
    assert report.regions["rest"].ratio < 1.8


def test_reported_error_is_that_of_encoding_and_decoding_vertices(trained, shapes):
    model, report, _ = trained
    held_out = np.sort(np.random.default_rng(3).permutation(len(shapes))[: len(shapes) // 10])
    vertices = shapes.vertices(held_out)
    latents = model.encode(vertices)
    for region in REGIONS:
        own = vertices[:, model.layout.vertices(region)]
        own = own if region == "rest" else recentre(own)[0]
        rms = (model.decode_part(region, latents[region]) - own).square().sum(-1).mean().sqrt()
        assert float(rms.detach()) == pytest.approx(report.regions[region].rms_mm, rel=1e-3)


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(layout, shapes):
    few = VaeSettings(init="random", rest_dim=4, part_dim=3, epochs=1, seed=5)
    first, again = (train_segment_vaes(layout, shapes, few)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = train_segment_vaes(layout, shapes, VaeSettings(init="random", rest_dim=4, part_dim=3, epochs=1, seed=6))[0]
    assert not torch.equal(first["vaes.nose.mu_head.weight"], other.state_dict()["vaes.nose.mu_head.weight"])


@pytest.mark.parametrize(("epochs", "limit_mm"), [(0, 1e-4), (1, 1.0)])
def test_more_latents_than_modes_stay_finite(layout, face, epochs, limit_mm):
    settings = VaeSettings(rest_dim=40, part_dim=36, epochs=epochs)
    model, report = train_segment_vaes(layout, face.sample(60, seed=2), settings)
    assert all(quality.rms_mm < limit_mm for quality in report.regions.values())
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "zeros"}, "init is 'zeros'"),
        ({"part_dim": 0}, "part_dim is 0"),
        ({"lambda_kl": -1.0}, "must not be negative"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VaeSettings(**arguments)


def test_bad_training_input_is_named(layout, shapes, face):
    with pytest.raises(ValueError, match="need hidden layers of 140 units"):
        train_segment_vaes(layout, shapes, VaeSettings(rest_dim=70, epochs=0))
    with pytest.raises(ValueError, match="give more faces"):
        train_segment_vaes(layout, face.sample(2, 0))
    with pytest.raises(ValueError, match="do not index"):
        train_segment_vaes(layout, shapes, validation_rows=[0, 5000])
    with pytest.raises(ValueError, match="the layout has"):
        train_segment_vaes(layout, shapes.region(np.arange(9)))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train_segment_vaes(layout, shapes, VaeSettings(init="random", rest_dim=4, part_dim=3, epochs=2, lr=1e12))
