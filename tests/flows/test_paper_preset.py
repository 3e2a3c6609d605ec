"""configs/paper.yaml from photographs to the report, on made-up files of the sizes and names of the originals."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from dataset_builder import CropCamera, Deep3DMM, FaceModel, apply_pose, load_face_model
from flows.config import load_config, parse_config
from flows.errors import UserError
from flows.pipeline import Pipeline, PlainRunner
from flows.presets import preset
from flows.real_photos import PreparedPhoto
from flows.report import publish
from flows.run_data import load_faces
from flows.stages import STAGES
from flows.stages.dataset import estimator
from flows.tables import read_table

REDUCED = (
    *("segments.n_shapes=60", "segments.epochs=1", "baselines.steps=5", "baselines.models=[global-pca, ld-vae]"),
    *("regressors.epochs=1", "controllers.n_faces=60", "fine_tune.epochs=1", "fit.iterations=2"),
    *("edits.n_measured=50", "edits.n_checked=2", "edits.n_shown=1", "edits.n_steps=2"),
    *("dataset.validation_share=0.4", "evaluate.n_examples=1"),
)
N_CELEBAMASK, N_FFHQ = 6, 2


@pytest.fixture(scope="module")
def made():
    path = Path(__file__).with_name("made_paper_files.py")
    spec = importlib.util.spec_from_file_location("made_paper_files", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("deep3dmm") / "epoch_20.pth"
    made.write_deep3dmm(path)
    return path


@pytest.fixture(scope="module")
def home(made, checkpoint, tmp_path_factory):
    """All files that the preset needs; the detector's weights are the real ones."""
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no detector weights")
    for library in ("facexlib", "onnxruntime", "open3d"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    home = tmp_path_factory.mktemp("paper")
    made.write_bfm(home / "assets" / "BFM")
    made.write_facenet(home / "facenet.pt")
    made.write_celebamask(home / "celeb", N_CELEBAMASK)
    made.write_ffhq(home / "ffhq", N_FFHQ)
    (home / "assets" / "weights").mkdir()
    (home / "assets" / "weights" / "deep3dmm_epoch_20.pth").symlink_to(checkpoint)
    for weights in (Path(os.environ["NEO3DF_ASSETS"]) / "weights").iterdir():
        (home / "assets" / "weights" / weights.name).symlink_to(weights)
    return home


@pytest.fixture(scope="module")
def run(home):
    """Folders of all finished stages by name; the reduced preset is otherwise as it is."""
    places = {"NEO3DF_ASSETS": "assets", "NEO3DF_CELEBAMASK_HQ": "celeb", "NEO3DF_FFHQ": "ffhq"}
    with pytest.MonkeyPatch.context() as patch:
        for name, place in places.items():
            patch.setenv(name, str(home / place))
        given = (f"run_dir={home / 'run'}", f"regressors.encoder_weights={home / 'facenet.pt'}")
        config = load_config(preset("paper"), (*REDUCED, *given))
        outcomes = Pipeline(STAGES, config).execute(PlainRunner)
    assert {outcome.status for outcome in outcomes} == {"ran"}
    return {outcome.name: outcome.folder for outcome in outcomes}


def test_the_run_ends_in_a_report(run, home):
    page = publish(home / "run")[0].read_text()
    for method in ("NEO-3DF", "global 3DMM", "LD-VAE", "global PCA"):
        assert method in page
    metrics = read_table(run["evaluate"] / "metrics.parquet", "metrics")
    iou = [value for metric, value in zip(metrics["metric"], metrics["value"], strict=True) if metric == "iou"]
    assert np.isfinite(iou).any()
    assert np.nanmax(iou) > 0.3, "made-up weights see the mean face in its place"


def test_the_face_model_has_the_sizes_of_the_front_crop(run, made):
    model = load_face_model(run["build_dataset"] / "face_model.npz")
    assert (model.name, model.n_vertices, len(model.faces)) == ("bfm", made.BFM_VERTICES, made.BFM_TRIANGLES)
    assert (model.n_identity, model.n_expression, model.n_albedo) == (80, 64, 80)
    labels = read_table(run["transfer_labels"] / "topology_vertices.parquet", "topology_vertices")["label"]
    assert set(labels) == set(range(1, 7))


def test_photographs_of_subfolders_are_faces_without_masks(run):
    faces = load_faces(run["build_dataset"])
    assert faces.face_id == [*map(str, range(N_CELEBAMASK)), *(f"{i * 1000:05d}" for i in range(N_FFHQ))]
    np.testing.assert_array_equal(faces.has_mask, [True] * N_CELEBAMASK + [False] * N_FFHQ)
    (rejected,) = read_table(sorted(run["build_dataset"].glob("rejected-*.parquet")), "rejected")["path"]
    assert Path(rejected).name == "LICENSE.txt"


def test_estimates_are_those_of_deep3dmm_on_the_crops(run, checkpoint):
    model, faces = load_face_model(run["build_dataset"] / "face_model.npz"), load_faces(run["build_dataset"])
    expected = Deep3DMM(checkpoint, model).estimate(faces.crops())
    for name in ("identity", "expression", "angles", "translation"):
        np.testing.assert_allclose(getattr(faces, name), getattr(expected, name), atol=1e-3, err_msg=name)
    assert 0.01 < np.abs(faces.identity).max() < 3, "standard deviations"


def bfm_like(name="bfm"):
    """A dozen vertices with the modes of BFM's front crop."""
    rng = np.random.default_rng(0)
    return FaceModel(
        name=name,
        licence="none",
        mean=rng.normal(0, 40, (12, 3)).astype(np.float32),
        id_basis=rng.normal(0, 1, (12, 3, 80)).astype(np.float32),
        ex_basis=rng.normal(0, 1, (12, 3, 64)).astype(np.float32),
        faces=np.array([[i, (i + 1) % 12, (i + 5) % 12] for i in range(12)], np.int64),
        landmarks68=np.arange(68) % 12,
        ex_names=tuple(f"e{i}" for i in range(64)),
        ex_range=np.zeros((64, 2), np.float32),
        albedo=np.full((12, 3), 0.5, np.float32),
        albedo_basis=np.zeros((12, 3, 80), np.float32),
    )


def prepared(seed):
    """A photograph of noise in crop space."""
    rng = np.random.default_rng(seed)
    return PreparedPhoto(
        face_id=str(seed),
        source="photo",
        split="train",
        clean=True,
        crop=rng.integers(0, 256, (224, 224, 3), np.uint8),
        landmarks=rng.uniform(50, 170, (68, 2)).astype(np.float32),
        labels=np.zeros((224, 224), np.uint8),
        ignore=np.zeros((224, 224), bool),
        mask_source="",
        sha256="",
        scale=np.ones(2, np.float32),
        offset=np.zeros(2, np.float32),
    )


def by_deep3dmm(checkpoint):
    section = {"face_model": "bfm", "estimator": "deep3dmm", "estimator_weights": checkpoint, "images": "photos"}
    return parse_config({"dataset": section}).dataset


def test_the_residual_is_that_of_the_posed_landmarks_in_pixels(checkpoint):
    model, photos = bfm_like(), [prepared(0), prepared(1)]
    found = estimator(by_deep3dmm(checkpoint), model)(photos)
    assert (found.identity.shape, found.expression.shape) == ((2, 80), (2, 64))
    shape = model.mean + model.id_basis @ found.identity[1] + model.ex_basis @ found.expression[1]
    placed = apply_pose(shape, found.angles[1], found.translation[1])[model.landmarks68]
    expected = np.linalg.norm(CropCamera().project(placed) - photos[1].landmarks, axis=-1)
    np.testing.assert_allclose(found.residual[1], expected, atol=1e-2)
    assert found.residual.dtype == np.float32
    assert np.abs(found.translation).max() > 5, "mm, not decimetres"


def test_coefficients_of_another_face_model_are_refused(checkpoint):
    with pytest.raises(UserError, match=r"coefficients of BFM's front crop, not of flame; set dataset\.face_model=bfm"):
        estimator(by_deep3dmm(checkpoint), bfm_like("flame"))


def test_the_checkpoint_is_in_the_key_of_the_dataset_by_its_content(checkpoint, tmp_path):
    def key(weights):
        section = {"images": Path(__file__), "face_model": "synthetic", "estimator": "deep3dmm"}
        return STAGES[0].config(parse_config({"dataset": section | {"estimator_weights": weights}}))

    (tmp_path / "a").mkdir()
    moved = tmp_path / "a" / checkpoint.name
    moved.write_bytes(checkpoint.read_bytes())
    assert key(moved) == key(checkpoint)
    moved.write_bytes(b"other weights")
    assert key(moved) != key(checkpoint)
