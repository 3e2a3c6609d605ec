import json
import os

import numpy as np
import pytest
import torch

from segmodel import PARTS, REGIONS, SegmentModel, box_centres


def latents_of_rows(model, shapes, rows):
    return {region: z.detach() for region, z in model.encode(shapes.vertices(rows)).items()}


def test_latents_without_meshes_equal_encoding_meshes(model, shapes):
    fast = model.latents_of(shapes)
    slow = latents_of_rows(model, shapes, range(30))
    for region in REGIONS:
        torch.testing.assert_close(fast[region][:30], slow[region], atol=2e-4, rtol=1e-4)


def test_latent_statistics_are_those_of_the_training_faces(trained, shapes):
    model, _, _ = trained
    held_out = np.sort(np.random.default_rng(3).permutation(len(shapes))[: len(shapes) // 10])
    train = np.setdiff1d(np.arange(len(shapes)), held_out)
    for region, z in model.latents_of(shapes).items():
        torch.testing.assert_close(model.latent_mean[region], z[train].mean(0), atol=1e-4, rtol=0)
        torch.testing.assert_close(model.latent_std[region], z[train].std(0, correction=0), atol=1e-4, rtol=1e-4)


def test_compose_takes_the_decoded_rest_from_the_caller(model, shapes):
    z = latents_of_rows(model, shapes, range(3))
    skin = model.decode_part("rest", z["rest"])
    for ours, theirs in zip(model.compose(z, rest=skin), model.compose(z), strict=True):
        assert torch.equal(ours, theirs)
    moved, _ = model.compose(z, rest=skin + 1)
    assert not torch.equal(moved, model.compose(z)[0])


def test_compose_puts_every_region_where_it_belongs(model, layout, shapes):
    z = latents_of_rows(model, shapes, [3, 8])
    offsets = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]] * 2)
    composed, rest = model.compose(z, offsets)
    assert composed.dtype == rest.dtype == torch.float32
    for i, part in enumerate(PARTS):
        own = model.decode_part(part, z[part])
        placed = composed[:, layout.core(part)]
        assert torch.equal(placed[..., 0], own[..., 0])
        torch.testing.assert_close(placed[..., 1:], own[..., 1:] + offsets[:, i, None])
    skin = model.decode_part("rest", z["rest"])
    assert torch.equal(rest[:, layout.vertices("rest")], skin)
    outside_rings = np.setdiff1d(np.arange(layout.n_vertices), np.concatenate([layout.ring(p) for p in PARTS]))
    assert torch.equal(rest[:, outside_rings], composed[:, outside_rings])


def test_true_offsets_and_full_rank_reproduce_the_face(model, shapes):
    vertices = shapes.vertices([0, 5])
    z = model.encode(vertices)
    centres = model.box_centres_of(shapes)[[0, 5]]
    composed, _ = model.compose(z, centres)
    assert (composed - vertices).norm(dim=-1).mean() < 1.5
    for i, part in enumerate(PARTS):
        truth = box_centres(vertices[:, model.layout.core(part)])
        torch.testing.assert_close(centres[:, i], truth)
        placed = box_centres(composed[:, model.layout.core(part)])
        assert (placed - truth).abs().max() < 1.5


def test_editing_one_part_leaves_all_other_vertices_bit_identical_unblended(model, layout, shapes):
    z = latents_of_rows(model, shapes, [2])
    before = model.decode(z, blend=False)
    z["nose"] = z["nose"] + 1.0
    after = model.decode(z, blend=False)
    changed = np.flatnonzero((before != after).any(-1)[0].numpy())
    assert len(changed) > 0
    assert set(changed) <= set(layout.core("nose"))


def test_blended_edit_changes_only_the_part_and_its_surroundings(model, layout, shapes):
    z = latents_of_rows(model, shapes, [2])
    before = model.decode(z)
    z["nose"] = z["nose"] + 1.0
    after = model.decode(z)
    changed = np.flatnonzero((before != after).any(-1)[0].numpy())
    area = layout.transition(model.radius_mm)
    assert set(changed) <= set(layout.core("nose")) | set(area.vertex_ids[area.free])


def test_decode_is_differentiable_in_every_latent_and_the_offsets(model, shapes):
    z = {r: v.requires_grad_() for r, v in latents_of_rows(model, shapes, [1]).items()}
    offsets = model.offsets(z["rest"]).detach().requires_grad_()
    vertices = model.decode(z, offsets)
    weight = torch.linspace(-1, 1, vertices.numel()).view_as(vertices)
    gradients = torch.autograd.grad((vertices * weight).sum(), [*z.values(), offsets])
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in gradients)


