"""`Renderer`: images of per-vertex attributes, differentiable, on the CPU or with nvdiffrast."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fitting import _nvdiffrast
from fitting._cpu import CpuBackend

BackendName = Literal["auto", "nvdiffrast", "cpu"]


class Backend(Protocol):
    """What a rasteriser has to offer; both backends share the conventions of `Renderer`."""

    device: torch.device
    faces: Tensor

    def transform(self, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, V, 3), (4, 3), (4,) -> (B, V, 4)."""

    def rasterise(self, clip: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, V, 4), (H, W) -> (B, H, W, 4)."""

    def interpolate(self, attributes: Tensor, raster: Tensor) -> Tensor:
        """(1 or B, V, C) -> (B, H, W, C)."""

    def antialias(self, image: Tensor, raster: Tensor, clip: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""


def area_average(image: Tensor, factor: int) -> Tensor:
    """(B, factor H, factor W, C) -> (B, H, W, C), the mean of each factor x factor block; differentiable."""
    if factor == 1:
        return image
    return torch.nn.functional.avg_pool2d(image.movedim(-1, 1), factor).movedim(1, -1)


class Renderer:
    """Rasterise a fixed topology and interpolate vertex attributes over it.

    Clip positions follow OpenGL: w > 0 in front, smaller z/w is nearer, ndc y = -1 is row 0
    (`clip_positions` already points rows down). Coverage is snapped to 1/16 px; triangles are drawn
    whatever their winding; where depths are equal the later triangle wins. The CPU backend drops triangles
    that reach behind the camera (w <= 0) instead of clipping them, and ignores the near and far planes.

    Args:
        faces: (F, 3) integer, 0-based.
        size: image (height, width), or one number for both.
        backend: "cpu", "nvdiffrast" (CUDA; research licence), or "auto": nvdiffrast if it is installed and
            there is a CUDA device, otherwise the CPU.
        antialias: smooth silhouettes analytically, which also gives occlusion a gradient. Results may then
            leave the range of the attributes by rounding.
        supersample: 1, 2 or 4: render so many times finer along each axis and average areas. Rasters stay
            fine, since the owners of pixels cannot be averaged.

    Raises:
        ValueError: faces are not (F, 3) or negative, or the size, backend or supersampling is unknown.
        ImportError: nvdiffrast was asked for and is not installed.
    """

    def __init__(
        self,
        faces: ArrayLike | Tensor,
        size: int | tuple[int, int],
        backend: BackendName = "auto",
        *,
        antialias: bool = True,
        supersample: Literal[1, 2, 4] = 1,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        if height < 1 or width < 1:
            raise ValueError(f"image size is {height} x {width}; both must be at least 1")
        table = np.ascontiguousarray(np.asarray(faces), np.int32)
        if table.ndim != 2 or table.shape[1] != 3 or (table.size and table.min() < 0):
            raise ValueError(f"faces have shape {table.shape}; expected (F, 3) vertex ids >= 0")
        if backend not in ("auto", "nvdiffrast", "cpu"):
            raise ValueError(f"backend is {backend!r}; expected 'auto', 'nvdiffrast' or 'cpu'")
        if supersample not in (1, 2, 4):
            raise ValueError(f"supersample is {supersample}; expected 1, 2 or 4")
        use_cuda = backend == "nvdiffrast" or (backend == "auto" and _nvdiffrast.is_available())
        self.backend: Backend = (_nvdiffrast.NvdiffrastBackend if use_cuda else CpuBackend)(torch.from_numpy(table))
        self.size = height, width
        self.antialias = antialias
        self.supersample = supersample
        self._n_vertices = int(table.max(initial=-1)) + 1

    def rasterise(self, clip: Tensor) -> Tensor:
        """Visibility of (B, V, 4) clip positions.

        Returns:
            (B, H, W, 4) float32, H and W being ``supersample`` times those of the image: u, v
            (perspective-correct weights of the triangle's vertices 0 and 1, the third is 1 - u - v), z/w, and
            triangle id + 1 (0 where nothing is seen). u and v are differentiable in the positions, z/w is not.

        Raises:
            ValueError: wrong shape, a face refers to a vertex that is not there, or a position is not finite.
        """
        if clip.ndim != 3 or clip.shape[-1] != 4 or clip.shape[1] < self._n_vertices:
            raise ValueError(
                f"clip positions have shape {tuple(clip.shape)}; expected (B, V, 4) with V >= {self._n_vertices}"
            )
        height, width = (self.supersample * pixels for pixels in self.size)
        return self.backend.rasterise(clip.to(self.backend.device, torch.float32), (height, width))

    def __call__(self, clip: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """Render attributes.

        Args:
            clip: (B, V, 4) clip positions.
            attributes: (V, C) or (B, V, C).

        Returns:
            image (B, H, W, C) float32, 0 where nothing is seen, and the (finer, if supersampled) raster of
            `rasterise`; both on the device of ``clip``.
        """
        device = self.backend.device
        positions = clip.to(device, torch.float32)
        raster = self.rasterise(positions)
        values = attributes.to(device, torch.float32)
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or values.shape[1] != clip.shape[1] or values.shape[0] not in (1, clip.shape[0]):
            raise ValueError(
                f"attributes have shape {tuple(attributes.shape)}; expected ({clip.shape[1]}, C) or "
                f"({clip.shape[0]}, {clip.shape[1]}, C)"
            )
        image = self.backend.interpolate(values, raster)
        if self.antialias:
            image = self.backend.antialias(image, raster, positions)
        return area_average(image, self.supersample).to(clip.device), raster.to(clip.device)
