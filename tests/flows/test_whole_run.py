"""The real stages, from synthetic photographs to the evaluation, on one tiny run."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from dataset_builder import load_face_model
from flows.config import parse_config
from flows.console import print_headline, print_stages
from flows.contracts import CONTRACTS, PARTS, REGIONS
from flows.errors import UserError
from flows.methods import method_name
from flows.pipeline import PlainRunner
from flows.run_data import load_faces, masked_training_faces, training_faces, validation_faces
from flows.run_model import PartFace, load_part_face_model
from flows.stages import STAGES
from flows.store import load_manifest, load_run, verify
from flows.tables import read_table, row_count, table_metadata

MINIMUM_AREA = 20
"""Pixels of a mask from which on a part counts (docs/CONVENTIONS.md)."""

WITHOUT_TOPOLOGY = {"metrics", "history", "encodings", "rejected"}
"""Tables whose numbers do not belong to vertices; a file may still name the topology."""


def tables(run):
    return sorted(path for outcome in run.outcomes for path in outcome.folder.rglob("*.parquet"))


def topology_of(run):
    return load_face_model(run.output("build_dataset") / "face_model.npz").topology_hash()


def fits_of(run):
    return read_table(sorted(run.output("fit_photos").glob("fits-*.parquet")), "fits")


def masks_of(run):
    return validation_faces(load_faces(run.output("build_dataset"))).masks()


def test_every_stage_ran_once_and_left_a_complete_manifest(tiny_run):
    assert [outcome.name for outcome in tiny_run.outcomes] == [stage.name for stage in STAGES]
    assert {outcome.status for outcome in tiny_run.outcomes} == {"ran"}
    for stage, outcome in zip(STAGES, tiny_run.outcomes, strict=True):
        manifest = load_manifest(outcome.folder)
        assert manifest is not None
        assert (manifest.stage, manifest.key) == (stage.name, outcome.key)
        assert set(manifest.upstream) == set(stage.needs) - set(stage.spares(parse_config(tiny_run.values)))
        assert set(manifest.packages) == set(stage.packages)
        assert verify(outcome.folder) == []
        written = {path.relative_to(outcome.folder).as_posix() for path in outcome.folder.rglob("*") if path.is_file()}
        assert written == {entry.name for entry in manifest.files} | {"manifest.json"}


def test_every_table_keeps_its_contract_and_names_the_topology(tiny_run):
    topology = topology_of(tiny_run)
    seen = set()
    for path in tables(tiny_run):
        found = table_metadata(path)
        name = found["contract"]
        seen.add(name)
        expected = topology if found["topology_hash"] or name not in WITHOUT_TOPOLOGY else None
        columns = read_table(path, name, topology_hash=expected)
        assert {len(values) for values in columns.values()} == {row_count(path)}
        assert found["units"] == "mm"
    assert seen == set(CONTRACTS)


def test_a_table_of_another_topology_is_refused(tiny_run):
    path = tiny_run.output("transfer_labels") / "topology_vertices.parquet"
    with pytest.raises(UserError, match=r"belongs to topology [0-9a-f]{64}, expected 0{64}"):
        read_table(path, "topology_vertices", topology_hash="0" * 64)


def test_nobody_is_in_two_splits_and_every_face_is_in_one(tiny_run):
    faces = load_faces(tiny_run.output("build_dataset"))
    train, validation = set(training_faces(faces).face_id), set(validation_faces(faces).face_id)
    assert (len(train), len(validation)) == (11, 5)
    assert not train & validation
    assert train | validation == set(faces.face_id)
    assert set(masked_training_faces(faces).face_id) <= train
    assert list(fits_of(tiny_run)["face_id"]) == validation_faces(faces).face_id


def test_landmark_estimates_come_near_the_true_faces(tiny_run):
    folder = tiny_run.output("build_dataset")
    model = load_face_model(folder / "face_model.npz")
    table = read_table(sorted(folder.glob("faces-*.parquet")), "faces")
    truth, found = model.shape(table["true_identity"]), model.shape(table["identity"])
    error = np.linalg.norm(found - truth, axis=-1).mean()
    mean_face = np.linalg.norm(model.mean - truth, axis=-1).mean()
    assert error < 0.9 * mean_face
    assert table["landmark_residual"].mean() < 2


def test_voted_labels_resemble_the_true_ones(tiny_run):
    model = load_face_model(tiny_run.output("build_dataset") / "face_model.npz")
    path = tiny_run.output("transfer_labels") / "topology_vertices.parquet"
    labels = read_table(path, "topology_vertices")["label"]
    for label in range(2, 7):
        truth, voted = model.labels == label, labels == label
        assert (truth & voted).sum() > 0.5 * (truth | voted).sum()


def test_stored_iou_follows_from_the_stored_counts_and_the_counts_from_the_stored_labels(tiny_run):
    fits, (masks, ignore) = fits_of(tiny_run), masks_of(tiny_run)
    assert not ignore.any()
    target = np.stack([masks == label for label in range(2, 7)], 1)
    counts = target.sum((2, 3)) >= MINIMUM_AREA
    assert counts.mean() > 0.8
    for when in ("before", "after"):
        drawn = np.stack([fits[f"labels_{when}"] == label for label in range(2, 7)], 1)
        intersection, union = (drawn & target).sum((2, 3)), (drawn | target).sum((2, 3))
        np.testing.assert_array_equal(fits[f"intersection_{when}"], intersection)
        np.testing.assert_array_equal(fits[f"union_{when}"], union)
        expected = np.where(counts, intersection / np.maximum(union, 1), np.nan)
        np.testing.assert_allclose(fits[f"iou_{when}"], expected, rtol=1e-6)


def test_fitting_to_masks_improves_the_overlap_and_keeps_the_faces_whole(tiny_run):
    fits = fits_of(tiny_run)
    assert np.nanmean(fits["iou_after"]) > np.nanmean(fits["iou_before"])
    assert (fits["iterations"] == 5).all()
    assert fits["controls"].shape == (5, 22)
    assert (np.abs(fits["controls"]) <= 3).all()
    np.testing.assert_allclose(fits["largest_control"], np.abs(fits["controls"]).max(1))
    assert (fits["largest_control"] > 0).all()
    assert (fits["flipped_fraction"] < 0.01).all()
    assert (fits["moved_mean"] < fits["moved_p99"]).all()
    shapes = read_table(sorted(tiny_run.output("fit_photos").glob("shapes-*.parquet")), "shapes")["vertices"]
    assert np.isfinite(shapes).all()


def test_the_evaluation_measures_the_fits_again(tiny_run):
    overlaps = read_table(tiny_run.output("evaluate") / "overlaps.parquet", "overlaps")
    named = list(map(method_name, overlaps["model"], overlaps["step"]))
    methods = list(dict.fromkeys(named))
    assert len(methods) == 5
    last = [i for i, method in enumerate(named) if method == methods[-1]]
    np.testing.assert_array_equal(overlaps["intersection"][last], fits_of(tiny_run)["intersection_after"])
    np.testing.assert_array_equal(
        overlaps["predicted_area"] + overlaps["target_area"] - overlaps["intersection"], overlaps["union"]
    )
    metrics = read_table(tiny_run.output("evaluate") / "metrics.parquet", "metrics")
    rows = zip(metrics["method"], metrics["part"], metrics["metric"], metrics["value"], strict=True)
    value = {(method, part, metric): number for method, part, metric, number in rows}
    for part, number in zip(PARTS, np.nanmean(fits_of(tiny_run)["iou_after"], 0), strict=True):
        assert value[methods[-1], part, "iou"] == pytest.approx(number, abs=1e-6)


def test_pictures_are_images_of_the_sections_of_the_report(tiny_run):
    pictures = read_table(tiny_run.output("evaluate") / "pictures.parquet", "pictures")
    assert set(pictures["section"]) == {"headline", "overlays", "labels", "edits"}
    for data, caption in zip(pictures["image"], pictures["caption"], strict=True):
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert picture.std() > 10
        assert caption.endswith(".")


def test_running_again_executes_nothing(tiny_run):
    def refuse():
        raise AssertionError("nothing is left to run")

    assert {stage.status for stage in tiny_run.pipeline().plan()} == {"cached"}
    again = tiny_run.pipeline().execute(refuse)
    assert {outcome.status for outcome in again} == {"cached"}
    assert [outcome.folder for outcome in again] == [outcome.folder for outcome in tiny_run.outcomes]


def test_a_setting_of_one_stage_touches_what_reads_it_and_nothing_else(tiny_run):
    planned = {stage.name: stage.status for stage in tiny_run.pipeline(sections={"fit": {"prior": 0.5}}).plan()}
    assert (planned.pop("fit_photos"), planned.pop("compare_rivals")) == ("run", "run")
    assert {planned.pop("compare_edits"), planned.pop("evaluate")} == {"unknown"}
    assert set(planned.values()) == {"cached"}


def test_training_again_gives_the_same_bytes(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    chosen = ["transfer_labels", "train_segments", "learn_modes", "train_regressors", "fit_controllers", "fine_tune"]
    again = tiny_run.pipeline(tmp_path / "run", only=chosen, refresh=chosen).execute(PlainRunner)
    assert {o.name for o in again if o.status == "ran"} == set(chosen)
    for outcome in again:
        first, second = load_manifest(tiny_run.output(outcome.name)), load_manifest(outcome.folder)
        other = [a.name for a, b in zip(first.files, second.files, strict=True) if a.sha256 != b.sha256]
        assert not other, f"{outcome.name}: {other} depend on something that is not in the stage's key"


@pytest.mark.parametrize(
    "settings",
    [
        {"start": "network"},
        {"variables": "latents"},
        {"expression": True, "pose": True},
        {"blend": False, "offsets": "none"},
        {"variables": "latents", "offsets": "xyz", "modes": True, "binary_after": 3},
        {"variables": "none", "modes": True, "loop_solves": 3, "flip_penalty": 0.1},
        {"variables": "global", "blend": False, "offsets": "none"},
        {"variables": "global", "blend": False, "offsets": "none", "modes": True},
        {"loss": "frobenius"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_fitting_improves_the_overlap_whatever_may_move(settings, tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    pipeline = tiny_run.pipeline(tmp_path / "run", {"fit": settings}, only=["fit_photos"])
    *_, outcome = pipeline.execute(PlainRunner)
    assert (outcome.name, outcome.status) == ("fit_photos", "ran")
    fits = read_table(sorted(outcome.folder.glob("fits-*.parquet")), "fits")
    assert np.nanmean(fits["iou_after"]) > np.nanmean(fits["iou_before"])
    first, faces = fits_of(tiny_run), validation_faces(load_faces(tiny_run.output("build_dataset")))
    assert np.array_equal(first["iou_before"], fits["iou_before"], equal_nan=True) == (
        settings.get("start") != "network" and settings.get("blend", True) and settings.get("variables") != "global"
    )
    assert np.array_equal(fits["angles"], faces.angles) != settings.get("pose", False)
    assert np.array_equal(fits["expression"], faces.expression) != settings.get("expression", False)
    assert (fits["controls"] == 0).all() == ("variables" in settings)
    assert (fits["moved_offset_rms"] == 0).all() == (settings.get("offsets") == "none")


def test_the_stored_face_of_a_fit_with_modes_decodes_to_the_stored_shape(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    settings = {"variables": "latents", "offsets": "xyz", "modes": True}
    outcomes = tiny_run.pipeline(tmp_path / "run", {"fit": settings}, only=["fit_photos"]).execute(PlainRunner)
    folders = {outcome.name: outcome.folder for outcome in outcomes}
    model = load_part_face_model(folders)
    read = {
        name: read_table(sorted(folders["fit_photos"].glob(f"{name}-*.parquet")), name)
        for name in ("fits", "latents", "shapes")
    }
    latents = {region: torch.from_numpy(read["latents"][f"z_{region}"].copy()) for region in REGIONS}
    assert {region: z.shape[1] for region, z in latents.items()} == model.latent_dims
    assert model.latent_dims["nose"] == model.segments.latent_dims["nose"] + 1 + 2
    face = PartFace(latents, torch.from_numpy(read["fits"]["offsets"].copy()))
    with torch.no_grad():
        again = model.neutral(face, model.blender).numpy()
    np.testing.assert_allclose(again, read["shapes"]["vertices"], atol=1e-3)
    unmoved = {region: z.clone() for region, z in latents.items()}
    unmoved["nose"][:, model.segments.latent_dims["nose"] :] = 0
    with torch.no_grad():
        without = model.neutral(PartFace(unmoved, face.offsets), model.blender).numpy()
    nose = model.segments.layout.core("nose")
    assert np.abs(without - again)[:, nose].max() > 0.01
    eyes = model.segments.layout.core("eyes")
    np.testing.assert_array_equal(without[:, eyes], again[:, eyes])


def test_a_fit_from_the_landmarks_does_without_the_network(tiny_run):
    network = {"train_regressors", "fine_tune"}
    from_landmarks = {stage.name for stage in tiny_run.pipeline(only=["fit_photos"]).plan()}
    from_network = {
        stage.name for stage in tiny_run.pipeline(sections={"fit": {"start": "network"}}, only=["fit_photos"]).plan()
    }
    assert not from_landmarks & network
    assert from_network == from_landmarks | network


def test_the_record_names_the_newest_outputs_and_the_whole_configuration(tiny_run):
    record = load_run(tiny_run.folder)
    assert record.stages == {outcome.name: outcome.key for outcome in tiny_run.outcomes}
    assert record.config["dataset"]["face_model"] == "synthetic-3k"
    assert record.config["fit"]["learning_rate"] == 0.1
    assert json.loads((tiny_run.folder / "run.json").read_text())["stages"] == record.stages


def test_stage_table_and_headline_are_printed_from_the_run(tiny_run):
    stream = io.StringIO()
    print_stages(tiny_run.outcomes, 61.0, Console(file=stream, width=200))
    print_headline(tiny_run.output("evaluate"), Console(file=stream, width=200))
    lines = stream.getvalue().splitlines()
    for outcome, line in zip(tiny_run.outcomes, lines[1:], strict=False):
        assert line.split()[:2] == [outcome.name, "ran"]
        assert str(outcome.rows) in line.split()
    assert lines[len(STAGES) + 1] == f"{len(STAGES)} ran, 0 cached, 1 min 1 s in all"
    assert "NEO-3DF, fitted" in lines[-1]
    assert lines[-1].split()[-6:-1] == [f"{v:.3f}" for v in np.nanmean(fits_of(tiny_run)["iou_after"], 0)]
