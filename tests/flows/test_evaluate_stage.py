"""What evaluate writes beside the overlaps with the masks: a parser's opinion, shape errors, the evaluator's checks."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from dataset_builder import load_parser
from fitting import part_iou
from flows.comparison.evaluator_checks import MOVES, Move, grown, moved, registration_columns
from flows.comparison.second_reference import parsed_labels
from flows.config import parse_config
from flows.console import print_headline
from flows.errors import UserError
from flows.figures import compared
from flows.methods import (
    ESTIMATED,
    FINE_TUNED,
    FITTED,
    GLOBAL_3DMM,
    GLOBAL_3DMM_WITH_MODES,
    MASK,
    MEAN_FACE,
    OURS,
    PRE_TRAINED,
    TRUTH,
)
from flows.pipeline import StageContext
from flows.run_data import load_faces, validation_faces
from flows.stages import STAGES, evaluate
from flows.tables import read_table, write_table

OWN = [(MEAN_FACE, ESTIMATED), (GLOBAL_3DMM, ESTIMATED), *((OURS, step) for step in (PRE_TRAINED, FINE_TUNED, FITTED))]


@pytest.fixture(scope="module")
def context(tiny_run, tmp_path_factory):
    """The evaluate stage of the tiny run, its faces taken for photographs with hand-made masks, with a small parser."""
    folder = tmp_path_factory.mktemp("evaluate")
    dataset = shutil.copytree(tiny_run.output("build_dataset"), folder / "dataset")
    for path in dataset.glob("masks-*.parquet"):
        masks = read_table(path, "masks")
        write_table(path, "masks", {**masks, "source": ["file"] * len(masks["source"])})
    settings = {"n_examples": 1, "parser": "small", "parser_epochs": 1}
    values = {**tiny_run.values, "dataset": {**tiny_run.values["dataset"], "images": "photos"}, "evaluate": settings}
    inputs = {outcome.name: outcome.folder for outcome in tiny_run.outcomes} | {"build_dataset": dataset}
    (folder / "out").mkdir()
    return StageContext(parse_config(values), inputs, folder / "out", folder)


@pytest.fixture(scope="module")
def out(context):
    evaluate.run(context)
    return context.out


def rows_of(table, method):
    return [i for i, key in enumerate(zip(table["model"], table["step"], strict=True)) if key == method]


def methods_of(table):
    return list(dict.fromkeys(zip(table["model"], table["step"], strict=True)))


def test_our_methods_have_overlaps_shape_errors_and_label_images_that_agree(out, context, tiny_run):
    overlaps = read_table(out / "overlaps.parquet", "overlaps")
    errors = read_table(out / "shape_errors.parquet", "shape_errors")
    drawn = read_table(out / "drawn_labels.parquet", "drawn_labels")
    assert methods_of(overlaps) == methods_of(errors) == methods_of(drawn) == OWN
    assert set(overlaps["reference"]) == {MASK}
    assert set(errors["reference"]) == {TRUTH}
    faces = validation_faces(load_faces(context.inputs["build_dataset"]))
    again = part_iou(drawn["labels"], np.concatenate([faces.masks()[0]] * len(OWN)))
    for key in ("intersection", "union", "predicted_area", "target_area"):
        np.testing.assert_array_equal(overlaps[key], getattr(again, key))
    wholes = {method: errors["rms_face"][rows_of(errors, method)].mean() for method in OWN}
    assert wholes[GLOBAL_3DMM, ESTIMATED] < wholes[MEAN_FACE, ESTIMATED]
    np.testing.assert_array_equal(
        drawn["labels"], read_table(tiny_run.output("evaluate") / "drawn_labels.parquet", "drawn_labels")["labels"]
    )


def test_the_parser_judges_our_methods_and_their_rivals(out, context):
    judged = read_table(out / "overlaps-small.parquet", "overlaps")
    rivals = read_table(sorted(context.inputs["compare_rivals"].glob("drawn_labels-*.parquet")), "drawn_labels")
    assert set(judged["reference"]) == {"small"}
    assert len(methods_of(rivals)) > 3
    assert set(methods_of(judged)) == {*OWN, *methods_of(rivals)}
    targets = [judged["target_area"][rows_of(judged, method)] for method in methods_of(judged)]
    assert all(np.array_equal(target, targets[0]) for target in targets)
    some = methods_of(rivals)[0]
    np.testing.assert_array_equal(
        judged["predicted_area"][rows_of(judged, some)][:, 2],
        (rivals["labels"][rows_of(rivals, some)] == 4).sum((1, 2)),
    )
    hand_made = read_table(out / "overlaps.parquet", "overlaps")["target_area"]
    assert not np.array_equal(targets[0], hand_made[: len(targets[0])])
    metrics = read_table(out / "metrics.parquet", "metrics")
    parsed = load_parser("small", out / "parser.safetensors").parse(
        validation_faces(load_faces(context.inputs["build_dataset"])).crops()
    )
    np.testing.assert_array_equal(targets[0][:, 2], (parsed.labels == 4).sum((1, 2)))
    itself = [i for i, key in enumerate(metrics["metric"]) if key == "parser_iou"]
    assert {metrics["method"][i] for i in itself} == {"small"}
    assert len(itself) == 6


def test_the_console_shows_our_steps_and_fitted_rivals(out, capsys):
    print_headline(out)
    shown = [line[:40].strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown[0].startswith("mean face, estimated")
    assert shown[-1].startswith("NEO-3DF, fitted")
    assert any(line.startswith("global PCA, fitted") for line in shown)
    assert not any(line.startswith(("global PCA, pre", "global PCA, fine", "small")) for line in shown)


def test_the_small_parser_learns_from_hand_made_masks_of_training_faces_only(context, monkeypatch):
    faces = load_faces(context.inputs["build_dataset"])
    learned = []

    def remember(crops, masks, ignore, settings, progress):
        learned.append((crops, settings.epochs))
        raise RuntimeError("seen enough")

    monkeypatch.setattr("flows.comparison.second_reference.train_parser", remember)
    validation = validation_faces(faces)
    with pytest.raises(RuntimeError, match="seen enough"):
        parsed_labels(context, faces, validation)
    ((crops, epochs),) = learned
    assert epochs == 1
    assert len(crops) == 11
    of_validation = {crop.tobytes() for crop in validation.crops()}
    assert not of_validation & {crop.tobytes() for crop in crops}
    drawn = replace(faces, mask_source=np.where(np.arange(len(faces)) < 9, "synthetic", "file"))
    with pytest.raises(
        UserError, match=r"at least 8 clean training photographs, and there are \d: give evaluate.parser_w"
    ):
        parsed_labels(context, drawn, validation)


def test_a_parser_is_refused_for_synthetic_faces_and_its_weights_without_it(tiny_run, tmp_path):
    with pytest.raises(UserError, match=r"parser none for synthetic faces, whose masks are exact: give dataset.images"):
        parse_config({"evaluate": {"parser": "small"}})
    with pytest.raises(UserError, match=r"evaluate.parser_weights is .*the parser whose weights they are"):
        parse_config({"evaluate": {"parser_weights": "weights.pth"}})
    values = {
        "dataset": {"images": "photos"},
        "evaluate": {"parser": "small", "parser_weights": str(tmp_path / "none")},
    }
    slice_of = next(stage.config for stage in STAGES if stage.name == "evaluate")
    with pytest.raises(UserError, match=r"evaluate.parser_weights: there is no file .*none"):
        slice_of(parse_config(values))
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"weights" if name == "one" else b"others")
    digests = []
    for name in ("one", "two", "one"):
        values["evaluate"]["parser_weights"] = str(tmp_path / name)
        digests.append(slice_of(parse_config(values)))
    assert digests[0] == digests[2] != digests[1]
    assert str(tmp_path) not in str(digests)


def test_a_moved_image_is_the_same_picture_elsewhere():
    labels = np.random.default_rng(1).integers(0, 7, (2, 9, 11)).astype(np.uint8)
    shifted = moved(labels, Move(right=2, down=3))
    np.testing.assert_array_equal(shifted[:, 3:, 2:], labels[:, :-3, :-2])
    assert not shifted[:, :3].any()
    assert not shifted[:, :, :2].any()
    dot = np.zeros((1, 5, 5), np.uint8)
    dot[0, 2, 2] = 4
    assert grown(dot, 4, 1).sum() == 5 * 4
    assert grown(dot, 4, 2).sum() == 13 * 4
    assert not grown(dot, 3, 1).any()


def test_registration_of_a_square_is_what_its_sides_say():
    labels = np.zeros((1, 40, 40), np.uint8)
    labels[0, 10:20, 10:30] = 4
    table = registration_columns("square", labels, labels)
    nose = dict(zip(MOVES, np.asarray(table["iou"])[:, 2], strict=True))
    assert nose[Move()] == 1
    for pixels in (1, 2, 3):
        assert nose[Move(down=pixels)] == pytest.approx((10 - pixels) / (10 + pixels))
        assert nose[Move(right=pixels)] == pytest.approx((20 - pixels) / (20 + pixels))
    assert nose[Move(dilated=1)] == pytest.approx(200 / 260)
    assert np.isnan(np.asarray(table["iou"])[:, 0]).all()
    np.testing.assert_array_equal(np.asarray(table["n"]), [[0, 0, 1, 0, 0]] * len(MOVES))


def test_registration_of_the_run_falls_with_every_pixel(out):
    table = read_table(sorted(out.glob("registration*.parquet")), "registration")
    for subject in ("mean face", "fitted faces"):
        rows = [i for i, name in enumerate(table["subject"]) if name == subject]
        iou = dict(zip(MOVES, table["iou"][rows], strict=True))
        down = np.stack([iou[Move(down=pixels)] for pixels in range(4)])
        assert (np.diff(down, axis=0) < 0).all()
        assert (iou[Move(dilated=1)] < iou[Move()]).all()
    thin, nose = iou[Move(down=2)][0], iou[Move(down=2)][2]
    assert thin < nose, "a thin part loses more"


def test_figure_3_shows_the_last_step_of_every_rival_and_neo_3df_before_and_after():
    methods = [*OWN[:2], (GLOBAL_3DMM, FITTED), (GLOBAL_3DMM_WITH_MODES, FITTED)]
    methods += [("LD-VAE", step) for step in (PRE_TRAINED, FINE_TUNED, FITTED)]
    methods += [("global PCA", step) for step in (PRE_TRAINED, FINE_TUNED)]
    assert compared([*methods, *OWN[2:]]) == [
        (GLOBAL_3DMM, ESTIMATED),
        (GLOBAL_3DMM, FITTED),
        (GLOBAL_3DMM_WITH_MODES, FITTED),
        ("LD-VAE", FITTED),
        ("global PCA", FINE_TUNED),
        (OURS, FINE_TUNED),
        (OURS, FITTED),
    ]
