"""Networks that turn an aligned crop into an embedding, for regression of face shapes from photos."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._onnx import OnnxNetwork
from .assets import asset_path
from .small_encoder import SmallEncoder, check_crops

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

ENCODERS = ("mobilefacenet", "small")

# Where ArcFace crops of 112 x 112 pixels put the five points (Deng et al. 2019).
_ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_ARCFACE_SIZE = 112
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


class FaceEncoder(Protocol):
    """Anything that embeds aligned crops.

    Attributes:
        name: as given to :func:`load_encoder`.
        dim: length E of an embedding.
    """

    name: str
    dim: int

    def encode(self, images: UInt8, five_points: NDArray[np.floating]) -> Float32:
        """Embeddings (B, E) float32 of crops (B, 224, 224, 3) uint8 RGB and their five points (B, 5, 2) crop px."""
        ...


def load_encoder(name: str, checkpoint: Path | None = None) -> FaceEncoder:
    """An encoder by name: "mobilefacenet" (an asset) or "small" (a checkpoint written by :meth:`SmallEncoder.save`).

    Raises:
        ValueError: unknown name, or "small" without a checkpoint.
        AssetMissing: no MobileFaceNet weights.
    """
    if name == "mobilefacenet":
        return MobileFaceNetEncoder(checkpoint)
    if name == "small":
        if checkpoint is None:
            raise ValueError("encoder 'small' has no weights of its own: give the checkpoint of a trained one")
        return SmallEncoder.load(checkpoint)
    raise ValueError(f"no encoder named {name!r}; there are {', '.join(ENCODERS)}")


class MobileFaceNetEncoder:
    """Identity embedding of MobileFaceNet (Chen et al. 2018), 128 numbers, on a similarity crop of 112 x 112 pixels."""

    name = "mobilefacenet"
    dim = 128

    def __init__(self, weights: Path | None = None) -> None:
        self._network = OnnxNetwork(asset_path("mobilefacenet_112") if weights is None else weights)

    def encode(self, images: UInt8, five_points: NDArray[np.floating]) -> Float32:
        """Embeddings (B, 128) float32 of crops (B, 224, 224, 3) uint8 RGB and five points (B, 5, 2) crop pixels.

        Raises:
            ValueError: wrong shapes, or the five points of a face coincide.
        """
        check_crops(images)
        points = np.asarray(five_points, np.float64)
        if points.shape != (len(images), 5, 2):
            raise ValueError(f"five points must be ({len(images)}, 5, 2) for {len(images)} images, got {points.shape}")
        embeddings = np.empty((len(images), self.dim), np.float32)
        for i, (image, five) in enumerate(zip(images, points, strict=True)):
            crop = arcface_crop(image, five).astype(np.float32)
            pixels = (crop / np.float32(255) - _IMAGENET_MEAN) / _IMAGENET_STD
            embeddings[i] = self._network(pixels.transpose(2, 0, 1)[None])[0]
        return embeddings


def arcface_crop(image: UInt8, five_points: NDArray[np.floating]) -> UInt8:
    """Face rotated and scaled to ArcFace's template, (112, 112, 3) uint8, from an image and its five points (5, 2).

    Sampled at twice the size and averaged 2 x 2, since the usual crop is about half as large as its source.
    """
    similarity = fit_similarity(np.asarray(five_points, np.float64), _ARCFACE_POINTS * 2)
    size = 2 * _ARCFACE_SIZE
    to_source = np.linalg.inv(similarity)[:2].ravel()
    warped = Image.fromarray(image).transform(
        (size, size), Image.Transform.AFFINE, tuple(to_source), Image.Resampling.BILINEAR
    )
    return np.asarray(warped.reduce(2))


def fit_similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares rotation, scale and translation (3, 3) from points (N, 2) to points (N, 2); no reflection.

    In the plane a similarity is one complex factor and one complex shift, so the least squares are closed-form.

    Raises:
        ValueError: the source points coincide or are not finite.
    """
    z, w = source @ [1, 1j], target @ [1, 1j]
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if not np.isfinite(spread) or spread < 1e-6:
        raise ValueError(f"the points of a face must be finite and apart: {source.tolist()}")
    factor = np.vdot(centred, w - w.mean()) / spread
    shift = w.mean() - factor * z.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag], [0, 0, 1]])