def test_offset_gradient_is_the_finite_difference(model, shapes):
    z = latents_of_rows(model, shapes, [1])
    offsets = model.offsets(z["rest"]).detach()
    weight = torch.linspace(-1, 1, model.layout.n_vertices * 3).view(1, -1, 3)

    def value(o):
        return (model.decode(z, o).double() * weight).sum()

    def number(o):
        return float(value(o).detach())

    leaf = offsets.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    for index in ((0, 2, 0), (0, 4, 1)):
        step = torch.zeros_like(offsets)
        step[index] = 0.25
        numeric = (number(offsets + step) - number(offsets - step)) / 0.5
        assert float(gradient[index]) == pytest.approx(numeric, rel=2e-2)


def test_offset_regressor_explains_what_the_rest_latent_knows(trained, shapes):
    model, _, report = trained
    assert report.r2.shape == report.rmse_mm.shape == (5, 2)
    assert (report.rmse_mm <= report.linear_rmse_mm * 1.05).all()
    assert report.r2.mean() > 0.5
    error = model.offsets(model.latents_of(shapes)["rest"]) - model.box_centres_of(shapes)
    np.testing.assert_allclose(error.detach().square().mean(0).sqrt().numpy(), report.rmse_mm, rtol=0.25)


def test_offset_regressor_starts_at_least_squares(generator):
    from segmodel import OffsetRegressor

    latents = torch.randn(200, 7, generator=generator)
    centres = latents @ torch.randn(7, 10, generator=generator) + torch.randn(200, 10, generator=generator) + 5
    regressor = OffsetRegressor(7)
    regressor.start_at_least_squares(latents, centres)
    design = torch.cat([latents, torch.ones(200, 1)], dim=1)
    expected = design @ torch.linalg.lstsq(design, centres).solution
    torch.testing.assert_close(regressor(latents).flatten(1), expected, atol=1e-4, rtol=1e-4)


def test_saved_model_is_the_same_model(model, shapes, tmp_path):
    model.save(tmp_path)
    loaded = SegmentModel.load(tmp_path, topology_hash=model.layout.topology_hash)
    vertices = shapes.vertices([0, 1])
    z = model.encode(vertices)
    assert all(torch.equal(value, loaded.encode(vertices)[region]) for region, value in z.items())
    assert torch.equal(model.decode(z), loaded.decode(z))
    assert loaded.latent_dims == model.latent_dims
    assert torch.equal(loaded.latent_std["eyes"], model.latent_std["eyes"])
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["units"] == "mm"
    assert description["regions"] == list(REGIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_load_refuses_another_topology_and_names_both(model, tmp_path):
    model.save(tmp_path)
    with pytest.raises(ValueError, match=f"trained on topology {model.layout.topology_hash} but topology abc123"):
        SegmentModel.load(tmp_path, topology_hash="abc123")
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, "topology_hash": "feed"}))
    with pytest.raises(ValueError, match=f"names topology feed, the weights hold {model.layout.topology_hash}"):
        SegmentModel.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(ValueError, match=r"99.*train the model again"):
        SegmentModel.load(tmp_path)


def test_load_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json does not exist"):
        SegmentModel.load(tmp_path / "nowhere")


def test_bad_faces_and_latents_are_named(model, shapes):
    broken = shapes.vertices([0])
    broken[0, 7, 1] = np.nan
    with pytest.raises(ValueError, match="values that are not finite"):
        model.encode(broken)
    z = latents_of_rows(model, shapes, [0])
    del z["eyes"]
    with pytest.raises(ValueError, match="latents lack eyes"):
        model.decode(z)


def test_wrong_vertex_count_is_named(model):
    with pytest.raises(ValueError, match=r"give \(B, 1\d\d\d, 3\)"):
        model.encode(torch.zeros(1, 5, 3))


def test_model_refuses_foreign_vaes(model, layout):
    vaes = {region: model.vae(region) for region in REGIONS}
    with pytest.raises(ValueError, match="no VAE for region 'rest'"):
        SegmentModel(layout, {p: vaes[p] for p in PARTS}, model.offset_regressor)
    with pytest.raises(ValueError, match="the VAE of 'eyes' has"):
        SegmentModel(layout, {**vaes, "eyes": vaes["nose"]}, model.offset_regressor)


def test_saved_files_can_be_read_by_all_and_say_how_the_model_was_trained(model, tmp_path):
    before = os.umask(0o027)
    try:
        model.save(tmp_path / "new" / "folder")
    finally:
        os.umask(before)
    for path in (tmp_path / "new" / "folder").iterdir():
        assert path.stat().st_mode & 0o777 == 0o640
    loaded = SegmentModel.load(tmp_path / "new" / "folder")
    assert loaded.training_record == model.training_record
    assert loaded.training_record["settings"]["init"] == "pca"
    assert loaded.training_record["settings"]["seed"] == 3


def test_a_folder_saved_before_training_was_recorded_is_still_read(model, tmp_path):
    model.save(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    del description["training"]
    (tmp_path / "model.json").write_text(json.dumps(description))
    assert SegmentModel.load(tmp_path).training_record is None


def test_a_save_that_fails_leaves_the_old_files_and_nothing_else(model, tmp_path, monkeypatch):
    model.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        model.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
