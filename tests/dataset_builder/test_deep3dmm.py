import json
import os
import pickle
import zlib
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_builder.deep3dmm import CoefficientNetwork, Deep3DMM, load_coefficient_network
from dataset_builder.face_model import FaceModel


def regenerable_weights(shapes):
    """The weights of the parity fixtures: drawn from a generator that is seeded by the key."""
    state = {}
    for key, shape in shapes.items():
        generator = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
        v = generator.standard_normal(prod(shape)).reshape(shape)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        if key.endswith("running_var"):
            v = 1 + 0.2 * np.abs(v)
        elif key.endswith(("running_mean", ".bias")):
            v = 0.05 * v
        elif len(shape) == 1:
            v = 1 + 0.1 * v
        else:
            v = v * np.sqrt(1 / prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(v, np.float32))
    return state


def bfm_like(n_identity=80, n_expression=64, n_albedo=80):
    """Four vertices with the modes of BFM's front crop."""
    rng = np.random.default_rng(0)
    return FaceModel(
        name="four points",
        licence="none",
        mean=np.array([[-45, 0, 0], [45, 0, 0], [0, -20, 30], [0, -80, 0]], np.float32),
        id_basis=rng.standard_normal((4, 3, n_identity)).astype(np.float32),
        ex_basis=rng.standard_normal((4, 3, n_expression)).astype(np.float32),
        faces=np.array([[0, 3, 2], [1, 2, 3], [0, 2, 1]], np.int64),
        landmarks68=np.arange(68) % 4,
        ex_names=tuple(f"e{i}" for i in range(n_expression)),
        ex_range=np.zeros((n_expression, 2), np.float32),
        albedo=np.full((4, 3), 0.5, np.float32),
        albedo_basis=rng.standard_normal((4, 3, n_albedo)).astype(np.float32) * 0.001,
    )


@pytest.fixture(scope="module")
def state():
    return regenerable_weights({key: tuple(value.shape) for key, value in CoefficientNetwork().state_dict().items()})


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    """A checkpoint laid out as the official one: networks, optimiser and schedule."""
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_20.pth"
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"net_recon": state, "opt_00": optimiser, "sched_00": {"last_epoch": 20, "gamma": 0.2}}, path)
    return path


def random_crops(n):
    return np.random.default_rng(3).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)


def test_network_computes_what_the_official_one_computes(state):
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no parity fixture")
    fixture = json.loads((Path(os.environ["NEO3DF_ASSETS"]) / "parity" / "deep3dmm_resnet50.json").read_text())
    assert {key: list(value.shape) for key, value in state.items()} == fixture["state_dict"]
    network = CoefficientNetwork().eval()
    network.load_state_dict(state)
    low, high = fixture["input"]["low_high"]
    images = np.random.RandomState(0).uniform(low, high, size=fixture["input"]["shape"]).astype(np.float32)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(images)).numpy()
    assert list(outputs.shape) == fixture["output_shape"]
    np.testing.assert_allclose(outputs.ravel(), fixture["output"], atol=1e-4)


def test_network_has_the_official_heads(state):
    assert len(state) == 332
    heads = [tuple(state[f"final_layers.{i}.weight"].shape) for i in range(7)]
    assert heads == [(n, 2048, 1, 1) for n in (80, 64, 80, 3, 27, 2, 1)]
    assert tuple(state["backbone.layer4.0.downsample.0.weight"].shape) == (2048, 1024, 1, 1)


def test_crops_go_through_the_network_in_batches(state, checkpoint):
    crops = random_crops(3)
    network = CoefficientNetwork().eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        expected = network(torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32) / 255)).numpy()
    deep3dmm = Deep3DMM(checkpoint, bfm_like(), batch_size=2)
    estimate = deep3dmm.estimate(crops)
    assert len(estimate) == 3
    np.testing.assert_allclose(estimate.to_network(), expected, atol=1e-4)
    np.testing.assert_allclose(estimate.identity, expected[:, :80], atol=1e-5)
    np.testing.assert_allclose(estimate.translation, 100 * expected[:, 254:], atol=1e-2)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    assert len(deep3dmm.estimate(random_crops(0))) == 0
    assert estimate.neutral(deep3dmm.face_model).shape == (3, 4, 3)


def test_a_bare_state_dict_is_read_too(state, tmp_path):
    torch.save(state, tmp_path / "net.pth")
    network = load_coefficient_network(tmp_path / "net.pth")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        ((50, 64, 80), "has 50 identity modes, not 80"),
        ((80, 63, 80), "has 63 expression modes, not 64"),
        ((80, 64, 79), r"has 79 texture modes, not 80; use load_face_model\('bfm'\)"),
    ],
)
def test_another_face_model_is_refused(tmp_path, modes, message):
    with pytest.raises(ValueError, match=message):
        Deep3DMM(tmp_path / "absent.pth", bfm_like(*modes))


def test_another_network_is_refused_with_its_keys(state, tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"net_recon": {**state, "fc.weight": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match=r"other\.pth: not the weights of CoefficientNetwork: 1 not expected.*fc\.wei"):
        load_coefficient_network(path)
    torch.save({"net_recon": {**state, "final_layers.5.bias": torch.zeros(3)}}, path)
    with pytest.raises(ValueError, match=r"1 of another shape \(final_layers\.5\.bias \(3,\) for \(2,\)\)"):
        load_coefficient_network(path)
    torch.save({"net_recon": {**state, "final_layers.5.bias": torch.tensor([0.0, torch.nan])}}, path)
    with pytest.raises(ValueError, match=r"1 not finite \(final_layers\.5\.bias\)"):
        load_coefficient_network(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"other\.pth: holds no state dict, but list"):
        load_coefficient_network(path)


def test_missing_and_damaged_checkpoints_are_named(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such weights file"):
        load_coefficient_network(tmp_path / "absent.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"cut\.pth: not a readable PyTorch checkpoint"):
        load_coefficient_network(cut)


class RunsOnLoad:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_a_checkpoint_that_wants_to_run_something_is_refused(tmp_path, save):
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    save({"net_recon": RunsOnLoad(marker)}, path)
    with pytest.raises(ValueError, match=r"evil\.pth: not a readable PyTorch checkpoint"):
        load_coefficient_network(path)
    assert not marker.exists()


def test_wrong_crops_and_batch_sizes_are_refused(checkpoint):
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        Deep3DMM(checkpoint, bfm_like(), batch_size=0)
    deep3dmm = Deep3DMM(checkpoint, bfm_like())
    with pytest.raises(ValueError, match=r"crops must be \(B, 224, 224, 3\) uint8"):
        deep3dmm.estimate(np.zeros((1, 112, 112, 3), np.uint8))
