"""A small network that a few hundred photos can train: its embedding says where the features of the face lie."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from ._checkpoints import fill_network, read_checkpoint, state_sha256
from .alignment import CROP_SIZE
from .preprocessing import Preprocessing, check_crops

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

N_POINTS = 68
_GRID = CROP_SIZE // 8
_SHARPNESS = 10.0  # scale of the heat maps: peaks can form in the few hundred steps there are
_PRIOR_PX = 16.0  # spread of a landmark about its mean in the aligned crop

# The landmark that each Multi-PIE landmark becomes in a mirrored picture.
_MIRRORED = [
    *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65),
]


@dataclass(frozen=True)
class SmallEncoderSettings:
    """How to train a :class:`SmallEncoder`.

    Attributes:
        epochs, batch, learning_rate, weight_decay: AdamW with a one-cycle learning rate.
        validation_share: share of the images kept for the reported error, unless they are given.
        seed: of the split, the initial weights, the order and the augmentation.
    """

    epochs: int = 30
    batch: int = 8
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    validation_share: float = 0.1
    seed: int = 0


class SmallEncoder(nn.Module):
    """Convolutional network of about 240,000 weights on crops averaged to 112 x 112; it embeds them as 68 landmarks.

    Three scales (1/4, 1/8, 1/16) joined top-down (Lin et al. 2017) give one heat map per landmark, whose expected
    position is the landmark (spatial softmax, Levine et al. 2016). A Gaussian about the mean landmark of aligned crops
    starts every heat map in the right place. Landmarks, unlike identity coefficients, move with the picture, so
    shifting, turning, scaling and mirroring make new training examples; and shape follows from them almost linearly.

    Attributes:
        dim: length E = 136 of an embedding: column and row of each landmark, -1 to 1 across the crop.
        validation_error_px: (68,) mean distance per landmark, crop pixels, on the images that training kept back; NaN
            before training.
    """

    name = "small"
    dim = 2 * N_POINTS
    differentiable = True
    preprocessing = Preprocessing("standard", CROP_SIZE // 2, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    validation_error_px: Tensor
    mean_points: Tensor
    _FORMAT = "neo3df small encoder 2"

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = 32, 64, 96
        stem = nn.Conv2d(3, fine, 6, stride=4, padding=1, bias=False)
        self.down_4 = nn.Sequential(stem, nn.BatchNorm2d(fine), nn.ReLU(), _convolution(fine, fine))
        self.down_8 = nn.Sequential(_convolution(fine, middle, stride=2), _convolution(middle, middle))
        self.down_16 = nn.Sequential(_convolution(middle, coarse, stride=2), _convolution(coarse, coarse))
        self.up_8, self.up_4 = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        self.merge = _convolution(fine, fine)
        self.heat = nn.Conv2d(fine, N_POINTS, 1)
        for parameter in self.heat.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("mean_points", torch.zeros(N_POINTS, 2))
        self.register_buffer("validation_error_px", torch.full((N_POINTS,), torch.nan))

    def forward(self, images: Tensor) -> Tensor:
        """Landmarks (B, 68, 2), -1 to 1, of images (B, 3, 112, 112) float, 0..1; differentiable."""
        at_4 = self.down_4((images - 0.5) / 0.25)
        at_8 = self.down_8(at_4)
        joined = at_8 + functional.interpolate(self.up_8(self.down_16(at_8)), scale_factor=2)
        joined = self.merge(at_4 + functional.interpolate(self.up_4(joined), scale_factor=2, mode="bilinear"))
        centres = (torch.arange(_GRID, device=images.device) + 0.5) * (2 / _GRID) - 1
        off_mean = (centres - self.mean_points[..., None]) / (_PRIOR_PX * 2 / CROP_SIZE)  # (68, 2, grid)
        columns, rows = (-0.5 * off_mean.square()).unbind(1)
        logits = _SHARPNESS * self.heat(joined) + rows[:, :, None] + columns[:, None, :]
        heat = logits.flatten(2).softmax(-1).unflatten(2, (_GRID, _GRID))
        return torch.stack([heat.sum(2) @ centres, heat.sum(3) @ centres], -1)

    @torch.no_grad()
    def encode(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Float32:
        """Embeddings (B, 136) float32 of crops (B, 224, 224, 3) uint8; the five points are not used.

        The landmarks of each crop and those of its mirror image, mirrored back, are averaged.
        """
        check_crops(images)
        training = self.training
        self.eval()
        found = [self.embed(self.prepare(images[i : i + 64])) for i in range(0, len(images), 64)]
        self.train(training)
        return torch.cat(found).numpy() if found else np.empty((0, self.dim), np.float32)

    @property
    def weights_sha256(self) -> str:
        """Hex digest of the weights as they are now."""
        return state_sha256(self)

    def prepare(self, images: UInt8, five_points: NDArray[np.floating] | None = None) -> Tensor:
        """Input (B, 3, 112, 112) float32, 0..1, of crops (B, 224, 224, 3) uint8."""
        return shrink_crops(images)

    def embed(self, prepared: Tensor) -> Tensor:
        """Embeddings (B, 136), differentiable: the mean of the input's landmarks and of its mirror image's."""
        return self._symmetric(prepared).flatten(1)

    def landmarks(self, images: UInt8) -> Float32:
        """Landmarks (B, 68, 2) in crop pixels of crops (B, 224, 224, 3) uint8."""
        return (self.encode(images).reshape(-1, N_POINTS, 2) + 1) * np.float32(CROP_SIZE / 2)

    def save(self, path: Path) -> None:
        """Write the weights as a PyTorch state dict of plain tensors."""
        torch.save({"format": self._FORMAT, "state": self.state_dict()}, path)

    @classmethod
    def load(cls, path: Path) -> "SmallEncoder":
        """Read what :meth:`save` wrote (no code in the file is run).

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged, or another kind of checkpoint.
        """
        saved = read_checkpoint(path)
        if not isinstance(saved, dict) or saved.get("format") != cls._FORMAT:
            raise ValueError(f"{path}: not a small-encoder checkpoint")
        encoder = cls()
        fill_network(encoder, saved["state"], path)
        return encoder.eval()

    def _symmetric(self, images: Tensor) -> Tensor:
        return 0.5 * (self(images) + mirror_points(self(images.flip(3))))


def mirror_points(points: Tensor) -> Tensor:
    """Landmarks (B, 68, 2), -1 to 1, of the mirrored picture, in Multi-PIE order."""
    return points[:, _MIRRORED] * points.new_tensor([-1.0, 1.0])


def shrink_crops(images: UInt8) -> Tensor:
    """Crops (B, 224, 224, 3) uint8 averaged 2 x 2 to (B, 3, 112, 112) float32, 0..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return functional.avg_pool2d(pixels, 2)


