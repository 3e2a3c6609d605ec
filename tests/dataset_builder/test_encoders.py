import csv
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_builder.alignment import align_face
from dataset_builder.arcface import arcface_network
from dataset_builder.assets import ASSETS, AssetMissing
from dataset_builder.encoders import MobileFaceNetEncoder, TrainableEncoder, load_encoder
from dataset_builder.encoding_cache import encode_missing, encoding_key, image_sha256
from dataset_builder.facenet import InceptionResnetV1
from dataset_builder.preprocessing import Preprocessing, arcface_crop, fit_similarity
from dataset_builder.small_encoder import SmallEncoder, shrink_crops

POINTS = np.array([[80.0, 90], [140, 100], [108, 125], [82, 155], [128, 163]])


def crops(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def facenet(tmp_path_factory):
    """A FaceNet encoder of random weights, from a file, and the file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "facenet.pt"
    torch.save(InceptionResnetV1().state_dict(), path)
    return load_encoder("facenet", path), path


def test_names_and_checkpoints_are_checked(tmp_path):
    with pytest.raises(ValueError, match="no encoder named 'vgg'; there are facenet, arcface, mobilefacenet, small"):
        load_encoder("vgg")
    with pytest.raises(ValueError, match="give the checkpoint"):
        load_encoder("small")
    torch.save({"format": "another"}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: not a small-encoder checkpoint"):
        load_encoder("small", tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("name", "file", "licence"),
    [
        ("facenet", "20180402-114759-vggface2.pt", "VGGFace2"),
        ("arcface", "recognition_arcface_ir_se50.pth", "MS1M"),
        ("mobilefacenet", "mobilefacenet_112.onnx", "Apache-2.0"),
    ],
)
def test_missing_weights_say_in_one_line_what_to_get_where(tmp_path, monkeypatch, name, file, licence):
    with pytest.raises(AssetMissing) as error:
        load_encoder(name, tmp_path / "absent.bin")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'absent.bin'}: no such weights file; load_encoder('{name}') takes {file}")
    assert licence in message
    assert "\n" not in message
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(AssetMissing, match=f"needs weights/{file}"):
        load_encoder(name)


def test_damaged_weights_are_refused_in_one_line(tmp_path, facenet):
    for content, name in (
        (b"", "empty.pt"),
        (b"no weights\n at all", "text.pt"),
        (facenet[1].read_bytes()[:100_000], "cut.pt"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a readable PyTorch checkpoint") as error:
            load_encoder("facenet", tmp_path / name)
        assert "\n" not in str(error.value)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt: holds no state dict, but list"):
        load_encoder("facenet", tmp_path / "list.pt")
    state = InceptionResnetV1().state_dict()
    state["last_bn.bias"][3] = torch.nan
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"1 not finite \(last_bn\.bias\)"):
        load_encoder("facenet", tmp_path / "nan.pt")


def test_checkpoints_run_no_code(tmp_path):
    class Malice:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was_run",)

    torch.save({"weight": Malice()}, tmp_path / "malice.pt")
    with pytest.raises(ValueError, match="not a readable PyTorch checkpoint"):
        load_encoder("facenet", tmp_path / "malice.pt")
    assert not (tmp_path / "was_run").exists()


def test_a_damaged_onnx_file_is_refused_in_one_line(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra [photos] is not installed")
    (tmp_path / "text.onnx").write_bytes(b"not\nonnx")
    with pytest.raises(ValueError, match=r"text\.onnx: not a readable ONNX network") as error:
        load_encoder("mobilefacenet", tmp_path / "text.onnx")
    assert "\n" not in str(error.value)


def test_facenet_sees_the_standardised_crop_and_can_be_fine_tuned(facenet):
    encoder, _ = facenet
    assert isinstance(encoder, TrainableEncoder)
    assert (encoder.name, encoder.dim, encoder.differentiable) == ("facenet", 512, True)
    assert encoder.preprocessing == Preprocessing("standard", 160, (127.5,) * 3, (128.0,) * 3)
    images = crops(2)
    images[0] = (255, 0, 127)
    prepared = encoder.prepare(images)
    assert prepared.shape == (2, 3, 160, 160)
    np.testing.assert_allclose(prepared[0].amax((1, 2)), [127.5 / 128, -127.5 / 128, -0.5 / 128], atol=1e-5)
    embedding = encoder.encode(images, np.zeros((2, 5, 2)))
    assert embedding.shape == (2, 512)
    assert embedding.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(encoder.embed(prepared), embedding, atol=1e-5)
    encoder.embed(prepared[:1])[0, 0].backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    encoder.zero_grad(set_to_none=True)


def test_encoding_leaves_the_mode_and_takes_no_image(facenet):
    encoder, _ = facenet
    assert not encoder.training
    encoder.train()
    assert encoder.encode(crops(0), np.zeros((0, 5, 2))).shape == (0, 512)
    assert encoder.training
    encoder.eval()
    with pytest.raises(ValueError, match=r"crops must be \(B, 224, 224, 3\) uint8"):
        encoder.encode(crops(1).astype(float), POINTS[None])


def test_arcface_of_facexlib_sees_bgr_similarity_crops(tmp_path):
    if find_spec("facexlib") is None:
        pytest.skip("facexlib is not installed")
    torch.manual_seed(0)
    network = arcface_network()
    torch.save(network.state_dict(), tmp_path / "arcface.pth")
    encoder = load_encoder("arcface", tmp_path / "arcface.pth")
    assert isinstance(encoder, TrainableEncoder)
    assert (encoder.name, encoder.dim, encoder.differentiable) == ("arcface", 512, True)
    image = crops(1)
    prepared = encoder.prepare(image, POINTS[None])
    expected = arcface_crop(image[0], POINTS)[..., ::-1].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(prepared[0].permute(1, 2, 0), expected, atol=1e-6)
    embedding = encoder.encode(image, POINTS[None])
    with torch.no_grad():
        np.testing.assert_allclose(embedding, network.eval()(prepared), atol=1e-5)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match=r"five points must be \(1, 5, 2\) for 1 images"):
        encoder.encode(image, None)


def test_block_means_where_the_size_divides():
    halved = Preprocessing("standard", 112, (0.0,) * 3, (255.0,) * 3)
    np.testing.assert_allclose(halved.apply(crops(2)), shrink_crops(crops(2)), atol=1e-6)
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (1, 224, 224, 3))
    larger = Preprocessing("standard", 448, (0.0,) * 3, (1.0,) * 3).apply(ramp)
    np.testing.assert_allclose(larger[0, 0, 4:-4, 7], (np.arange(448) / 2 - 0.25)[4:-4], atol=1e-3)


def test_small_encoder_is_trainable_too():
    torch.manual_seed(0)
    encoder = SmallEncoder()
    torch.nn.init.normal_(encoder.heat.weight)
    assert isinstance(encoder, TrainableEncoder)
    embedding = encoder.eval().embed(encoder.prepare(crops(2)))
    np.testing.assert_allclose(embedding.detach(), encoder.encode(crops(2)), atol=1e-5)
    embedding.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


class Sums:
    """An encoder for the cache: two sums per picture, and the pictures it was asked for."""

    name, dim, differentiable, weights_sha256 = "sums", 2, False, "00"
    preprocessing = Preprocessing("standard", 224, (0.0,) * 3, (1.0,) * 3)

    def __init__(self):
        self.asked = 0

    def encode(self, images, five_points):
        self.asked += len(images)
        return np.stack([images.sum((1, 2, 3)), five_points.sum((1, 2))], 1).astype(np.float32)


def test_only_what_is_missing_is_encoded():
    encoder, images = Sums(), crops(4)
    images[3] = images[1]
    points = np.arange(4)[[0, 1, 2, 1], None, None] + np.zeros((4, 5, 2), np.float32)
    first = encode_missing(encoder, images[:2], points[:2], {})
    assert first.computed.all()
    assert encoder.asked == 2
    known = dict(zip(first.keys, first.embeddings, strict=True))
    again = encode_missing(encoder, images, points, known)
    assert encoder.asked == 3, "the third only: the first two and the copy are known"
    np.testing.assert_array_equal(again.computed, [False, False, True, False])
    np.testing.assert_array_equal(again.embeddings, encoder.encode(images, points))
    assert again.keys[3] == again.keys[1]
    twins = encode_missing(encoder, images[[1, 3]], points[[1, 3]], {})
    np.testing.assert_array_equal(twins.embeddings[0], twins.embeddings[1])
    with pytest.raises(ValueError, match="2 images but 1 rows of five points"):
        encode_missing(encoder, images[:2], points[:1], {})
    with pytest.raises(ValueError, match=r"has shape \(3,\), sums gives 2"):
        encode_missing(encoder, images[:1], points[:1], {first.keys[0]: np.zeros(3, np.float32)})


def test_keys_change_with_image_points_weights_and_preprocessing():
    encoder, image = Sums(), crops(1)[0]
    other_image = image.copy()
    other_image[5, 5, 0] ^= 1
    keys = {
        encoding_key(encoder, digest)
        for digest in (
            image_sha256(image),
            image_sha256(other_image),
            image_sha256(image.reshape(448, 112, 3)),
            image_sha256(image, POINTS),
            image_sha256(image, POINTS + 1),
        )
    }
    for attribute, value in (
        ("name", "other"),
        ("weights_sha256", "01"),
        ("preprocessing", Preprocessing("standard", 224, (0.0,) * 3, (1.0,) * 3, "BGR")),
    ):
        changed = Sums()
        setattr(changed, attribute, value)
        keys.add(encoding_key(changed, image_sha256(image)))
    assert len(keys) == 8
    assert encoding_key(Sums(), image_sha256(image)) in keys


def test_the_digest_of_weights_follows_fine_tuning(facenet):
    encoder, path = facenet
    before = encoder.weights_sha256
    assert load_encoder("facenet", path).weights_sha256 == before
    with torch.no_grad():
        encoder.network.last_bn.bias[0] += 1
    assert encoder.weights_sha256 != before
    with torch.no_grad():
        encoder.network.last_bn.bias[0] -= 1


def test_similarity_is_recovered():
    random = np.random.default_rng(3)
    source = random.uniform(0, 100, (5, 2))
    angle, scale = 0.7, 1.8
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    fitted = fit_similarity(source, source @ turn.T + [3, -8])
    np.testing.assert_allclose(fitted, [[*turn[0], 3], [*turn[1], -8], [0, 0, 1]], atol=1e-9)
    with pytest.raises(ValueError, match="must be finite and apart"):
        fit_similarity(np.ones((5, 2)), source)


def test_arcface_crop_puts_the_points_on_the_template():
    image = np.zeros((224, 224, 3), np.uint8)
    for x, y in POINTS.astype(int):
        image[y - 3 : y + 3, x - 3 : x + 3] = 255
    crop = arcface_crop(image, POINTS).astype(float)[..., 0]
    assert crop.shape == (112, 112)
    rows, columns = np.mgrid[:112, :112] + 0.5
    found = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(found, [56.03, 71.94], atol=0.5)  # the least squares keep the mean


def test_mobilefacenet_separates_people(recorded_five_points):
    pytest.importorskip("onnxruntime", reason="the extra [photos] is not installed")
    data = Path(os.environ["NEO3DF_ASSETS"])
    encoder = load_encoder("mobilefacenet")
    assert isinstance(encoder, MobileFaceNetEncoder)
    assert not isinstance(encoder, TrainableEncoder)
    assert not encoder.differentiable
    assert encoder.weights_sha256 == ASSETS["mobilefacenet_112"].sha256
    embeddings = {}
    for path in (data / "photos" / "deepface").glob("*.jpg"):
        five = recorded_five_points[f"photos/deepface/{path.name}"]
        face = align_face(np.asarray(Image.open(path).convert("RGB")), five)
        (embedding,) = encoder.encode(face.image[None], face.transform.to_crop(five)[None])
        assert embedding.shape == (encoder.dim,)
        embeddings[path.name] = embedding / np.linalg.norm(embedding)
    likeness = {"Yes": [], "No": []}
    with (data / "photos" / "deepface_pairs.csv").open() as file:
        for pair in csv.DictReader(file):
            if pair["file_x"] in embeddings and pair["file_y"] in embeddings:
                likeness[pair["same_person"]].append(embeddings[pair["file_x"]] @ embeddings[pair["file_y"]])
    assert min(likeness["Yes"]) > max(likeness["No"])
    with pytest.raises(ValueError, match=r"five points must be \(2, 5, 2\) for 2 images, got \(5, 2\)"):
        encoder.encode(np.zeros((2, 224, 224, 3), np.uint8), np.zeros((5, 2)))
