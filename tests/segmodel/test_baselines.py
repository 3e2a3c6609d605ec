"""The rivals speak the part model's language and are what they say they are."""

import numpy as np
import pytest
import torch

from segmodel import (
    BASELINES,
    PARTS,
    REGIONS,
    BaselineSettings,
    SegmentModel,
    SwapSettings,
    VaeSettings,
    load_baseline,
    reconstruction_rms,
    train_baseline,
    train_segment_vaes,
)

HELD_OUT = np.arange(0, 1200, 10)
SETTINGS = BaselineSettings(
    rest_dim=10, part_dim=3, epochs=6, swap=SwapSettings(steps=120, groups=2, records=4), seed=3
)


@pytest.fixture(scope="module")
def baselines(layout, shapes):
    """{name: (model, report)}; tests must not change them."""
    return {name: train_baseline(name, layout, shapes, SETTINGS, HELD_OUT) for name in BASELINES}


@pytest.fixture(params=["global-pca", "global-vae", "ld-vae", "part-pca", "part-pca-absolute"])
def trained(request, baselines):
    return baselines[request.param]


def test_every_baseline_has_the_interface_of_the_part_model(trained, shapes):
    model, report = trained
    vertices = shapes.vertices(HELD_OUT)
    latents = model.encode(vertices)
    dims = {"face": 25} if report.name.startswith("global") else {r: 10 if r == "rest" else 3 for r in REGIONS}
    assert model.latent_dims == dims
    assert {name: z.shape for name, z in latents.items()} == {name: (len(HELD_OUT), d) for name, d in dims.items()}
    assert model.decode(latents, blend=False).shape == vertices.shape
    every = model.latents_of(shapes)
    for name, z in latents.items():
        assert list(every) == list(latents)
        torch.testing.assert_close(every[name][HELD_OUT], z, atol=2e-3, rtol=1e-3)
        train = np.setdiff1d(np.arange(len(shapes)), HELD_OUT)
        torch.testing.assert_close(model.latent_mean[name], every[name][train].mean(0), atol=2e-3, rtol=0)
        torch.testing.assert_close(model.latent_std[name], every[name][train].std(0, correction=0), atol=2e-3, rtol=0)


def test_reported_error_is_that_of_encoding_and_decoding(trained, shapes, layout):
    model, report = trained
    vertices = shapes.vertices(HELD_OUT)
    squares = (model.decode(model.encode(vertices), blend=False) - vertices).square().sum(2)
    assert report.rms_mm["face"] == pytest.approx(float(squares.mean().sqrt()), rel=1e-4)
    for region in REGIONS:
        expected = float(squares[:, layout.core(region)].mean().sqrt())
        assert report.rms_mm[region] == pytest.approx(expected, rel=1e-4)
    spread = float((vertices - shapes.vertices(slice(None)).mean(0)).square().sum(2).mean().sqrt())
    assert report.rms_mm["face"] < 0.85 * spread
    assert report.seed == 3


def test_gradients_reach_the_latents_through_decode(trained, shapes):
    model, _ = trained
    latents = {name: z.requires_grad_() for name, z in model.encode(shapes.vertices(range(2))).items()}
    model.decode(latents, blend=False).square().sum().backward()
    assert all(z.grad is not None and z.grad.abs().sum() > 0 for z in latents.values())


def test_a_saved_baseline_decodes_the_same(trained, shapes, tmp_path):
    model, report = trained
    model.save(tmp_path)
    loaded = load_baseline(report.name, tmp_path, model.layout.topology_hash)
    assert type(loaded) is type(model)
    vertices = shapes.vertices(range(3))
    latents = model.encode(vertices)
    assert all(torch.equal(z, latents[name]) for name, z in loaded.encode(vertices).items())
    assert torch.equal(loaded.decode(latents, blend=False), model.decode(latents, blend=False))
    assert all(torch.equal(std, model.latent_std[name]) for name, std in loaded.latent_std.items())
    with pytest.raises(ValueError, match="topology 0123 is asked for"):
        load_baseline(report.name, tmp_path, "0123")
    other = "global-vae" if report.name == "ld-vae" else "ld-vae"
    with pytest.raises(ValueError, match="Vae reads"):
        load_baseline(other, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"give a folder written by {type(model).__name__}.save"):
        load_baseline(report.name, tmp_path)


