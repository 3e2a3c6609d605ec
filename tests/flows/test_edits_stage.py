"""What compare_edits promises: edits of parts stay in their parts, and the numbers and pictures that show it."""

import dataclasses
import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from flows.comparison.edit_figures import HEAT, colour_bar, cropped, labelled
from flows.comparison.edit_sequence import LIMIT, EditPlan, edited_in_steps, stillness
from flows.comparison.nose_ablation import NosePca
from flows.config import parse_config
from flows.contracts import PARTS, REGIONS
from flows.errors import UserError
from flows.pipeline import Pipeline, PlainRunner, StageContext
from flows.run_model import PartFaceModel, load_controllers, load_part_face_model
from flows.stages import STAGES, edits
from flows.tables import read_table, write_table
from segmodel import LinearShapes, recentre

OURS, UNBLENDED, PART_PCA = "NEO-3DF", "NEO-3DF, unblended", "part PCA (PB-3DMM)"
LD_VAE = ("LD-VAE, slice", "LD-VAE, whole latent")
NEEDS = ("build_dataset", "train_segments", "learn_modes", "fit_controllers")


@pytest.fixture(scope="module")
def compared(tiny_run, tmp_path_factory):
    """The stage's output folder in the tiny run with two rivals, little trained."""
    folder = tmp_path_factory.mktemp("edits") / "run"
    shutil.copytree(tiny_run.folder, folder)
    rivals = {"models": ["ld-vae", "part-pca"], "epochs": 1, "steps": 20}
    config = parse_config({**tiny_run.values, "run_dir": folder, "baselines": rivals})
    return Pipeline(STAGES, config, only=["compare_edits"]).execute(PlainRunner)[-1].folder


@pytest.fixture(scope="module")
def reach(compared):
    """{(model, region): {column: value}} of the table."""
    table = read_table(compared / "edit_reach.parquet", "edit_reach")
    rows = [{key: values[i] for key, values in table.items()} for i in range(len(table["model"]))]
    return {(row["model"], row["region"]): row for row in rows}


@pytest.fixture(scope="module")
def metrics(compared):
    table = read_table(compared / "metrics.parquet", "metrics")
    return {
        (method, name): value
        for method, name, value in zip(table["method"], table["metric"], table["value"], strict=True)
    }


@pytest.fixture(scope="module")
def inputs(tiny_run):
    return {stage: tiny_run.output(stage) for stage in NEEDS}


@pytest.fixture(scope="module")
def model(inputs):
    return load_part_face_model(inputs)


@pytest.fixture(scope="module")
def controllers(inputs, model):
    return load_controllers(inputs, model)[0]


@pytest.fixture(scope="module")
def start(model):
    """Three faces taken apart."""
    shapes = model.face_model.shape(model.face_model.sample(3, 7))
    with torch.no_grad():
        return model.encode(torch.from_numpy(shapes))


def test_the_table_has_every_method_and_region_with_its_map(reach, model):
    assert set(reach) == {(method, region) for method in (OURS, UNBLENDED, PART_PCA, *LD_VAE) for region in REGIONS}
    for (_, region), row in reach.items():
        assert row["reach"].shape == (model.face_model.n_vertices,)
        own = row["reach"][model.segments.layout.core(region)]
        assert row["reach"].max() == pytest.approx(max(own.max(), row["max_outside"]))
        assert 0 < row["inside"] < row["reach"].max()
        assert np.isnan(row["beyond"]) == (region == "rest")
        assert row["response_min"] <= row["response_mean"] <= row["response_max"]


@pytest.mark.parametrize("part", PARTS)
def test_an_edit_of_ours_stays_in_part_and_transition_area_exactly(reach, model, part):
    blended, unblended = reach[OURS, part], reach[UNBLENDED, part]
    assert blended["max_elsewhere"] == 0
    assert unblended["max_outside"] == 0
    assert 0 < blended["outside"] < 0.5 * blended["inside"]
    own, area = model.segments.layout.core(part), model.blender.area
    still = np.setdiff1d(np.arange(model.face_model.n_vertices), [*own, *area.vertex_ids[area.free]])
    assert (blended["reach"][still] == 0).all()
    np.testing.assert_allclose(blended["reach"][own], unblended["reach"][own], atol=1e-4)


