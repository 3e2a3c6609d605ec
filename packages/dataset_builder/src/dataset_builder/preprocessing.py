"""From the standard crop to the numbers a network was trained on: which pixels, how many, and at which scale."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .alignment import CROP_SIZE

UInt8 = NDArray[np.uint8]
Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_STD: Triple = (58.395, 57.12, 57.375)

# Where ArcFace crops of 112 x 112 pixels put the five points (Deng et al. 2019).
_ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_ARCFACE_SIZE = 112


@dataclass(frozen=True)
class Preprocessing:
    """What a network wants to be shown.

    Attributes:
        crop: "standard", the whole crop of :func:`align_face`; or "arcface", the similarity crop by five points.
        size: side of the input in pixels.
        mean, std: per channel, on values 0..255: the input is (value - mean) / std.
        channels: order of the channels.
    """

    crop: Literal["standard", "arcface"]
    size: int
    mean: Triple
    std: Triple
    channels: Literal["RGB", "BGR"] = "RGB"

    def apply(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Tensor:
        """Input (B, 3, size, size) float32 of crops (B, 224, 224, 3) uint8 and, for "arcface", five points (B, 5, 2).

        Raises:
            ValueError: wrong shapes, or the five points of a face coincide or are not finite.
        """
        check_crops(images)
        if self.crop == "arcface":
            images = _arcface_crops(images, five_points)
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        pixels = _resized(pixels, self.size).contiguous()
        if self.channels == "BGR":
            pixels = pixels.flip(1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std


def check_crops(images: UInt8) -> None:
    """Raise ValueError unless images are crops (B, 224, 224, 3) uint8."""
    if images.ndim != 4 or images.shape[1:] != (CROP_SIZE, CROP_SIZE, 3) or images.dtype != np.uint8:
        raise ValueError(f"crops must be (B, {CROP_SIZE}, {CROP_SIZE}, 3) uint8, got {images.shape} of {images.dtype}")


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


def _arcface_crops(images: UInt8, five_points: NDArray[np.floating] | None) -> UInt8:
    points = np.asarray(() if five_points is None else five_points, np.float64)
    if points.shape != (len(images), 5, 2):
        raise ValueError(f"five points must be ({len(images)}, 5, 2) for {len(images)} images, got {points.shape}")
    crops = np.empty((len(images), _ARCFACE_SIZE, _ARCFACE_SIZE, 3), np.uint8)
    for i, (image, five) in enumerate(zip(images, points, strict=True)):
        crops[i] = arcface_crop(image, five)
    return crops


def _resized(pixels: Tensor, size: int) -> Tensor:
    """Block means where the size divides, else bilinear interpolation, with a wider filter when shrinking."""
    present = pixels.shape[-1]
    if present == size:
        return pixels
    if present % size == 0:
        return functional.avg_pool2d(pixels, present // size)
    return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
