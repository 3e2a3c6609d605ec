"""Fine-tuning through the encoders that can be trained, and around those that cannot."""

import importlib.util

import numpy as np
import pytest
import torch

from dataset_builder import Preprocessing, SmallEncoder, TorchEncoder, arcface, facenet, load_encoder
from flows.encodings import read_encodings
from flows.run_data import load_faces, masked_training_faces
from flows.run_model import load_part_face_model, load_run_encoder
from flows.settings import FineTuneConfig
from flows.stages.finetune import (
    PhotoEncodings,
    Repeated,
    _encodings,
    _renderer,
    _save_encoder,
    jittered,
    mirrored_identity,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def faces(tiny_run):
    return masked_training_faces(load_faces(tiny_run.output("build_dataset")))


def small():
    encoder = SmallEncoder()
    torch.nn.init.normal_(encoder.heat.weight, std=0.1)
    encoder.validation_error_px.zero_()
    return encoder


def random_facenet():
    shown = Preprocessing("standard", facenet.INPUT_SIZE, (127.5,) * 3, (128.0,) * 3)
    return TorchEncoder("facenet", facenet.InceptionResnetV1(), facenet.EMBEDDING, shown)


def random_arcface():
    if importlib.util.find_spec("facexlib") is None:
        pytest.skip("facexlib is not installed")
    shown = Preprocessing("arcface", 112, (127.5,) * 3, (127.5,) * 3, "BGR")
    return TorchEncoder("arcface", arcface.arcface_network(), arcface.EMBEDDING, shown)


@pytest.mark.parametrize("make", [small, random_facenet, random_arcface])
def test_gradients_reach_every_weight_of_an_encoder_and_no_statistics_move(make, faces):
    torch.manual_seed(0)
    encoder = make().eval()
    photos = PhotoEncodings(encoder, encoder.prepare(faces.crops()[:2], faces.five_points[:2]), seed=0).eval()
    statistics = {name: value.clone() for name, value in photos.named_buffers() if "running" in name}
    rows = np.array([1, 0])
    found = photos(rows)
    np.testing.assert_allclose(
        found.detach(), encoder.encode(faces.crops()[[1, 0]], faces.five_points[[1, 0]]), atol=1e-5
    )
    target = torch.randn(found.shape)
    (photos.augmented(rows, slice(None)) * target).sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not [name for name in without if "weight" in name]
    assert statistics
    assert all(torch.equal(value, photos.get_buffer(name)) for name, value in statistics.items())


@pytest.mark.parametrize("make", [small, random_facenet])
def test_a_trained_encoder_is_kept_as_it_is_loaded(make, tmp_path):
    encoder = make()
    _save_encoder(encoder, tmp_path / "encoder.pt")
    assert load_encoder(encoder.name, tmp_path / "encoder.pt").weights_sha256 == encoder.weights_sha256


def test_the_stage_keeps_the_encoder_it_trained(tiny_run):
    kept = load_run_encoder(tiny_run.output("fine_tune"), "small")
    assert torch.equal(kept.mean_points, load_run_encoder(tiny_run.output("train_regressors"), "small").mean_points)


def test_an_encoder_without_gradients_or_rate_keeps_its_encodings(tiny_run, faces):
    folder = tiny_run.output("train_regressors")
    small_one, known = load_run_encoder(folder, "small"), read_encodings(folder)

    class Fixed:
        """The small encoder as one that has no gradients, such as MobileFaceNet's."""

        name, dim, differentiable = small_one.name, small_one.dim, False
        preprocessing, weights_sha256 = small_one.preprocessing, small_one.weights_sha256

        def encode(self, images, five_points):
            raise AssertionError("its encodings are kept")

    rows = np.array([2, 0])
    wanted = torch.from_numpy(small_one.encode(faces.crops()[rows], faces.five_points[rows]))
    for encoder, config in ((Fixed(), FineTuneConfig()), (small_one, FineTuneConfig(encoder_lr=0))):
        encode, augmented = _encodings(encoder, faces, folder, config, 0)
        assert augmented is None
        assert not isinstance(encode, torch.nn.Module)
        torch.testing.assert_close(encode(rows), wanted, atol=1e-5, rtol=0)
    assert len(known) >= len(faces)


def test_default_rates_spare_encoders_that_have_seen_millions():
    assert FineTuneConfig().encoder_lr_of("small") == 1e-3
    assert FineTuneConfig().encoder_lr_of("facenet") == 1e-5
    assert FineTuneConfig(encoder_lr=0.5).encoder_lr_of("facenet") == 0.5


@pytest.fixture(scope="module")
def model(tiny_run):
    stages = ("build_dataset", "train_segments", "learn_modes")
    return load_part_face_model({stage: tiny_run.output(stage) for stage in stages})


def test_mirrored_identity_is_that_of_the_mirrored_face(model, faces):
    face_model = model.face_model
    mirrored = face_model.shape(mirrored_identity(face_model, faces.identity))
    wanted = face_model.shape(faces.identity)[:, face_model.mirror] * np.array([-1, 1, 1])
    assert np.abs(wanted - face_model.shape(faces.identity)).max() > 0.5
    np.testing.assert_allclose(mirrored, wanted, atol=0.15)


def test_rows_past_the_photos_are_the_photos_mirrored(model, faces):
    n, encoder = len(faces), small().eval()
    crops = faces.crops()
    photos = PhotoEncodings(encoder, encoder.prepare(crops), seed=0)
    found = photos(np.array([1, n + 2])).detach().numpy()
    mirror_image = np.ascontiguousarray(crops[[2], :, ::-1])
    wanted = np.concatenate([encoder.encode(crops[[1]]), encoder.encode(mirror_image)])
    np.testing.assert_allclose(found, wanted, atol=1e-5)

    masks, ignore = faces.masks()
    render = _renderer(model, faces, torch.from_numpy(~ignore))
    shapes = torch.from_numpy(model.face_model.shape(faces.identity[[2]]))
    mirrored = shapes[:, model.face_model.mirror] * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(render(shapes, np.array([2])), render(mirrored, np.array([n + 2])))
    parts = np.stack([masks == label for label in range(2, 7)], -1)
    assert np.array_equal(Repeated(parts)[np.array([1, n + 2])], parts[[1, 2]])


def test_jitter_is_small_repeatable_and_in_the_units_of_the_photos(faces):
    photos = SmallEncoder().prepare(faces.crops())
    once, again = (jittered(photos, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once[0], jittered(photos, torch.Generator().manual_seed(2))[0])
    scaled = jittered(7 * photos - 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(scaled, 7 * once - 3, atol=1e-3, rtol=0)
    alike = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(photos, once, strict=True)]
    assert min(alike) > 0.5
    assert max(alike) < 0.999
