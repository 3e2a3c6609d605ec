"""ResNet-50 without its classifier (He et al. 2016), with the parameter names of torchvision.

The stride of a downsampling block sits in its 3 x 3 convolution, as in torchvision. It is written out here because
torchvision is an extra of this package, and one that does not always fit the installed PyTorch.
"""

from torch import Tensor, nn

FEATURES = 2048
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first
_EXPANSION = 4


class ResNet50(nn.Module):
    """Mean of the last feature map: images (B, 3, H, W) to (B, 2048, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        stages = []
        for width, blocks, stride in _STAGES:
            stage = [Bottleneck(channels, width, stride)]
            channels = width * _EXPANSION
            stage += [Bottleneck(channels, width, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 2048, 1, 1) of images (B, 3, H, W)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        pooled: Tensor = self.avgpool(features)
        return pooled


class Bottleneck(nn.Module):
    """Residual block: 1 x 1 to ``width`` channels, 3 x 3 at ``stride``, 1 x 1 to four times ``width``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 4 width, H / stride, W / stride) of features (B, channels, H, W)."""
        shortcut = features if self.downsample is None else self.downsample(features)
        features = self.relu(self.bn1(self.conv1(features)))
        features = self.relu(self.bn2(self.conv2(features)))
        result: Tensor = self.relu(self.bn3(self.conv3(features)) + shortcut)
        return result
