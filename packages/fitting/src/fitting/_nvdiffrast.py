"""The optional CUDA backend: nvdiffrast behind the same calls as the CPU backend.

nvdiffrast is not a requirement: its licence allows research and evaluation use only. It is imported here,
when it is asked for, and nothing of it is part of this package.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor

_HELP = (
    "install it from https://github.com/NVlabs/nvdiffrast with `pip install --no-build-isolation .` "
    "(its licence allows research and evaluation only, not commercial use), or use backend='cpu'"
)


def is_available() -> bool:
    """Whether nvdiffrast can be imported and a CUDA device is present."""
    return torch.cuda.is_available() and importlib.util.find_spec("nvdiffrast") is not None


def _device() -> torch.device:
    if not torch.cuda.is_available():
        raise RuntimeError("backend 'nvdiffrast' needs a CUDA device and none is visible; use backend='cpu'")
    return torch.device("cuda", torch.cuda.current_device())


class NvdiffrastBackend:
    """Rasterise, interpolate and antialias one mesh topology with nvdiffrast 0.3 or newer.

    Releases before September 2024 accept only images whose height and width are multiples of 8.

    Args:
        faces: (F, 3) int32 tensor.

    Raises:
        ImportError: nvdiffrast is not installed.
        RuntimeError: no CUDA device.
    """

    def __init__(self, faces: Tensor) -> None:
        try:
            self._dr = importlib.import_module("nvdiffrast.torch")
        except ImportError as error:
            raise ImportError(f"backend 'nvdiffrast' needs the package nvdiffrast: {_HELP}") from error
        self.device = _device()
        self.faces = faces.to(self.device).contiguous()
        self._context = self._dr.RasterizeCudaContext(device=self.device)
        self._topology: object | None = None

    def transform(self, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, V, 3) points -> (B, V, 4) clip positions weight (4, 3) @ point + bias (4,)."""
        # not a matrix product: with TF32 allowed it would round positions to a tenth of a pixel
        return (points[..., None, :] * weight).sum(-1) + bias

    def rasterise(self, clip: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, V, 4) clip positions -> (B, H, W, 4) raster of size (height, width)."""
        if not bool(torch.isfinite(clip).all()):
            image, vertex = (~torch.isfinite(clip)).any(-1).nonzero()[0].tolist()
            raise ValueError(f"vertex {vertex} of image {image} is NaN or infinite; positions must be finite")
        return self._dr.rasterize(self._context, clip.contiguous(), self.faces, size, grad_db=False)[0]

    def interpolate(self, attributes: Tensor, raster: Tensor) -> Tensor:
        """(1 or B, V, C) attributes -> (B, H, W, C) image."""
        return self._dr.interpolate(attributes.contiguous(), raster, self.faces)[0]

    def antialias(self, image: Tensor, raster: Tensor, clip: Tensor) -> Tensor:
        """Antialias the silhouettes of (B, H, W, C) image."""
        if self._topology is None:
            self._topology = self._dr.antialias_construct_topology_hash(self.faces)
        return self._dr.antialias(
            image.contiguous(), raster.contiguous(), clip.contiguous(), self.faces, topology_hash=self._topology
        )