def test_the_measures_see_what_leaks(reach):
    for part in PARTS:
        for title in LD_VAE:
            assert reach[title, part]["max_elsewhere"] > 0.01
        assert reach[PART_PCA, part]["max_elsewhere"] == 0
    assert reach[UNBLENDED, "rest"]["max_outside"] > 1, "the rest carries the parts along"


def test_our_controls_respond_as_they_were_fitted(reach):
    for region in REGIONS:
        assert 0.9 <= reach[UNBLENDED, region]["response_min"] <= reach[UNBLENDED, region]["response_max"] <= 1.1


def test_three_controls_at_once_move_nothing_else_but_by_blending(metrics):
    for tip in ("tip_height", "tip_depth"):
        assert metrics[UNBLENDED, f"three_controls.{tip}.outside"] == 0
        assert 0 < metrics[OURS, f"three_controls.{tip}.outside"] < metrics[OURS, f"three_controls.{tip}.inside"]


def test_later_edits_leave_every_bit_of_earlier_parts(metrics):
    assert metrics[OURS, "share_bit_identical"] == 1
    assert metrics[OURS, "largest_unwanted_motion"] == 0


def test_offsets_keep_the_nose_in_its_place_and_blending_closes_the_seam(metrics):
    for method in (OURS, "part PCA", "part PCA without offsets"):
        assert metrics[method, "largest_gap"] < 0.5 * metrics[f"{method}, unblended", "largest_gap"]
        assert metrics[method, "mean_lift"] > 1
    for method in (OURS, "part PCA"):
        assert metrics[method, "mean_drift"] < 0.5 * metrics["part PCA without offsets", "mean_drift"]


def test_pictures_of_all_four_figures_are_narrow_and_say_what_they_show(compared):
    table = read_table(compared / "pictures.parquet", "pictures")
    assert list(dict.fromkeys(table["section"])) == [f"figure-{number}" for number in (4, 5, 6, 7)]
    for section, caption, image in zip(*table.values(), strict=True):
        picture = np.asarray(Image.open(io.BytesIO(image)))
        assert picture.shape[2] == 3
        assert picture.shape[1] <= 560
        assert 20 < picture.mean() < 250
        assert "mm" in caption
        assert "σ" in caption, section
    captions = " ".join(table["caption"])
    assert "0 outside the part" in captions
    assert "100 %" in captions


def test_without_rivals_only_ours_is_compared(tiny_run, tmp_path):
    edits.run(context_of(tiny_run, tmp_path, {}, baselines={}))
    table = read_table(tmp_path / "edit_reach.parquet", "edit_reach")
    assert list(dict.fromkeys(table["model"])) == [OURS, UNBLENDED]


