"""Deep3DMM: 257 coefficients of a face from one aligned crop, by the network of Deng et al. 2019.

The network carries the parameter names of the official PyTorch code, so that the official checkpoint loads as it is.
The published weights belong to the Basel Face Model, which is for research only; neither is part of this package.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ._checkpoints import fill_network, read_state
from .face_coefficients import COEFFICIENT_SLICES, FaceCoefficients
from .face_model import FaceModel
from .resnet50 import FEATURES, ResNet50
from .small_encoder import check_crops

_HEADS = (80, 64, 80, 3, 27, 2, 1)  # translation is two heads, x and y, then z


class CoefficientNetwork(nn.Module):
    """ResNet-50 with one linear head per kind of coefficient: crops (B, 3, 224, 224) in [0, 1] to (B, 257)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet50()
        self.final_layers = nn.ModuleList(nn.Conv2d(FEATURES, length, 1) for length in _HEADS)

    def forward(self, images: Tensor) -> Tensor:
        """Coefficients (B, 257) of RGB images (B, 3, 224, 224) in [0, 1]."""
        features = self.backbone(images)
        return torch.cat([head(features) for head in self.final_layers], 1).flatten(1)


class Deep3DMM:
    """Coefficients of aligned crops, a batch at a time.

    Args:
        checkpoint: the official ``epoch_20.pth`` (a dictionary with the network under ``net_recon``), or a bare state
            dictionary of :class:`CoefficientNetwork`. It is read with ``weights_only=True``.
        bfm: the face model that the coefficients belong to, ``load_face_model("bfm")``.
        batch_size: crops that go through the network at once.
        device: PyTorch device.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint is unreadable or of another network, the face model has other modes than 80
            identities, 64 expressions and 80 colours, or ``batch_size`` is below 1.
    """

    def __init__(self, checkpoint: Path, bfm: FaceModel, *, batch_size: int = 16, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        wanted = dict(COEFFICIENT_SLICES)
        modes = {"identity": bfm.n_identity, "expression": bfm.n_expression, "texture": bfm.n_albedo}
        wrong = [f"{modes[kind]} {kind} modes, not {wanted[kind]}" for kind in modes if modes[kind] != wanted[kind]]
        if wrong:
            raise ValueError(
                f"Deep3DMM needs the BFM front crop: face model {bfm.name!r} has {', '.join(wrong)}; "
                "use load_face_model('bfm')"
            )
        self.face_model = bfm
        self._network = load_coefficient_network(checkpoint).to(device)
        self._batch_size, self._device = batch_size, device

    @torch.inference_mode()
    def estimate(self, crops: NDArray[np.uint8]) -> FaceCoefficients:
        """Coefficients of crops (N, 224, 224, 3) uint8 RGB as :func:`align_face` cuts them.

        Raises:
            ValueError: wrong shape or type, or coefficients that are not finite.
        """
        check_crops(crops)
        outputs = [
            self._network(self._images(crops[first : first + self._batch_size])).cpu().numpy()
            for first in range(0, len(crops), self._batch_size)
        ]
        return FaceCoefficients.from_network(np.concatenate(outputs or [np.zeros((0, 257), np.float32)]))

    def _images(self, crops: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(self._device)
        return pixels.permute(0, 3, 1, 2).float() / 255


def load_coefficient_network(checkpoint: Path) -> CoefficientNetwork:
    """The network with the weights of a checkpoint (see :class:`Deep3DMM`), ready for inference.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is unreadable, holds more than tensors and plain values, or is of another network.
    """
    network = CoefficientNetwork()
    fill_network(network, read_state(Path(checkpoint), "net_recon"), Path(checkpoint))
    return network.eval().requires_grad_(False)
