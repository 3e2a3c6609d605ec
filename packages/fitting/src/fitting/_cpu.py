"""The CPU backend: autograd around the numba kernels. Tensors are float32 on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fitting import _antialias, _raster


class _Transform(Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        clip = torch.empty(*points.shape[:2], 4)
        _raster.transform(points.numpy(), weight.numpy(), bias.numpy(), clip.numpy())
        ctx.save_for_backward(weight)
        return clip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_clip: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        grad_points = torch.empty(*grad_clip.shape[:2], 3)
        _raster.transform_backward(weight.numpy(), grad_clip.contiguous().numpy(), grad_points.numpy())
        return grad_points, None, None


class _Rasterise(Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
        raster = torch.empty(clip.shape[0], height, width, 4)
        bad = _raster.rasterise(clip.numpy(), faces.numpy(), raster.numpy())
        if bad >= 0:
            image, vertex = divmod(bad, clip.shape[1])
            raise ValueError(f"vertex {vertex} of image {image} is NaN or infinite; positions must be finite")
        ctx.save_for_backward(clip, faces, raster)
        return raster

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raster: Tensor) -> tuple[Tensor, None, None, None]:
        clip, faces, raster = ctx.saved_tensors
        grad_clip = torch.zeros_like(clip)
        _raster.rasterise_backward(
            clip.numpy(), faces.numpy(), raster.numpy(), grad_raster.contiguous().numpy(), grad_clip.numpy()
        )
        return grad_clip, None, None, None


class _Interpolate(Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, raster: Tensor, faces: Tensor) -> Tensor:
        image = torch.empty(*raster.shape[:3], attributes.shape[-1])
        _raster.interpolate(attributes.numpy(), faces.numpy(), raster.numpy(), image.numpy())
        ctx.save_for_backward(attributes, raster, faces)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, Tensor, None]:
        attributes, raster, faces = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        grad_attributes = torch.zeros_like(attributes if wanted else attributes[:0])
        grad_raster = torch.zeros_like(raster)
        _raster.interpolate_backward(
            attributes.numpy(),
            faces.numpy(),
            raster.numpy(),
            grad_image.contiguous().numpy(),
            grad_attributes.numpy(),
            grad_raster.numpy(),
        )
        return grad_attributes if wanted else None, grad_raster, None


class _Antialias(Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, clip: Tensor, raster: Tensor, faces: Tensor, opposite: Tensor) -> Tensor:
        out = image.clone()
        silhouettes = torch.full((len(clip), len(faces)), _antialias.UNKNOWN, dtype=torch.uint8)
        _antialias.antialias(
            clip.numpy(),
            faces.numpy(),
            opposite.numpy(),
            silhouettes.numpy(),
            raster.numpy(),
            image.numpy(),
            image[:0].numpy(),
            out.numpy(),
            clip.numpy(),
        )
        ctx.save_for_backward(image, clip, raster, faces, opposite, silhouettes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        image, clip, raster, faces, opposite, silhouettes = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_image, grad_clip = grad_out.clone(), torch.zeros_like(clip)
        _antialias.antialias(
            clip.numpy(),
            faces.numpy(),
            opposite.numpy(),
            silhouettes.numpy(),
            raster.numpy(),
            image.numpy(),
            grad_out.numpy(),
            grad_image.numpy(),
            grad_clip.numpy(),
        )
        return grad_image, grad_clip, None, None, None


class CpuBackend:
    """Rasterise, interpolate and antialias one mesh topology on the CPU.

    Args:
        faces: (F, 3) int32 CPU tensor.
    """

    device = torch.device("cpu")

    def __init__(self, faces: Tensor) -> None:
        self.faces = faces
        self._opposite: Tensor | None = None

    def transform(self, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, V, 3) points -> (B, V, 4) clip positions weight (4, 3) @ point + bias (4,)."""
        return _Transform.apply(points.contiguous(), weight, bias)

    def rasterise(self, clip: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, V, 4) clip positions -> (B, H, W, 4) raster of size (height, width)."""
        return _Rasterise.apply(clip.contiguous(), self.faces, *size)

    def interpolate(self, attributes: Tensor, raster: Tensor) -> Tensor:
        """(1 or B, V, C) attributes -> (B, H, W, C) image."""
        return _Interpolate.apply(attributes.contiguous(), raster, self.faces)

    def antialias(self, image: Tensor, raster: Tensor, clip: Tensor) -> Tensor:
        """Antialias the silhouettes of (B, H, W, C) image."""
        if self._opposite is None:
            self._opposite = torch.from_numpy(_antialias.opposite_vertices(self.faces.numpy()))
        return _Antialias.apply(image.contiguous(), clip.contiguous(), raster.detach(), self.faces, self._opposite)
