import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dataset_builder.parser_labels import parsing_iou
from dataset_builder.parser_training import SmallParserSettings, augment, class_weights, parsing_loss, train_parser
from dataset_builder.parsers import load_parser
from dataset_builder.parts import LABEL_IDS, PARTS
from dataset_builder.small_parser import HIDDEN, SmallParser, crop_tensor

COLOURS = np.array(
    [[60, 70, 90], [220, 180, 150], [90, 50, 30], [240, 240, 255], [230, 140, 120], [180, 60, 70], [150, 30, 60]],
    np.uint8,
)


def dolls(n, seed=0):
    """Crops of a flat face with parts of their own colours, somewhere near the middle, and its labels and hair."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:224, :224] + 0.5
    images, labels = np.empty((n, 224, 224, 3), np.uint8), np.empty((n, 224, 224), np.uint8)
    ignore = np.zeros((n, 224, 224), bool)
    parts = [(1, 0, 5, 75, 95), (2, -32, -40, 22, 8), (2, 32, -40, 22, 8), (3, -30, -18, 16, 8), (3, 30, -18, 16, 8),
             (4, 0, 15, 16, 24), (5, 0, 50, 28, 7), (6, 0, 62, 26, 8)]  # fmt: skip
    for image, label, hidden in zip(images, labels, ignore, strict=True):
        x, y = random.uniform(102, 122, 2)
        scale = random.uniform(0.85, 1.1)
        label[:] = 0
        for part, dx, dy, width, height in parts:
            across, down = (columns - x) / scale - dx, (rows - y) / scale - dy
            label[(across / width) ** 2 + (down / height) ** 2 < 1] = part
        hidden[: int(y - 70 * scale)] = True
        label[hidden] = 0
        image[:] = COLOURS[label]
        image[hidden] = (20, 15, 10)
        image[:] = np.clip(image + random.normal(0, 12, image.shape), 0, 255)
    return images, labels, ignore


@pytest.fixture(scope="module")
def trained():
    images, labels, ignore = dolls(24)
    calls = []
    settings = SmallParserSettings(epochs=5, batch=4, averaging=0.8)
    parser = train_parser(images, labels, ignore, settings, range(4), lambda *call: calls.append(call))
    return parser, calls


def test_training_learns_to_label_new_pictures(trained):
    parser, calls = trained
    assert [call[:2] for call in calls] == [(i, 5) for i in range(1, 6)]
    assert calls[-1][2] < 0.7 * calls[0][2]
    images, labels, ignore = dolls(6, seed=1)
    parsed = parser.parse(images)
    assert parsed.labels.shape == labels.shape
    assert parsed.labels.dtype == np.uint8
    assert np.nanmean(parsing_iou(parsed.labels, labels)) > 0.6
    assert (parsed.ignore == ignore).mean() > 0.97
    assert not parsed.labels[parsed.ignore].any()


def test_the_best_epoch_is_kept_and_its_iou_reported(trained):
    parser, calls = trained
    assert list(parser.validation_iou) == list(PARTS)
    assert np.mean(list(parser.validation_iou.values())) == pytest.approx(max(call[3] for call in calls))
    images, labels, _ = dolls(24)
    measured = np.nanmean(parsing_iou(parser.parse(images[:4]).labels, labels[:4]), 0)
    np.testing.assert_allclose(list(parser.validation_iou.values()), measured, atol=1e-9)
    assert not parser.training


def test_a_mirrored_crop_gets_the_mirrored_labels(trained):
    parser, _ = trained
    images, _, _ = dolls(2, seed=2)
    parsed, mirrored = parser.parse(images), parser.parse(images[:, :, ::-1])
    assert (mirrored.labels[:, :, ::-1] == parsed.labels).mean() > 0.9999  # but for rounding on borders


def test_saved_parser_is_the_same(trained, tmp_path):
    parser, _ = trained
    parser.save(tmp_path / "parser.safetensors")
    loaded = load_parser("small", tmp_path / "parser.safetensors")
    assert isinstance(loaded, SmallParser)
    images, _, _ = dolls(2, seed=3)
    np.testing.assert_array_equal(loaded.parse(images).labels, parser.parse(images).labels)
    assert loaded.validation_iou == parser.validation_iou
    with safe_open(tmp_path / "parser.safetensors", "pt") as file:
        header = json.loads(file.metadata()["parser"])
    assert header["classes"] == [*LABEL_IDS, "hidden"]
    assert header["crop_size"] == 224


def test_a_parser_that_was_never_measured_is_saved_too(tmp_path):
    SmallParser().save(tmp_path / "new.safetensors")
    assert all(math.isnan(iou) for iou in SmallParser.load(tmp_path / "new.safetensors").validation_iou.values())


def test_damaged_and_foreign_files_are_one_clear_line(trained, tmp_path):
    from safetensors.torch import save_file

    parser, _ = trained
    parser.save(tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    state = parser.state_dict()
    del state["head.bias"]
    save_file(
        {key: value.contiguous() for key, value in state.items()},
        tmp_path / "lost.safetensors",
        {"format": SmallParser._FORMAT, "parser": "{}"},
    )
    for name, message in (
        ("cut", "not a readable safetensors file"),
        ("text", "not a readable safetensors file"),
        ("foreign", "not a small-parser file"),
        ("lost", r"not the weights of SmallParser: 1 missing \(head.bias\)"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: {message}") as error:
            load_parser("small", tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors: no such weights file"):
        load_parser("small", tmp_path / "absent.safetensors")


def test_equal_seeds_give_equal_parsers_and_kept_back_crops_are_not_learned_from():
    images, labels, ignore = dolls(8)
    settings = SmallParserSettings(epochs=1, seed=3)
    first = train_parser(images, labels, ignore, settings, [3, 5])
    state = torch.random.get_rng_state()
    again = train_parser(images, labels, ignore, settings, [3, 5])
    assert torch.equal(state, torch.random.get_rng_state()), "the global seed is left alone"
    other_images = images.copy()
    other_images[[3, 5]] = 0
    other = train_parser(other_images, labels, ignore, settings, [3, 5])
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert torch.equal(value, other.state_dict()[key]), key


def test_training_stops_when_nothing_improves():
    images, labels, _ = dolls(8)
    calls = []
    settings = SmallParserSettings(epochs=9, patience=2, learning_rate=1e-12)
    train_parser(images, labels, None, settings, [0, 1], lambda *call: calls.append(call))
    assert len(calls) < 9


def test_size_and_untrained_logits():
    parser = SmallParser()
    assert 300_000 <= sum(parameter.numel() for parameter in parser.parameters()) <= 500_000
    assert parser(torch.rand(1, 3, 224, 224)).shape == (1, HIDDEN + 1, 224, 224)
    images = torch.rand(1, 3, 224, 224, requires_grad=True)
    parser(images).square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_augmented_labels_stay_on_their_picture():
    """The picture shows its labels as grey values: after augmentation they still agree, but for light and noise."""
    _, labels, _ = dolls(6)
    targets = torch.from_numpy(labels)
    pictures = (targets.float() / 8)[:, None].expand(-1, 3, -1, -1)
    moved, classes = augment(pictures, targets, torch.Generator().manual_seed(0))
    assert classes.dtype == torch.uint8
    moved_only = 0
    for picture, wanted, before in zip(moved.mean(1), classes, targets, strict=True):
        grey, shown = picture.flatten(), wanted.flatten().float()
        correlation = torch.corrcoef(torch.stack([grey, shown]))[0, 1]
        assert correlation > 0.9
        moved_only += (wanted != before).float().mean().item() > 0.01
    assert moved_only == 6


def test_class_weights_even_out_rare_classes():
    targets = torch.zeros(1, 100, 100, dtype=torch.uint8)
    targets[0, :10, :10] = 2
    weights = class_weights(targets)
    assert weights[2] / weights[0] == pytest.approx(math.sqrt(99), rel=1e-5)
    assert weights[0] * 0.99 + weights[2] * 0.01 == pytest.approx(1)
    assert (weights[[1, 3, 4, 5, 6, 7]] == 0).all()


def test_loss_is_least_for_the_truth_and_has_the_right_gradient():
    targets = torch.randint(0, 8, (2, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    weights = class_weights(targets).double()
    truth = 30.0 * torch.nn.functional.one_hot(targets.long(), 8).permute(0, 3, 1, 2).double()
    assert parsing_loss(truth, targets, weights) < 1e-6
    assert parsing_loss(truth.roll(1, 3), targets, weights) > 1
    logits = torch.randn(1, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: parsing_loss(x, targets[:1, :4, :4], weights), logits)


def test_bad_training_data_is_refused():
    images, labels, ignore = dolls(10)
    with pytest.raises(ValueError, match=r"labels \(N, 224, 224\) for N >= 8 crops, got \(9, 224, 224\) for 10 crops"):
        train_parser(images, labels[:9])
    with pytest.raises(ValueError, match=r"label id 7 is not one of 0\.\.6"):
        train_parser(images, labels + (labels == 6))
    with pytest.raises(ValueError, match=r"ignore must be \(10, 224, 224\) like the labels, got \(9, 224, 224\)"):
        train_parser(images, labels, ignore[:9])
    with pytest.raises(ValueError, match="0 crops to train on and 10 to keep back"):
        train_parser(images, labels, ignore, None, range(10))
    with pytest.raises(ValueError, match=r"crops must be \(B, 224, 224, 3\) uint8"):
        train_parser(images[:, :100], labels)
    with pytest.raises(ValueError, match=r"crops must be \(B, 224, 224, 3\) uint8"):
        SmallParser().parse(images.astype(np.float32))


def test_crops_become_tensors():
    tensor = crop_tensor(np.full((2, 224, 224, 3), 51, np.uint8))
    assert tensor.shape == (2, 3, 224, 224)
    torch.testing.assert_close(tensor, torch.full_like(tensor, 0.2))