def train_small_encoder(
    images: UInt8,
    landmarks: NDArray[np.floating],
    settings: SmallEncoderSettings | None = None,
    validation_rows: ArrayLike | None = None,
    progress: Callable[[int, int, float, float], None] | None = None,
) -> SmallEncoder:
    """Train a small encoder to find the landmarks of crops.

    Every picture is shown mirrored half of the time, a little turned, scaled and shifted, in other light and colour.

    Args:
        images: (N, 224, 224, 3) uint8 aligned crops, N >= 8.
        landmarks: (N, 68, 2) Multi-PIE landmarks, crop pixels.
        settings: see :class:`SmallEncoderSettings`.
        validation_rows: the images to keep back; a random share by default.
        progress: called after each epoch with (epoch from 1, epochs, training loss, mean validation error in pixels).

    Returns:
        The encoder in evaluation mode, with ``validation_error_px`` set.

    Raises:
        ValueError: shapes do not fit, too few images, or landmarks that are not finite.
    """
    settings = settings or SmallEncoderSettings()
    check_crops(images)
    points = torch.as_tensor(np.asarray(landmarks), dtype=torch.float32) * (2 / CROP_SIZE) - 1
    if points.shape != (len(images), N_POINTS, 2) or len(images) < 8:
        raise ValueError(
            f"need landmarks (N, {N_POINTS}, 2) for N >= 8 images, got {tuple(points.shape)} for {len(images)} images"
        )
    if not torch.isfinite(points).all():
        raise ValueError("landmarks hold a value that is not finite")
    random = torch.Generator().manual_seed(settings.seed)
    if validation_rows is None:
        share = max(2, round(settings.validation_share * len(images)))
        kept_back = torch.randperm(len(images), generator=random)[:share]
    else:
        kept_back = torch.as_tensor(np.asarray(validation_rows), dtype=torch.int64)
    training = torch.ones(len(images), dtype=torch.bool).index_fill(0, kept_back, False).nonzero()[:, 0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = SmallEncoder()
        encoder.mean_points.copy_(points[training].mean(0))
        _fit(encoder, shrink_crops(images), points, (training, kept_back), settings, random, progress)
    return encoder.eval()


def _fit(
    encoder: SmallEncoder,
    crops: Tensor,
    points: Tensor,
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
            pictures, wanted = augment(crops[chosen], points[chosen], random)
            loss = functional.smooth_l1_loss(encoder(pictures), wanted, beta=0.02)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        if progress is not None or epoch == settings.epochs:
            encoder.validation_error_px.copy_(_error_px(encoder, crops[kept_back], points[kept_back]))
        if progress is not None:
            progress(epoch, settings.epochs, total / len(training), float(encoder.validation_error_px.mean()))


@torch.no_grad()
def _error_px(encoder: SmallEncoder, crops: Tensor, points: Tensor) -> Tensor:
    """Mean distance (68,) in crop pixels."""
    encoder.eval()
    return (encoder._symmetric(crops) - points).norm(dim=-1).mean(0) * (CROP_SIZE / 2)


def augment(crops: Tensor, points: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops (B, 3, H, W) and their landmarks (B, 68, 2), -1 to 1: mirrored, moved by a similarity, in other light."""
    count = len(crops)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    mirrored = torch.rand(count, 1, 1, generator=random) < 0.5
    crops = torch.where(mirrored[..., None], crops.flip(3), crops)
    points = torch.where(mirrored, mirror_points(points), points)
    angle, scale, shift = 0.06 * normal(count), torch.exp(0.04 * normal(count)), 0.04 * normal(count, 2)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    grid = functional.affine_grid(torch.cat([linear, shift[..., None]], 2), list(crops.shape), align_corners=False)
    moved = functional.grid_sample(crops, grid, padding_mode="border", align_corners=False)
    points = torch.linalg.solve(linear[:, None], (points - shift[:, None])[..., None])[..., 0]
    gain = 1 + 0.2 * normal(count, 1, 1, 1) + 0.05 * normal(count, 3, 1, 1)
    lit = moved * gain + 0.05 * normal(count, 1, 1, 1) + 0.02 * normal(*crops.shape)
    return lit.clamp(0, 1), points


def _convolution(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()
    )
