from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dataset_builder import parsers
from dataset_builder.alignment import CropTransform
from dataset_builder.assets import AssetMissing
from dataset_builder.models import load_face_model
from dataset_builder.parser_labels import ParsedFaces, labels_of_classes, parsing_iou
from dataset_builder.parsers import (
    CelebAMaskFolder,
    NetworkParser,
    SyntheticTruth,
    load_parser,
    parsing_network,
)
from dataset_builder.procedural import make_photos

# Class index -> our label id, and the classes that hide the face, as the two networks' authors number them.
PUBLISHED = {
    "bisenet": ({1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 10: 4, 12: 5, 13: 6}, {6, 17, 18}),
    "parsenet": ({1: 1, 2: 4, 4: 3, 5: 3, 6: 2, 7: 2, 11: 5, 12: 6}, {3, 13, 14}),
}


def crops(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)


class Stripes(nn.Module):
    """Says class 0 in the top stripe of an image, class 1 in the next, ... class 18; two outputs as the real ones."""

    def forward(self, images):
        rows = (torch.arange(images.shape[2]) * 19) // images.shape[2]
        logits = nn.functional.one_hot(rows, 19).T[None, :, :, None].float()
        return logits.expand(len(images), -1, -1, images.shape[3]), images


@pytest.mark.parametrize("name", ["bisenet", "parsenet"])
def test_each_network_is_read_in_its_own_label_order(name):
    parsed = NetworkParser(name, Stripes()).parse(crops(2))
    assert parsed.labels.shape == parsed.ignore.shape == (2, 224, 224)
    assert parsed.labels.dtype == np.uint8
    assert parsed.ignore.dtype == bool
    label_of, hidden = PUBLISHED[name]
    middles = (np.arange(19) * 224 + 112) // 19
    assert parsed.labels[1, middles, 100].tolist() == [label_of.get(i, 0) for i in range(19)]
    assert set(np.flatnonzero(parsed.ignore[0, middles, 100])) == hidden


def test_the_two_orders_disagree_where_it_matters():
    indices = np.arange(19, dtype=np.uint8).reshape(1, 1, 19)
    bisenet, parsenet = labels_of_classes(indices, "bisenet"), labels_of_classes(indices, "parsenet")
    assert (bisenet.labels != parsenet.labels).sum() >= 8
    with pytest.raises(ValueError, match="no label order for a parser named 'dlib'; there are bisenet, parsenet"):
        labels_of_classes(indices, "dlib")
    with pytest.raises(ValueError, match="output of bisenet: label id 19 is out of range"):
        labels_of_classes(indices + 1, "bisenet")


@pytest.fixture(scope="module", params=["bisenet", "parsenet"])
def saved(request, tmp_path_factory):
    """Name, network with random weights, and the file of these weights."""
    if find_spec("facexlib") is None:
        pytest.skip("facexlib is not installed")
    torch.manual_seed(0)
    network = parsing_network(request.param).eval()
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(network.state_dict(), path)
    return request.param, network, path


def test_weights_from_a_file_give_the_networks_own_answer(saved, monkeypatch):
    name, network, path = saved
    # The networks are convolutional: a quarter of the size keeps the test short.
    small = replace(parsers._NETWORK_INPUTS[name], size=128)
    assert parsers._NETWORK_INPUTS[name].size == 512
    monkeypatch.setitem(parsers._NETWORK_INPUTS, name, small)
    images = crops(2)
    images[1] //= 3
    parser = load_parser(name, path)
    assert parser.name == name
    parsed = parser.parse(images)
    with torch.no_grad():
        logits = network(small.apply(images))[0]
        logits = nn.functional.interpolate(logits, (224, 224), mode="bilinear", antialias=True)
    expected = labels_of_classes(logits.argmax(1).numpy(), name)
    np.testing.assert_array_equal(parsed.labels, expected.labels)
    np.testing.assert_array_equal(parsed.ignore, expected.ignore)
    assert len(np.unique(logits.argmax(1))) > 1, "random weights that say one class everywhere would test nothing"


def test_inputs_are_normalised_as_the_networks_were_trained():
    white, black = (np.full((1, 224, 224, 3), value, np.uint8) for value in (255, 0))
    bisenet, parsenet = parsers._NETWORK_INPUTS["bisenet"], parsers._NETWORK_INPUTS["parsenet"]
    np.testing.assert_allclose(bisenet.apply(white)[0, :, 9, 9], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5)  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(parsenet.apply(white)[0, :, 9, 9], 1)
    np.testing.assert_allclose(parsenet.apply(black)[0, :, 9, 9], -1)


