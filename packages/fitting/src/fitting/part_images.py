"""Images of the labelled parts: hard label maps and differentiable five-channel part images."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fitting.camera import Camera, clip_transform
from fitting.edge_term import EdgeTerm, add_edge_term
from fitting.label_edge import dominant_labels, label_edge_image
from fitting.losses import region_loss
from fitting.parts import FIRST_PART_ID, LABEL_IDS, REGIONS
from fitting.region_cost import LabelCosts, label_cost
from fitting.renderer import BackendName, Renderer, area_average
from fitting.targets import PartTargets

Gradient = Literal["label-edge", "label-edge-shared", "interpolation", "antialias", "edge"]
"""Where a part image gets its gradient from, see `PartRenderer`."""


class PartRenderer:
    """Renders one labelled topology through one camera; keep it for repeated use.

    Args:
        faces: (F, 3) integer.
        labels: (V,) vertex label ids 1 to 6.
        camera: the camera; its size is the image size.
        gradient: where `parts` gets its gradient from. "label-edge": hard one-hot image, label-edge force (see
            `fitting.label_edge`). "label-edge-shared": the same image, but borders inside one surface push both of
            its points, for parts that move without their surround. "interpolation": interpolated one-hot colours,
            as NEO-3DF. "antialias": the same with antialiased silhouettes (Laine et al. 2020). "edge": the same
            image as "antialias", with the edge term for the occlusions that antialiasing does not find (see
            `fitting.edge_term`).
        backend: as for `Renderer`.
        supersample: as for `Renderer`; for part images. With the label-edge force their pixels then hold the
            area of each part instead of 0 or 1. Label maps always sample pixel centres.
        edge_term: which pixels "edge" takes for an occlusion, and from which depth step on "label-edge-shared"
            does; the others do not use it.

    Raises:
        ValueError: a label is not in 1..6, a face refers to a vertex without label, or gradient or
            supersampling is unknown.
    """

    def __init__(
        self,
        faces: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        camera: Camera,
        *,
        gradient: Gradient = "label-edge",
        backend: BackendName = "auto",
        supersample: Literal[1, 2, 4] = 1,
        edge_term: EdgeTerm = EdgeTerm(),  # noqa: B008 (frozen)
    ) -> None:
        if gradient not in get_args(Gradient):
            raise ValueError(f"gradient is {gradient!r}; expected one of {', '.join(map(repr, get_args(Gradient)))}")
        ids, table = np.asarray(labels), np.asarray(faces)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"labels have shape {ids.shape} and type {ids.dtype}; expected (V,) integers")
        if ids.size and (ids.min() < 1 or ids.max() > len(REGIONS)):
            wrong = ids[(ids < 1) | (ids > len(REGIONS))][0]
            raise ValueError(f"vertex label {wrong} is not a label id; expected {LABEL_IDS['rest']} to {len(REGIONS)}")
        if table.size and table.max() >= len(ids):
            raise ValueError(f"faces refer to vertex {table.max()} but there are {len(ids)} labels")
        self.camera = camera
        self.gradient = gradient
        self._edge_term = edge_term
        self._hard = gradient in ("label-edge", "label-edge-shared")
        self._shared_within = edge_term.depth_step if gradient == "label-edge-shared" else 0.0
        self._renderer = Renderer(
            table,
            (camera.height, camera.width),
            backend,
            antialias=gradient in ("antialias", "edge"),
            supersample=supersample,
        )
        device = self._renderer.backend.device
        self._labels = torch.from_numpy(ids.astype(np.uint8)).to(device)
        one_hot = torch.nn.functional.one_hot(self._labels.long(), len(REGIONS) + 1)
        self._colours = one_hot[None, :, FIRST_PART_ID:].float().contiguous()
        weight, bias = clip_transform(camera)
        self._clip_transform = weight.to(device, torch.float32), bias.to(device, torch.float32)

    @property
    def n_vertices(self) -> int:
        """Number of vertices, V."""
        return len(self._labels)

    def _clip(self, vertices: Tensor) -> Tensor:
        if vertices.ndim != 3 or vertices.shape[1:] != (len(self._labels), 3):
            raise ValueError(f"vertices have shape {tuple(vertices.shape)}; expected (B, {len(self._labels)}, 3)")
        backend = self._renderer.backend
        return backend.transform(vertices.to(backend.device, torch.float32), *self._clip_transform)

    def labels(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) camera-frame vertices, mm -> (B, H, W) uint8 hard label map, 0 outside the face."""
        backend = self._renderer.backend
        with torch.no_grad():
            raster = backend.rasterise(self._clip(vertices), self._renderer.size)
            return dominant_labels(raster, self._labels, backend.faces).to(vertices.device)

    def parts(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) camera-frame vertices, mm -> (B, H, W, 5) float32 part image, differentiable."""
        renderer, backend = self._renderer, self._renderer.backend
        clip = self._clip(vertices)
        if self._hard:
            with torch.no_grad():
                raster = renderer.rasterise(clip)
            image, _ = label_edge_image(clip, raster, self._labels, backend.faces, self._shared_within)
        else:
            raster = renderer.rasterise(clip)
            image = backend.interpolate(self._colours, raster)
            if self.gradient == "edge":
                image = add_edge_term(image, clip, raster, self._labels, backend.faces, self._edge_term)
            if renderer.antialias:
                image = backend.antialias(image, raster, clip)
        return area_average(image, renderer.supersample).to(vertices.device)

    def region_loss(self, vertices: Tensor, targets: PartTargets, costs: LabelCosts) -> Tensor:
        """Region loss of the part image of each photo, differentiable.

        The same value and gradient as ``region_loss(self.parts(vertices), targets)``, but with the label-edge
        gradient on the CPU, not supersampled, the image is never built, and the force is exact next to
        ignored pixels too.

        Args:
            vertices: (B, V, 3) mm, camera frame.
            targets: of the same B photos.
            costs: ``LabelCosts.from_targets(targets)``, made once and used in every call.

        Returns:
            (B,) float32.
        """
        fused = self._hard and self._renderer.supersample == 1
        if not fused or self._renderer.backend.device.type != "cpu":
            return region_loss(self.parts(vertices), targets)
        if costs.change.shape[:3] != (len(vertices), self.camera.height, self.camera.width):
            raise ValueError(
                f"targets have shape {tuple(costs.change.shape[:3])}; expected "
                f"({len(vertices)}, {self.camera.height}, {self.camera.width})"
            )
        clip = self._clip(vertices)
        with torch.no_grad():
            raster = self._renderer.rasterise(clip)
        faces, within = self._renderer.backend.faces, self._shared_within
        return label_cost(clip, raster, self._labels, faces, costs, within).to(vertices.device)


def render_labels(
    vertices: Tensor,
    labels: ArrayLike | Tensor,
    camera: Camera,
    faces: ArrayLike | Tensor,
    *,
    backend: BackendName = "auto",
) -> Tensor:
    """Hard, z-buffered label map of a labelled mesh.

    Args:
        vertices: (B, V, 3) mm, camera frame.
        labels: (V,) label ids 1 to 6.
        camera: the camera; its size is the image size.
        faces: (F, 3) integer.
        backend: as for `Renderer`.

    Returns:
        (B, H, W) uint8: argmax of the interpolated one-hot labels, 0 outside the face.

    Raises:
        ValueError: wrong shapes, labels outside 1..6, or vertices that are not finite.
    """
    return PartRenderer(faces, labels, camera, backend=backend).labels(vertices)


def render_parts(
    vertices: Tensor,
    labels: ArrayLike | Tensor,
    camera: Camera,
    faces: ArrayLike | Tensor,
    *,
    gradient: Gradient = "label-edge",
    backend: BackendName = "auto",
    supersample: Literal[1, 2, 4] = 1,
) -> Tensor:
    """Differentiable five-channel part image (NEO-3DF section 3.4: one-hot part labels, rest is zero).

    Args:
        vertices: (B, V, 3) mm, camera frame; differentiable.
        labels: (V,) label ids 1 to 6.
        camera: the camera; its size is the image size.
        faces: (F, 3) integer.
        gradient: "label-edge", "label-edge-shared", "interpolation", "antialias" or "edge", see `PartRenderer`.
        backend: as for `Renderer`.
        supersample: 1, 2 or 4: average the areas of so many times finer an image.

    Returns:
        (B, H, W, 5) float32 in the order of PARTS.

    Raises:
        ValueError: wrong shapes, labels outside 1..6, or vertices that are not finite.
    """
    renderer = PartRenderer(faces, labels, camera, gradient=gradient, backend=backend, supersample=supersample)
    return renderer.parts(vertices)
