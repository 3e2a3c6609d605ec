import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_builder.facenet import InceptionResnetV1, load_facenet


@pytest.fixture(scope="module")
def fixture():
    """Keys and shapes of the official network, an input, and the official code's output for it."""
    path = Path(os.environ.get("NEO3DF_ASSETS", "")) / "parity" / "facenet_inception_resnet_v1.json"
    if "NEO3DF_ASSETS" not in os.environ or not path.is_file():
        pytest.skip("NEO3DF_ASSETS is not set or has no parity fixture")
    return json.loads(path.read_text())


def made_up_weight(key, shape):
    """The fixture's recipe: any weights will do as long as everyone can make the same."""
    random = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    value = random.standard_normal(int(np.prod(shape))).reshape(shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(value)
    elif key.endswith(("running_mean", "bias")):
        value = 0.05 * value
    elif len(shape) == 1:
        value = 1 + 0.1 * value
    else:
        value = value * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def test_the_official_network_answers_the_same(fixture, tmp_path):
    state = {key: made_up_weight(key, tuple(shape)) for key, shape in fixture["state_dict"].items()}
    own = InceptionResnetV1().state_dict()
    assert {key: list(value.shape) for key, value in own.items()} == fixture["state_dict"]
    # The published files also hold the classifier.
    torch.save(state | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}, tmp_path / "w.pt")
    network = load_facenet(tmp_path / "w.pt")
    low, high = fixture["input"]["low_high"]
    random = np.random.RandomState(fixture["input"]["random_state"])
    images = random.uniform(low, high, size=fixture["input"]["shape"]).astype(np.float32)
    with torch.no_grad():
        found = network(torch.from_numpy(images)).numpy()
    expected = np.array(fixture["output"]).reshape(fixture["output_shape"])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_embeddings_have_unit_length_and_gradients_reach_the_first_layer():
    network = InceptionResnetV1().eval()
    embedding = network(torch.rand(1, 3, 160, 160))
    assert embedding.shape == (1, 512)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))
    embedding[0, 0].backward()
    assert network.conv2d_1a.conv.weight.grad.abs().sum() > 0


def test_the_file_of_another_network_is_refused(tmp_path):
    state = InceptionResnetV1().state_dict()
    del state["last_linear.weight"], state["block8.conv2d.bias"]
    state["repeat_1.0.conv2d.bias"] = torch.zeros(3)
    torch.save(state | {"surplus": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: not the weights of InceptionResnetV1: 2 missing") as error:
        load_facenet(tmp_path / "other.pt")
    assert "last_linear.weight" in str(error.value)
    assert "1 not expected (surplus)" in str(error.value)
    assert "repeat_1.0.conv2d.bias (3,) for (256,)" in str(error.value)
    assert "\n" not in str(error.value)