def test_damaged_and_foreign_weights_are_one_clear_line(saved, tmp_path):
    name, network, path = saved
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:50_000])
    (tmp_path / "text.pth").write_text("no weights")
    state = network.state_dict()
    lost = [key for key in state if "num_batches" not in key][:5]  # the counters may be absent from old files
    torch.save({key: value for key, value in state.items() if key not in lost}, tmp_path / "lost.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "foreign.pth")
    for file, message in (
        ("cut.pth", "not a readable PyTorch checkpoint"),
        ("text.pth", "not a readable PyTorch checkpoint"),
        ("lost.pth", f"5 missing ({lost[0]}, {lost[1]}, {lost[2]} and 2 more)"),
        ("foreign.pth", "1 not expected (conv.weight)"),
    ):
        with pytest.raises(ValueError, match=rf"{file}: ") as error:
            load_parser(name, tmp_path / file)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["bisenet", "parsenet"])
def test_missing_weights_say_in_one_line_what_to_get_where(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NEO3DF_ASSETS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for weights in (None, tmp_path / "absent.pth"):
        with pytest.raises(AssetMissing) as error:
            load_parser(name, weights)
        message = str(error.value)
        for piece in (f"load_parser('{name}')", f"parsing_{name}.pth", "facexlib", "non-commercial", str(tmp_path)):
            assert piece in message
        assert "\n" not in message


def test_names_that_have_no_weights_say_what_to_do():
    with pytest.raises(
        ValueError, match="no parser named 'mediapipe'; there are bisenet, parsenet, small, celebamask-"
    ):
        load_parser("mediapipe")
    with pytest.raises(ValueError, match="'small' has no weights of its own: give the file of a trained one"):
        load_parser("small")
    with pytest.raises(ValueError, match=r"'synthetic' looks masks up and has no weights: make it with SyntheticTruth"):
        load_parser("synthetic")
    with pytest.raises(ValueError, match=r"make it with CelebAMaskFolder"):
        load_parser("celebamask-folder")


def test_a_folder_of_masks_is_a_parser(tmp_path):
    mask = np.zeros((100, 100), np.uint8)
    mask[20:40, 30:60] = 10  # inner mouth: background
    mask[50:80, 30:60] = 2
    mask[:10] = 13
    Image.fromarray(mask).save(tmp_path / "face.png")
    (tmp_path / "0").mkdir()
    Image.fromarray((mask == 2).astype(np.uint8) * 255).save(tmp_path / "0" / "00007_nose.png")
    images = crops(3)
    transforms = [
        CropTransform((2.24, 2.24), (0.0, 0.0), 100, 100),
        CropTransform((4.0, 4.0), (100.0, 150.0), 100, 100),
    ]
    parser = CelebAMaskFolder(tmp_path, images[:2], ["face", "7"], transforms)
    assert parser.name == "celebamask-folder"
    parsed = parser.parse(images[[1, 0]])
    assert isinstance(parsed, ParsedFaces)
    assert (parsed.labels[1, 113:178, 68:134] == 4).all()
    assert parsed.labels[1].sum() == 4 * (parsed.labels[1] == 4).sum()
    assert parsed.ignore[1, :22].all()
    assert (parsed.labels[0, 50:170, 20:140] == 4).all()
    assert not parsed.ignore[0].any()
    with pytest.raises(ValueError, match="crop 1 is none of the 2 whose masks are known"):
        parser.parse(images[[0, 2]])
    with pytest.raises(ValueError, match="3 crops, 2 stems and 2 transforms must be as many"):
        CelebAMaskFolder(tmp_path, images, ["face", "7"], transforms)
    with pytest.raises(FileNotFoundError, match="no mask of photo 'other'"):
        CelebAMaskFolder(tmp_path, images[:1], ["other"], transforms[:1]).parse(images[:1])


def test_synthetic_truth_is_a_parser():
    photos = list(make_photos(load_face_model("synthetic-3k"), 2, 0))
    parser = SyntheticTruth(photos)
    assert parser.name == "synthetic"
    parsed = parser.parse(np.stack([photos[1].image, photos[0].image]))
    np.testing.assert_array_equal(parsed.labels, [photos[1].mask, photos[0].mask])
    assert not parsed.ignore.any()
    with pytest.raises(ValueError, match="crop 0 is none of the 2 whose masks are known"):
        parser.parse(crops(1))


def test_iou_against_counting_by_hand():
    truth = np.zeros((2, 224, 224), np.uint8)
    truth[0, 100:110, 50:60] = 2
    truth[0, 10:14, 10:14] = 3  # 16 pixels: too few to be scored
    predicted = np.zeros_like(truth)
    predicted[0, 100:110, 55:65] = 2
    predicted[1, :5] = 6
    scores = parsing_iou(predicted, truth)
    assert scores.shape == (2, 5)
    assert scores[0, 0] == pytest.approx(50 / 150)
    assert np.isnan(scores[0, 1:]).all()
    assert np.isnan(scores[1]).all()
    with pytest.raises(ValueError, match="label images must be"):
        parsing_iou(predicted, truth[0])
