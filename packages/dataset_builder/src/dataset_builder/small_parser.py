"""A small face-parsing network of our own: what it computes, and its file. Training is in ``parser_training``."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ._checkpoints import fill_network, read_safetensors
from .alignment import CROP_SIZE
from .parser_labels import ParsedFaces
from .parts import LABEL_IDS, PARTS
from .preprocessing import check_crops

UInt8 = NDArray[np.uint8]

HIDDEN = len(LABEL_IDS)
"""Class of pixels where hair, a hat or glasses may hide the face, after the classes of our label ids."""

_WIDTHS = (24, 40, 64, 112)
_BATCH = 16


class SmallParser(nn.Module):
    """U-Net (Ronneberger et al. 2015) of 336,136 weights that labels standard crops.

    Four scales, 1/2 to 1/16 of the crop, joined by addition; the logits of the finest are interpolated to the crop, so
    borders are finer than its pixels. Since the crops are aligned, row and distance from the middle column are inputs:
    a mirrored crop gets the mirrored labels. Labels have no side, so a crop and its mirror image are averaged.

    Attributes:
        classes: 8 class names, index = label id, the last one "hidden".
        validation_iou: mean intersection over union by part on the crops that training kept back, NaN before.
    """

    name = "small"
    classes = (*LABEL_IDS, "hidden")
    _FORMAT = "neo3df small parser 1"

    def __init__(self) -> None:
        super().__init__()
        at_2, at_4, at_8, at_16 = _WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(5, at_2, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(at_2), nn.ReLU(), _conv(at_2, at_2)
        )
        self.down_4 = nn.Sequential(_conv(at_2, at_4, stride=2), _conv(at_4, at_4))
        self.down_8 = nn.Sequential(_conv(at_4, at_8, stride=2), _conv(at_8, at_8))
        self.down_16 = nn.Sequential(_conv(at_8, at_16, stride=2), _conv(at_16, at_16))
        self.up_8, self.merge_8 = nn.Conv2d(at_16, at_8, 1), _conv(at_8, at_8)
        self.up_4, self.merge_4 = nn.Conv2d(at_8, at_4, 1), _conv(at_4, at_4)
        self.up_2, self.merge_2 = nn.Conv2d(at_4, at_2, 1), _conv(at_2, at_2)
        self.head = nn.Conv2d(at_2, len(self.classes), 1)
        self.validation_iou = dict.fromkeys(PARTS, float("nan"))
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv2d):  # half the time on a CPU
                convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 8, 224, 224) of crops (B, 3, 224, 224) float, 0..1; differentiable."""
        steps = (torch.arange(images.shape[-1], device=images.device) + 0.5) * (2 / images.shape[-1]) - 1
        place = torch.stack(torch.meshgrid(steps, steps.abs(), indexing="ij")).expand(len(images), -1, -1, -1)
        at_2 = self.stem(torch.cat([(images - 0.5) / 0.25, place], 1))
        at_4 = self.down_4(at_2)
        at_8 = self.down_8(at_4)
        joined = self.merge_8(at_8 + _doubled(self.up_8(self.down_16(at_8))))
        joined = self.merge_4(at_4 + _doubled(self.up_4(joined)))
        joined = self.merge_2(at_2 + _doubled(self.up_2(joined)))
        return _doubled(self.head(joined))

    @torch.no_grad()
    def parse(self, crops: UInt8) -> ParsedFaces:
        """Part labels of crops (B, 224, 224, 3) uint8, and where the network sees hair, a hat or glasses.

        Raises:
            ValueError: wrong shape or dtype.
        """
        check_crops(crops)
        training = self.training
        self.eval()
        found = np.empty((len(crops), CROP_SIZE, CROP_SIZE), np.uint8)
        for first in range(0, len(crops), _BATCH):
            images = crop_tensor(crops[first : first + _BATCH])
            logits = self(images) + self(images.flip(3)).flip(3)
            found[first : first + _BATCH] = logits.argmax(1).numpy()
        self.train(training)
        hidden = found == HIDDEN
        return ParsedFaces(np.where(hidden, LABEL_IDS["background"], found).astype(np.uint8), hidden)

    def save(self, path: Path) -> None:
        """Write the weights as safetensors; the header says format, classes, crop size and validation IoU (JSON)."""
        from safetensors.torch import save_file

        header = {
            "classes": list(self.classes),
            "crop_size": CROP_SIZE,
            "validation_iou": self.validation_iou,
        }
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        save_file(state, path, {"format": self._FORMAT, "parser": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> "SmallParser":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged, or something else.
        """
        state, header = read_safetensors(path)
        if header.get("format") != cls._FORMAT:
            raise ValueError(f"{path}: not a small-parser file (its format is {header.get('format')!r})")
        parser = cls()
        fill_network(parser, state, path)
        parser.validation_iou = json.loads(header["parser"])["validation_iou"]
        return parser.eval()


def crop_tensor(crops: UInt8) -> Tensor:
    """Crops (B, 224, 224, 3) uint8 as (B, 3, 224, 224) float32, 0..1."""
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 255


def _doubled(values: Tensor) -> Tensor:
    return functional.interpolate(values, scale_factor=2, mode="bilinear")


def _conv(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()
    )
