"""FaceNet's network, Inception-ResNet v1 (Szegedy et al. 2017), with the parameter names of facenet-pytorch.

So that the published state dicts load as they are: ``20180402-114759-vggface2.pt`` and
``20180408-102900-casia-webface.pt``, whose classifier is left out.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._checkpoints import fill_network, read_state

EMBEDDING = 512
INPUT_SIZE = 160

_CLASSIFIER = ("logits.",)
_Kernel = int | tuple[int, int]


class _ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: _Kernel, stride: int = 1, padding: _Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class _Residual(nn.Module):
    """Parallel branches, joined by a 1 x 1 convolution and added to the input, scaled."""

    def __init__(self, n_in: int, branches: list[nn.Module], n_joined: int, scale: float, *, relu: bool) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.conv2d = nn.Conv2d(n_joined, n_in, 1)
        self._n_branches, self._scale, self._relu = len(branches), scale, relu

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self._n_branches)], 1)
        out = x + self._scale * self.conv2d(joined)
        return torch.relu(out) if self._relu else out


class _Reduction(nn.Module):
    """Parallel branches of stride 2, the last one a pooling."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


def _block35() -> _Residual:
    branches: list[nn.Module] = [
        _ConvNorm(256, 32, 1),
        nn.Sequential(_ConvNorm(256, 32, 1), _ConvNorm(32, 32, 3, padding=1)),
        nn.Sequential(_ConvNorm(256, 32, 1), _ConvNorm(32, 32, 3, padding=1), _ConvNorm(32, 32, 3, padding=1)),
    ]
    return _Residual(256, branches, 96, 0.17, relu=True)


def _block17() -> _Residual:
    wide, tall = _ConvNorm(128, 128, (1, 7), padding=(0, 3)), _ConvNorm(128, 128, (7, 1), padding=(3, 0))
    branches: list[nn.Module] = [_ConvNorm(896, 128, 1), nn.Sequential(_ConvNorm(896, 128, 1), wide, tall)]
    return _Residual(896, branches, 256, 0.10, relu=True)


def _block8(scale: float = 0.20, *, relu: bool = True) -> _Residual:
    wide, tall = _ConvNorm(192, 192, (1, 3), padding=(0, 1)), _ConvNorm(192, 192, (3, 1), padding=(1, 0))
    branches: list[nn.Module] = [_ConvNorm(1792, 192, 1), nn.Sequential(_ConvNorm(1792, 192, 1), wide, tall)]
    return _Residual(1792, branches, 384, scale, relu=relu)


class InceptionResnetV1(nn.Module):
    """Identity embedding of standardised faces, of unit length; 23 million weights.

    Dropout (0.6) acts in training mode only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _ConvNorm(3, 32, 3, stride=2)
        self.conv2d_2a = _ConvNorm(32, 32, 3)
        self.conv2d_2b = _ConvNorm(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = _ConvNorm(64, 80, 1)
        self.conv2d_4a = _ConvNorm(80, 192, 3)
        self.conv2d_4b = _ConvNorm(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _Reduction(
            _ConvNorm(256, 384, 3, stride=2),
            nn.Sequential(_ConvNorm(256, 192, 1), _ConvNorm(192, 192, 3, padding=1), _ConvNorm(192, 256, 3, stride=2)),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _Reduction(
            nn.Sequential(_ConvNorm(896, 256, 1), _ConvNorm(256, 384, 3, stride=2)),
            nn.Sequential(_ConvNorm(896, 256, 1), _ConvNorm(256, 256, 3, stride=2)),
            nn.Sequential(_ConvNorm(896, 256, 1), _ConvNorm(256, 256, 3, padding=1), _ConvNorm(256, 256, 3, stride=2)),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(scale=1.0, relu=False)
        self.dropout = nn.Dropout(0.6)
        self.last_linear = nn.Linear(1792, EMBEDDING, bias=False)
        self.last_bn = nn.BatchNorm1d(EMBEDDING, eps=0.001)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (B, 512) of unit length, of images (B, 3, 160, 160): RGB, (value - 127.5) / 128."""
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(images))))
        x = self.repeat_1(self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x))))
        x = self.repeat_2(self.mixed_6a(x))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        x = self.last_bn(self.last_linear(self.dropout(x.mean((2, 3)))))
        return functional.normalize(x)


def load_facenet(weights: Path) -> InceptionResnetV1:
    """The network with published weights, in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds another network; one line says which keys.
    """
    with torch.device("meta"):
        network = InceptionResnetV1()
    fill_network(network, read_state(weights), weights, ignored=_CLASSIFIER)
    return network.eval()