def test_the_stage_writes_the_same_bytes_again(tiny_run, tmp_path):
    first = tiny_run.output("compare_edits")
    edits.run(context_of(tiny_run, tmp_path, {}))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["edit_reach.parquet", "metrics.parquet", "pictures.parquet"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (first / name).read_bytes()


def context_of(run, out, replaced, **sections):
    """The stage's context in the tiny run, with other folders for some inputs and other sections."""
    stage = next(stage for stage in STAGES if stage.name == "compare_edits")
    inputs = {name: run.output(name) for name in stage.needs} | replaced
    config = parse_config({**run.values, **sections, "run_dir": run.folder})
    return StageContext(config, inputs, out, run.folder)


def test_a_run_whose_fits_all_failed_is_told_so(tiny_run, tmp_path):
    source = tiny_run.output("fit_photos")
    for path in source.glob("*-*.parquet"):
        shutil.copyfile(path, tmp_path / path.name)
    for path in source.glob("fits-*.parquet"):
        fits = read_table(path, "fits")
        write_table(
            tmp_path / path.name, "fits", {**fits, "set_aside": ["the face left the picture"] * len(fits["face_id"])}
        )
    with pytest.raises(UserError, match="no face was fitted without being set aside"):
        edits.run(context_of(tiny_run, tmp_path / "out", {"fit_photos": tmp_path}))


def test_a_plan_edits_the_rest_and_then_each_part_once(controllers):
    plan = EditPlan.random(controllers, 40, 6, seed=1)
    assert (plan.regions[:, 0] == REGIONS.index("rest")).all()
    np.testing.assert_array_equal(np.sort(plan.regions[:, 1:], axis=1), np.tile(range(5), (40, 1)))
    assert len(np.unique(plan.regions, axis=0)) > 10, "every face has an order of its own"
    for region, values in plan.controls.items():
        assert values.shape == (40, len(controllers.region(region).names))
        assert np.abs(values).max() <= LIMIT
    short = EditPlan.random(controllers, 40, 3, seed=1)
    np.testing.assert_array_equal(short.regions, plan.regions[:, :3])


def test_steps_add_up_to_the_face_that_all_controls_give_at_once(model, controllers, start):
    plan = EditPlan.random(controllers, 3, 6, seed=2)
    *_, last = edited_in_steps(model, controllers, start, plan)
    latents = controllers.apply({region: z.numpy() for region, z in start.latents.items()}, plan.controls)
    edited = {region: torch.from_numpy(z) for region, z in latents.items()}
    with torch.no_grad():
        dim = model.segments.latent_dims["rest"]
        before, after = (model.segments.offsets(z["rest"][:, :dim]) for z in (start.latents, edited))
        composed, rest = model.compose(edited, start.offsets + after - before)
        at_once = model.blender(composed, rest)
    torch.testing.assert_close(last, at_once, atol=1e-3, rtol=0)


class Leaky(PartFaceModel):
    """A model whose edits move the brow a little: each face it decodes has it elsewhere."""

    def neutral(self, face, blender, skin=None):
        made = super().neutral(face, blender, skin).clone()
        vertex = int(self.segments.layout.core("eyebrows")[0])
        made[:, vertex] += 0.125 * face.latents["nose"][:, :1]
        return made


def test_stillness_finds_a_single_vertex_that_moves(model, controllers, start):
    plan = EditPlan.random(controllers, 3, 6, seed=3)
    sound = stillness(model, controllers, start, plan)
    assert (sound.share, sound.largest_mm) == (1, 0)
    leaky = stillness(Leaky(**vars_of(model)), controllers, start, plan)
    assert leaky.compared == sound.compared
    assert sound.compared - leaky.identical == 3, "once in each face, when its nose is edited"
    assert leaky.largest_mm > 0.01


def vars_of(model):
    """The fields of a part face model."""
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}


@pytest.mark.parametrize("centred", [True, False])
def test_a_nose_in_the_span_of_its_pca_comes_back_where_it_stood(model, centred):
    face_model, ids = model.face_model, model.segments.layout.core("nose")
    shapes = LinearShapes(face_model.mean, face_model.id_basis, face_model.sample(120, 4)).region(ids)
    noses = shapes.vertices(slice(None))
    pca = NosePca.fit(noses, 100, centred=centred)
    latents, centres = pca.encode(noses), recentre(noses)[1]
    torch.testing.assert_close(pca.decode(latents, centres), noses, atol=0.02, rtol=0)
    torch.testing.assert_close(latents.std(dim=0, correction=0), torch.ones(latents.shape[1]), atol=1e-2, rtol=0)
    moved = noses + torch.tensor([0.0, 5.0, -3.0])
    if centred:
        torch.testing.assert_close(pca.encode(moved), latents, atol=1e-2, rtol=0)
    else:
        assert (pca.encode(moved) - latents).abs().max() > 0.5


def test_labels_stand_above_and_below_and_leave_the_picture_alone():
    tile = np.full((30, 80, 3), 90, np.uint8)
    plain, titled = labelled(tile, "nose 3.1 mm"), labelled(tile, "nose 3.1 mm", "NEO-3DF")
    np.testing.assert_array_equal(plain[:30], tile)
    np.testing.assert_array_equal(titled[-len(plain) :], plain)
    for strip in (plain[30:], titled[: -len(plain)]):
        assert strip.min() < 100
        assert strip.max() == 255


def test_the_bar_runs_through_the_colours_of_the_maps():
    bar = colour_bar(300)
    np.testing.assert_allclose(bar[5, [0, -1]] / 255, HEAT([0.0, 1.0])[:, :3], atol=0.01)
    brightness = bar[5].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > -1).all()
    assert brightness[-1] > brightness[0] + 100


def test_crops_keep_everything_that_any_picture_shows():
    pictures = [np.full((20, 30, 3), 255, np.uint8) for _ in range(2)]
    pictures[0][4, 7], pictures[1][11, 19] = 0, 0
    one, other = cropped(pictures)
    assert one.shape == other.shape == (8, 13, 3)
    assert one[0, 0].max() == 0
    assert other[-1, -1].max() == 0
