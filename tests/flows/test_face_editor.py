"""The editor on real part models: what its steps and its memory must not change."""

import numpy as np
import pytest
import torch

from dataset_builder import load_face_model
from editing import REGIONS, ControllerMap, FaceDecoder, FaceState
from flows.face_editor import RunDecoder, editor_of
from flows.part_modes import shifts_in_x
from flows.run_model import PartFaceModel, measuring_points
from flows.stages.controllers import measure_decoded
from segmodel import LinearShapes, PartLayout, VaeSettings, train_offset_regressor, train_segment_vaes


@pytest.fixture(scope="module")
def parts():
    """Face model, part models at their PCA start with a direction beside them, and latents of their faces."""
    face_model = load_face_model("synthetic-3k")
    layout = PartLayout.from_labels(face_model.labels, face_model.faces, face_model.mean)
    shapes = LinearShapes(face_model.mean, face_model.id_basis, face_model.sample(600, seed=0))
    segments, _ = train_segment_vaes(layout, shapes, VaeSettings(epochs=0))
    train_offset_regressor(segments, shapes)
    model = PartFaceModel(face_model, segments, shifts_in_x(layout))
    return model, model.padded(segments.latents_of(shapes))


@pytest.fixture(scope="module")
def controllers(parts):
    model, latents = parts
    plain = {region: z[:, : model.segments.latent_dims[region]].numpy() for region, z in latents.items()}
    fitted = ControllerMap.fit(measure_decoded(model, measuring_points(model), plain), plain, ridge=0.03)
    regions = {}
    for region, stored in fitted.to_dict().items():
        extra = model.n_directions(region)
        padded = {"matrix": np.pad(stored["matrix"], ((0, 0), (0, extra)))}
        regions[region] = stored | padded | {"mean_latent": np.pad(stored["mean_latent"], (0, extra))}
    return ControllerMap.from_dict(regions)


@pytest.fixture
def faces(parts):
    """Two faces with offsets of their own and shifts in x."""
    model, latents = parts
    rng = np.random.default_rng(0)
    made = []
    for row in (3, 4):
        z = {region: values[row].numpy().copy() for region, values in latents.items()}
        for region in REGIONS[:-1]:
            z[region][-1] = rng.normal()
        placed = model.segments.offsets(latents["rest"][row : row + 1]).detach()[0].numpy()
        offsets = (placed + rng.normal(size=(5, 2))).astype(np.float32)
        made.append(FaceState.create(z, offsets, {"nose.width": 1.0, "rest.mandibular_width": -0.5}))
    return made


@pytest.fixture
def editor(parts, controllers, faces):
    return editor_of(parts[0], faces[0], controllers, measuring_points(parts[0]))


def test_the_steps_give_the_face_that_the_model_gives(parts, controllers, faces):
    model, _ = parts
    state = FaceState.create(faces[0].latents, faces[0].offsets)
    stepwise = editor_of(model, state, controllers).vertices()
    latents = {region: torch.from_numpy(z.astype(np.float32))[None] for region, z in state.latents.items()}
    offsets = torch.from_numpy(state.offsets.astype(np.float32))[None]
    with torch.no_grad():
        composed, rest = model.compose(latents, offsets)
        at_once = model.blender(composed, rest)[0].numpy()
    np.testing.assert_allclose(stepwise, at_once, atol=1e-4)
    assert np.abs(composed[0].numpy() - at_once).max() > 0.1, "blending has something to do"


def test_an_edited_face_is_the_one_rebuilt_from_nothing_bit_for_bit(editor, parts, controllers, faces):
    rng = np.random.default_rng(0)
    for seed in range(12):
        editor.set(str(rng.choice(editor.names)), rng.uniform(-3, 3))
        if seed == 4:
            editor.copy_part(faces[1], "upper_lip")
        if seed == 6:
            editor.randomise(seed, 0.5, symmetric=False, regions=["rest", "eyes"])
        if seed == 8:
            editor.blend_with(faces[1], 0.3)
        editor.undo()
        editor.redo()
        rebuilt = editor_of(parts[0], editor.state, controllers).vertices()
        np.testing.assert_array_equal(editor.vertices(), rebuilt)


def test_an_edit_of_one_part_leaves_the_others_bit_identical(editor, parts):
    layout, area = parts[0].segments.layout, parts[0].blender.area
    before = editor.vertices()
    for edit in (lambda: editor.set("nose.height", 2.0), lambda: editor.move_part("nose", 2.0, 1.0)):
        edit()
        moved = (editor.vertices() != before).any(axis=1)
        assert moved[layout.core("nose")].all()
        for part in ("eyebrows", "eyes", "upper_lip", "lower_lip"):
            assert not moved[layout.core(part)].any()
        fixed = np.setdiff1d(layout.core("rest"), area.vertex_ids[area.free])
        assert not moved[fixed].any()


def test_copies_of_all_regions_give_the_other_face_bit_for_bit(editor, parts, controllers, faces):
    for region in reversed(REGIONS):
        editor.copy_part(faces[1], region)
    assert editor.state == faces[1]
    np.testing.assert_array_equal(editor.vertices(), editor_of(parts[0], faces[1], controllers).vertices())


def test_an_exact_value_is_reached_on_the_blended_face(editor):
    wanted = editor.measurements()["nose.width"] + 1.5
    editor.set_exact("nose.width", wanted)
    assert editor.measurements()["nose.width"] == pytest.approx(wanted, abs=0.05)


def test_random_controls_keep_the_symmetry_that_random_latents_lose(parts, controllers):
    model, _ = parts
    mirror = model.face_model.mirror

    def asymmetry(editor):
        face = editor.vertices()
        return np.linalg.norm(face - face[mirror] * [-1, 1, 1], axis=1).mean() / 2

    editor = editor_of(model, FaceState.create(controllers.base_latents()), controllers)
    loaded, start = asymmetry(editor), editor.vertices()
    drawn = {}
    for symmetric in (True, False):
        drawn[symmetric] = []
        for seed in range(6):
            editor.restore()
            editor.randomise(seed, symmetric=symmetric)
            drawn[symmetric].append(asymmetry(editor))
            assert np.linalg.norm(editor.vertices() - start, axis=1).mean() > 1.0
    assert loaded < 0.1
    # what is left comes from controls that were fitted on 600 asymmetric faces
    assert np.mean(drawn[True]) < loaded + 0.3
    assert np.mean(drawn[False]) > 2 * np.mean(drawn[True])


def test_random_faces_go_along_no_direction(parts, controllers, editor):
    model, _ = parts
    editor.randomise(1, 2.0, symmetric=False)
    for region in REGIONS[:-1]:
        z, mean = editor.state.latents[region], model.segments.latent_mean[region].numpy()
        assert z[-1] == 0
        assert np.abs(z[: len(mean)] - mean).max() > 0.1


def test_a_model_that_an_editor_has_used_can_still_be_differentiated(parts, editor):
    model, latents = parts
    editor.vertices()
    z = {region: values[:1].clone().requires_grad_() for region, values in latents.items()}
    composed, rest = model.compose(z, model.segments.offsets(z["rest"]))
    model.blender(composed, rest).square().sum().backward()
    assert z["nose"].grad.abs().max() > 0


def test_the_decoder_is_what_the_editing_package_asks_for(parts):
    decoder: FaceDecoder = RunDecoder(parts[0])
    assert {region: len(z) for region, z in decoder.latent_mean.items()} == parts[0].latent_dims
    assert list(decoder.latent_std) == list(REGIONS)
