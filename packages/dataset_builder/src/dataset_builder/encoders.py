"""Networks that turn an aligned crop into an embedding, for regression of face shapes from photos."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import arcface, facenet
from ._checkpoints import file_sha256, state_sha256
from ._onnx import OnnxNetwork
from .assets import weights_file
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from .small_encoder import SmallEncoder

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

ENCODERS = ("facenet", "arcface", "mobilefacenet", "small")

_BATCH = 16
_FACENET_INPUT = Preprocessing("standard", facenet.INPUT_SIZE, (127.5,) * 3, (128.0,) * 3)
# The network was trained on images with red and blue exchanged.
_ARCFACE_INPUT = Preprocessing("arcface", 112, (127.5,) * 3, (127.5,) * 3, "BGR")


class FaceEncoder(Protocol):
    """Anything that embeds aligned crops.

    Attributes:
        name: as given to :func:`load_encoder`.
        dim: length E of an embedding.
        differentiable: whether gradients reach its weights, that is, whether it is a :class:`TrainableEncoder`.
        preprocessing: what it makes of a crop first.
        weights_sha256: hex digest of its weights as they are now; fine-tuning changes it.
    """

    name: str
    dim: int
    differentiable: bool
    preprocessing: Preprocessing

    @property
    def weights_sha256(self) -> str:
        """Hex digest of the weights."""
        ...

    def encode(self, images: UInt8, five_points: NDArray[np.floating]) -> Float32:
        """Embeddings (B, E) float32 of crops (B, 224, 224, 3) uint8 RGB and their five points (B, 5, 2) crop px."""
        ...


@runtime_checkable
class TrainableEncoder(FaceEncoder, Protocol):
    """An encoder that fine-tuning can reach: ``embed(prepare(images, five_points))`` has gradients."""

    def prepare(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Tensor:
        """Input (B, 3, size, size) float32 of the network."""
        ...

    def embed(self, prepared: Tensor) -> Tensor:
        """Embeddings (B, E), differentiable in the weights and the input."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights to be trained."""
        ...


def load_encoder(name: str, checkpoint: Path | None = None) -> FaceEncoder:
    """An encoder by name.

    Args:
        name: "facenet", "arcface" or "mobilefacenet", whose weights are assets; or "small", which is trained here.
        checkpoint: the weights file. None takes the asset; "small" has none and needs what its ``save`` wrote.

    Raises:
        ValueError: unknown name, "small" without a checkpoint, or a file that is damaged or of another network.
        AssetMissing: no such file; the message says which is wanted, its licence and where to get it.
        AssetCorrupt: the asset has another hash than the published file.
        ImportError: a library of the extra [photos] is missing.
    """
    if name == "facenet":
        network: nn.Module = facenet.load_facenet(weights_file("facenet_vggface2", checkpoint))
        return TorchEncoder(name, network, facenet.EMBEDDING, _FACENET_INPUT)
    if name == "arcface":
        network = arcface.load_arcface(weights_file("arcface_ir_se50", checkpoint))
        return TorchEncoder(name, network, arcface.EMBEDDING, _ARCFACE_INPUT)
    if name == "mobilefacenet":
        return MobileFaceNetEncoder(checkpoint)
    if name == "small":
        if checkpoint is None:
            raise ValueError("encoder 'small' has no weights of its own: give the checkpoint of a trained one")
        return SmallEncoder.load(checkpoint)
    raise ValueError(f"no encoder named {name!r}; there are {', '.join(ENCODERS)}")


class TorchEncoder(nn.Module):
    """A PyTorch network with its preprocessing, as an encoder that can be fine-tuned.

    Args:
        name: of the encoder.
        network: from (B, 3, size, size) to (B, dim).
        dim: length of an embedding.
        preprocessing: what the network was trained on.
    """

    differentiable = True

    def __init__(self, name: str, network: nn.Module, dim: int, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.name, self.dim, self.preprocessing = name, dim, preprocessing
        self.network = network
        self.train(network.training)

    @property
    def weights_sha256(self) -> str:
        """Hex digest of the weights as they are now: after fine-tuning it is another."""
        return state_sha256(self.network)

    def prepare(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Tensor:
        """Input (B, 3, size, size) float32 of crops (B, 224, 224, 3) uint8 and their five points (B, 5, 2)."""
        return self.preprocessing.apply(images, five_points)

    def embed(self, prepared: Tensor) -> Tensor:
        """Embeddings (B, dim), differentiable."""
        result: Tensor = self.network(prepared)
        return result

    def forward(self, prepared: Tensor) -> Tensor:
        """As :meth:`embed`."""
        return self.embed(prepared)

    @torch.no_grad()
    def encode(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Float32:
        """Embeddings (B, dim) float32 of crops (B, 224, 224, 3) uint8, in evaluation mode.

        Raises:
            ValueError: wrong shapes, or the five points of a face coincide.
        """
        prepared = self.prepare(images, five_points)
        training = self.training
        self.eval()
        found = [self.embed(some) for some in prepared.split(_BATCH)]
        self.train(training)
        return torch.cat(found).numpy() if found else np.empty((0, self.dim), np.float32)


class MobileFaceNetEncoder:
    """Identity embedding of MobileFaceNet (Chen et al. 2018), 128 numbers, on a similarity crop of 112 x 112 pixels."""

    name = "mobilefacenet"
    dim = 128
    differentiable = False
    preprocessing = Preprocessing("arcface", 112, IMAGENET_MEAN, IMAGENET_STD)

    def __init__(self, weights: Path | None = None) -> None:
        path = weights_file("mobilefacenet_112", weights)
        self._network = OnnxNetwork(path)
        self._sha256 = file_sha256(path)

    @property
    def weights_sha256(self) -> str:
        """Hex digest of the file."""
        return self._sha256

    def encode(self, images: UInt8, five_points: NDArray[np.floating]) -> Float32:
        """Embeddings (B, 128) float32 of crops (B, 224, 224, 3) uint8 RGB and five points (B, 5, 2) crop pixels.

        Raises:
            ValueError: wrong shapes, or the five points of a face coincide.
        """
        prepared = self.preprocessing.apply(images, five_points).numpy()
        embeddings = np.empty((len(images), self.dim), np.float32)
        for i, pixels in enumerate(prepared):  # the network was exported for one image
            embeddings[i] = self._network(pixels[None])[0]
        return embeddings
