"""Networks that turn an aligned crop into an embedding, for regression of face shapes from photos."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ._onnx import OnnxNetwork
from .alignment import CROP_SIZE
from .assets import asset_path

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
        _check_crops(images)
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


@dataclass(frozen=True)
class SmallEncoderSettings:
    """How to train a :class:`SmallEncoder`.

    Attributes:
        dim: length of the embedding.
        epochs, batch, learning_rate, weight_decay: AdamW with a one-cycle learning rate.
        validation_share: share of the images kept for the reported R^2.
        seed: of the split, the initial weights, the order and the augmentation.
    """

    dim: int = 96
    epochs: int = 30
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    validation_share: float = 0.15
    seed: int = 0


class SmallEncoder(nn.Module):
    """A convolutional network of about 300,000 weights for crops averaged down to 112 x 112 pixels.

    The last feature map is flattened, not pooled: shape targets need to know where something is.

    Attributes:
        dim: length E of the embedding.
        n_targets: number T of regressed values.
        validation_r2: (T,) R^2 per target on the images that training kept back; NaN before training.
    """

    name = "small"
    _FORMAT = "neo3df small encoder 1"

    def __init__(self, n_targets: int, dim: int = 96) -> None:
        super().__init__()
        self.dim = dim
        self.n_targets = n_targets
        widths = (3, 24, 48, 96, 128)
        stages = [_downsampling(a, b) for a, b in pairwise(widths)]
        self.features = nn.Sequential(*stages, nn.Conv2d(widths[-1], 24, 1), nn.ReLU())
        self.embed = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(24 * 7 * 7, dim), nn.LayerNorm(dim))
        self.head = nn.Linear(dim, n_targets)
        self.validation_r2: Tensor
        self.register_buffer("validation_r2", torch.full((n_targets,), torch.nan))

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (B, E) of images (B, 3, 112, 112) float, 0..1; differentiable."""
        return self.embed(self.features((images - 0.5) / 0.25))

    def regress(self, images: Tensor) -> Tensor:
        """Targets (B, T), standardised as in training, of images (B, 3, 112, 112) float, 0..1."""
        return self.head(self(images))

    @torch.no_grad()
    def encode(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Float32:
        """Embeddings (B, E) float32 of crops (B, 224, 224, 3) uint8; the five points are not used."""
        return self._evaluate(images, self)

    @torch.no_grad()
    def predict(self, images: UInt8) -> Float32:
        """Targets (B, T) float32, standardised as in training, of crops (B, 224, 224, 3) uint8."""
        return self._evaluate(images, self.regress)

    def save(self, path: Path) -> None:
        """Write the weights as a PyTorch state dict of plain tensors."""
        torch.save(
            {"format": self._FORMAT, "dim": self.dim, "n_targets": self.n_targets, "state": self.state_dict()}, path
        )

    @classmethod
    def load(cls, path: Path) -> "SmallEncoder":
        """Read what :meth:`save` wrote (no code in the file is run).

        Raises:
            ValueError: the file is another kind of checkpoint.
        """
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(saved, dict) or saved.get("format") != cls._FORMAT:
            raise ValueError(f"{path}: not a small-encoder checkpoint")
        encoder = cls(saved["n_targets"], saved["dim"])
        encoder.load_state_dict(saved["state"])
        return encoder.eval()

    def _evaluate(self, images: UInt8, network: Callable[[Tensor], Tensor]) -> Float32:
        _check_crops(images)
        training = self.training
        self.eval()
        batches = [network(shrink_crops(images[i : i + 64])).numpy() for i in range(0, len(images), 64)]
        self.train(training)
        return np.concatenate(batches)


def shrink_crops(images: UInt8) -> Tensor:
    """Crops (B, 224, 224, 3) uint8 averaged 2 x 2 to (B, 3, 112, 112) float32, 0..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return functional.avg_pool2d(pixels, 2)


def train_small_encoder(
    images: UInt8,
    targets: NDArray[np.floating],
    settings: SmallEncoderSettings | None = None,
    progress: Callable[[int, int, float, float], None] | None = None,
) -> SmallEncoder:
    """Train a small encoder to regress targets from crops.

    Augmentation is mild: brightness, colour, noise and shifts of up to 2 pixels (of 112). Crops are not mirrored, since
    the targets of a mirrored face are not known here.

    Args:
        images: (N, 224, 224, 3) uint8 aligned crops, N >= 8.
        targets: (N, T) standardised (mean 0, variance 1).
        settings: see :class:`SmallEncoderSettings`.
        progress: called after each epoch with (epoch from 1, epochs, training loss, mean validation R^2).

    Returns:
        The encoder in evaluation mode, with ``validation_r2`` set.

    Raises:
        ValueError: shapes do not fit, too few images, or targets that are not finite.
    """
    settings = settings or SmallEncoderSettings()
    _check_crops(images)
    values = torch.as_tensor(np.asarray(targets), dtype=torch.float32)
    if values.ndim != 2 or len(values) != len(images) or len(images) < 8:
        raise ValueError(f"need targets (N, T) for N >= 8 images, got {tuple(values.shape)} for {len(images)} images")
    if not torch.isfinite(values).all():
        raise ValueError("targets hold a value that is not finite")
    random = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(images), generator=random)
    n_validation = max(2, round(settings.validation_share * len(images)))
    kept_back, training = order[:n_validation], order[n_validation:]
    crops = shrink_crops(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = SmallEncoder(values.shape[1], settings.dim)
        _fit(encoder, crops, values, (training, kept_back), settings, random, progress)
    return encoder.eval()


def _fit(
    encoder: SmallEncoder,
    crops: Tensor,
    values: Tensor,
    split: tuple[Tensor, Tensor],
    settings: SmallEncoderSettings,
    random: torch.Generator,
    progress: Callable[[int, int, float, float], None] | None,
) -> None:
    training, kept_back = split
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = -(-len(training) // settings.batch) * settings.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=steps, pct_start=0.2)
    for epoch in range(1, settings.epochs + 1):
        encoder.train()
        total = 0.0
        for chosen in training[torch.randperm(len(training), generator=random)].split(settings.batch):
            loss = functional.mse_loss(encoder.regress(_augment(crops[chosen], random)), values[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        if progress is not None or epoch == settings.epochs:
            encoder.validation_r2.copy_(_r_squared(encoder, crops[kept_back], values[kept_back]))
        if progress is not None:
            progress(epoch, settings.epochs, total / len(training), float(encoder.validation_r2.mean()))


@torch.no_grad()
def _r_squared(encoder: SmallEncoder, crops: Tensor, values: Tensor) -> Tensor:
    """R^2 (T,) against the mean of the training targets, which is 0 by standardisation."""
    encoder.eval()
    residual = (encoder.regress(crops) - values).square().mean(0)
    return 1 - residual / values.square().mean(0).clamp_min(1e-12)


def _augment(crops: Tensor, random: torch.Generator) -> Tensor:
    """Crops (B, 3, 112, 112) with other brightness and colour, noise, and a shift of up to 2 pixels."""
    count, _, height, width = crops.shape
    gain = (
        1 + 0.2 * torch.randn(count, 1, 1, 1, generator=random) + 0.05 * torch.randn(count, 3, 1, 1, generator=random)
    )
    offset = 0.05 * torch.randn(count, 1, 1, 1, generator=random)
    noisy = crops * gain + offset + 0.02 * torch.randn(crops.shape, generator=random)
    padded = functional.pad(noisy.clamp(0, 1), (2, 2, 2, 2), mode="replicate")
    shifts = torch.randint(0, 5, (count, 2), generator=random).tolist()
    return torch.stack([padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(shifts)])


def _downsampling(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()
    )


def _check_crops(images: UInt8) -> None:
    if images.ndim != 4 or images.shape[1:] != (CROP_SIZE, CROP_SIZE, 3) or images.dtype != np.uint8:
        raise ValueError(f"crops must be (B, {CROP_SIZE}, {CROP_SIZE}, 3) uint8, got {images.shape} of {images.dtype}")