def test_global_pca_is_an_independent_pca_of_the_vertices(baselines, shapes):
    model, report = baselines["global-pca"]
    flat = shapes.vertices(slice(None)).flatten(1).double().numpy()
    train = np.setdiff1d(np.arange(len(shapes)), HELD_OUT)
    mean = flat[train].mean(0)
    centred = flat[train] - mean
    squares, rows = (x[..., ::-1] for x in np.linalg.eigh(centred @ centred.T))
    k = model.latent_dims["face"]
    axes = (rows[:, :k].T @ centred) / np.sqrt(squares[:k, None])
    z = (flat[HELD_OUT] - mean) @ axes.T / np.sqrt(squares[:k] / len(train))
    ours = model.encode(shapes.vertices(HELD_OUT))["face"].numpy()
    np.testing.assert_allclose(np.abs(ours[:, :12]), np.abs(z[:, :12]), atol=5e-3)
    residual = flat[HELD_OUT] - mean
    residual -= residual @ axes.T @ axes
    rms = np.sqrt((residual.reshape(len(HELD_OUT), -1, 3) ** 2).sum(2).mean())
    assert report.rms_mm["face"] == pytest.approx(rms, abs=1e-4)


def test_part_pca_is_linear_and_its_error_is_that_of_pca_of_the_recentred_part(baselines, shapes):
    model, _ = baselines["part-pca"]
    z = model.encode(shapes.vertices(range(4)))["nose"]
    decoded = model.decode_part("nose", torch.stack([z[0], z[1], 0.5 * (z[0] + z[1])]))
    torch.testing.assert_close(decoded[2], 0.5 * (decoded[0] + decoded[1]), atol=1e-4, rtol=0)
    truth = model.coordinates_of(shapes, "nose")[HELD_OUT]
    error = model.vae("nose").decode_coordinates(model.vae("nose").encode_coordinates(truth)[0]) - truth
    torch.testing.assert_close(error[:, :3], torch.zeros(len(HELD_OUT), 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(error[:, 3:], -truth[:, 3:])


def test_part_pca_is_where_the_part_vaes_start(baselines, layout, shapes):
    """The PCA initialisation of the part VAEs and part PCA are one model, from two pieces of code."""
    model, _ = baselines["part-pca"]
    settings = VaeSettings(rest_dim=10, part_dim=3, epochs=0)
    start, _ = train_segment_vaes(layout, shapes, settings, validation_rows=HELD_OUT)
    vertices = shapes.vertices(range(5))
    offsets = torch.zeros(5, len(PARTS), 2)
    ours, theirs = (m.decode(m.encode(vertices), offsets, blend=False) for m in (model, start))
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_part_pca_blends_and_places_its_parts_like_the_part_model(baselines, shapes):
    model, _ = baselines["part-pca"]
    assert isinstance(model, SegmentModel)
    latents = model.encode(shapes.vertices(range(2)))
    open_, blended = (model.decode(latents, blend=blend) for blend in (False, True))
    moved = (open_ - blended).norm(dim=2).amax(0) > 0
    free = np.zeros(model.layout.n_vertices, bool)
    area = model.blender.area
    free[area.vertex_ids[area.free]] = True
    assert moved.any()
    assert not moved[~free].any()
    shifted = model.decode(latents, model.offsets(latents["rest"]) + 2.0, blend=False) - open_
    nose = torch.from_numpy(model.layout.vertices("nose"))
    torch.testing.assert_close(
        shifted[:, nose], torch.tensor([0.0, 2.0, 2.0]).expand(2, len(nose), 3), atol=1e-4, rtol=0
    )


def test_parts_that_are_not_recentred_are_an_independent_pca_of_their_vertices(baselines, shapes):
    model, _ = baselines["part-pca-absolute"]
    latents = model.encode(shapes.vertices(HELD_OUT))
    assert not model.offsets(latents["rest"]).any()
    assert not model.box_centres_of(shapes).any()
    nose = model.layout.vertices("nose")
    flat = shapes.vertices(slice(None))[:, nose].flatten(1).double().numpy()
    train = np.setdiff1d(np.arange(len(shapes)), HELD_OUT)
    mean = flat[train].mean(0)
    axes = np.linalg.svd(flat[train] - mean, full_matrices=False)[2][:3]
    expected = mean + (flat[HELD_OUT] - mean) @ axes.T @ axes
    decoded = model.decode(latents, blend=False)[:, nose].flatten(1).numpy()
    np.testing.assert_allclose(decoded, expected, atol=2e-3)


def test_a_whole_face_model_has_no_offsets_and_no_seam(baselines, shapes):
    model, _ = baselines["ld-vae"]
    latents = model.encode(shapes.vertices(range(2)))
    assert torch.equal(model.decode(latents, blend=True), model.decode(latents, blend=False))
    with pytest.raises(ValueError, match="ld-vae model has no parts to place"):
        model.decode(latents, torch.zeros(2, 5, 2))
    with pytest.raises(ValueError, match="latents lack nose"):
        model.decode({name: z for name, z in latents.items() if name != "nose"})
    with pytest.raises(ValueError, match=r"vertices have shape \(2, 5, 3\)"):
        model.encode(torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match="not finite"):
        model.encode(torch.full((1, model.layout.n_vertices, 3), torch.nan))
    with pytest.raises(ValueError, match="this model has"):
        model.latents_of(shapes.region(np.arange(9)))


def test_histories_hold_the_terms_and_fall(baselines):
    assert baselines["global-pca"][1].history == baselines["part-pca"][1].history == {}
    history = baselines["global-vae"][1].history
    assert history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    history = baselines["ld-vae"][1].history
    assert history["step"] == [30, 60, 90, 120]
    names = {"step", "loss", "reconstruction", "kl", "consistency", "laplacian", "held_out_rms_mm"}
    assert set(history) == names
    assert history["reconstruction"][-1] < history["reconstruction"][0]
    assert history["held_out_rms_mm"][-1] < history["held_out_rms_mm"][0]
    weighted = [
        r + 1e-4 * k + 0.5 * c + lap
        for r, k, c, lap in zip(
            *(history[n] for n in ("reconstruction", "kl", "consistency", "laplacian")), strict=True
        )
    ]
    np.testing.assert_allclose(history["loss"], weighted, rtol=1e-4)


def test_swapping_makes_a_slice_own_its_region(layout, shapes):
    """After little training already, moving the nose slice moves the nose more than a far-away slice does."""
    settings = BaselineSettings(rest_dim=10, part_dim=4, swap=SwapSettings(steps=400, groups=2, lr=2e-3, records=1))
    model, _ = train_baseline("ld-vae", layout, shapes, settings)
    latents = model.encode(shapes.vertices(range(40)))
    base = model.decode(latents)
    nose = layout.core("nose")
    moved = {}
    for name in ("nose", "lower_lip"):
        swapped = model.decode({**latents, name: latents[name].roll(1, 0)}) - base
        moved[name] = float(swapped[:, nose].norm(dim=2).mean())
    assert moved["nose"] > 1.3 * moved["lower_lip"]


def test_same_seed_same_weights(layout, shapes):
    few = BaselineSettings(rest_dim=4, part_dim=3, epochs=1, swap=SwapSettings(steps=3, groups=1, faces=2, records=1))
    for name in ("global-vae", "ld-vae"):
        first, again = (train_baseline(name, layout, shapes, few)[0].state_dict() for _ in range(2))
        assert all(torch.equal(first[key], again[key]) for key in first)


def test_progress_comes_to_an_end(layout, shapes):
    few = BaselineSettings(rest_dim=4, part_dim=3, epochs=2, swap=SwapSettings(steps=4, groups=1, records=2))
    for name in ("global-vae", "ld-vae"):
        shares = []
        train_baseline(name, layout, shapes, few, on_progress=lambda share, loss, seen=shares: seen.append(share))
        assert shares == [0.5, 1.0]


def test_reconstruction_error_of_a_known_displacement(layout, shapes):
    nose = torch.from_numpy(layout.core("nose"))

    def displaced(vertices):
        return vertices.index_add(1, nose, torch.tensor([0.0, 3.0, 4.0]).expand(len(vertices), len(nose), 3))

    rms = reconstruction_rms(displaced, layout, shapes, range(40))
    assert rms["nose"] == pytest.approx(5.0, rel=1e-5)
    assert rms["rest"] == 0.0
    assert rms["face"] == pytest.approx(5.0 * np.sqrt(len(nose) / layout.n_vertices), rel=1e-5)


def test_bad_input_is_named(layout, shapes):
    with pytest.raises(ValueError, match="unknown baseline 'pca': use one of global-pca, global-vae, ld-vae, part-pca"):
        train_baseline("pca", layout, shapes)
    with pytest.raises(ValueError, match="unknown baseline 'pca'"):
        load_baseline("pca", "nowhere")
    with pytest.raises(ValueError, match="the layout has"):
        train_baseline("global-pca", layout, shapes.region(np.arange(9)))
    with pytest.raises(ValueError, match="groups of at least 2 faces"):
        SwapSettings(faces=1)
    with pytest.raises(ValueError, match="steps, groups and records must be at least 1"):
        SwapSettings(steps=0)
    with pytest.raises(ValueError, match="part_dim is 0"):
        BaselineSettings(part_dim=0)
    wild = BaselineSettings(rest_dim=4, part_dim=3, swap=SwapSettings(steps=20, groups=1, lr=1e12, records=1))
    with pytest.raises(FloatingPointError, match="the LD-VAE loss of step"):
        train_baseline("ld-vae", layout, shapes, wild)
