"""Fitting named variables to 2D part masks by gradient descent through a renderer (NEO-3DF section 3.5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fitting.camera import Camera
from fitting.iou import PartOverlap, part_iou
from fitting.part_images import Gradient, PartRenderer
from fitting.region_cost import LabelCosts
from fitting.renderer import BackendName
from fitting.targets import MIN_AREA, PartTargets, check_label_masks, mask_targets
from fitting.variables import Unknowns, Values, Variable

ShapeFunction = Callable[[Values], Tensor]
"""{name: (B, n)} -> (B, V, 3) mm in the camera frame, differentiable."""

ImageLoss = Callable[[Tensor, PartTargets], Tensor]
"""(B, H, W, 5) part images, targets -> (B,)."""

STALL = 1e-4
"""A loss counts as improved if it falls by more than this share of its best value."""


@dataclass(frozen=True)
class FitResult:
    """What a fit found; B photos, each independent of the others.

    Attributes:
        values: {name: (B, n)} of the best iterate of each photo.
        labels_before, labels_after: (B, H, W) uint8 hard label maps.
        overlap_before, overlap_after: their overlap with the target masks.
        loss: (iterations + 1, B) float64; row i is the loss after i steps, row 0 the start.
        best_iteration: (B,) int64, the number of steps after which the kept iterate was reached.
        flipped: (B,) share of triangles whose normal points the other way than at the start.
        moved_mean, moved_p99: (B,) mm, mean and 99th percentile of the vertex motion from the start.
        iterations: steps that were taken.
        seconds: wall time of the whole call.
    """

    values: Values
    labels_before: NDArray[np.uint8]
    labels_after: NDArray[np.uint8]
    overlap_before: PartOverlap
    overlap_after: PartOverlap
    loss: NDArray[np.float64]
    best_iteration: NDArray[np.int64]
    flipped: NDArray[np.float64]
    moved_mean: NDArray[np.float64]
    moved_p99: NDArray[np.float64]
    iterations: int
    seconds: float


class _Best:
    """The best iterate of every photo; a photo that has stalled is finished and keeps what it has."""

    def __init__(self, unknowns: Unknowns, patience: int | None) -> None:
        self.loss = torch.full((unknowns.n_photos,), torch.inf, dtype=torch.float64)
        self.iteration = torch.zeros(unknowns.n_photos, dtype=torch.int64)
        self.steps = {name: step.detach().clone() for name, step in unknowns.steps.items()}
        self._patience = patience
        self._reference = self.loss.clone()
        self._since = torch.zeros(unknowns.n_photos, dtype=torch.int64)
        self.finished = torch.zeros(unknowns.n_photos, dtype=torch.bool)

    def update(self, loss: Tensor, steps: Values, iteration: int) -> None:
        """Record the (B,) loss of the current steps."""
        better = (loss < self.loss) & ~self.finished
        self.loss = torch.where(better, loss, self.loss)
        self.iteration[better] = iteration
        for name, step in steps.items():
            mask = better.to(step.device)
            self.steps[name][mask] = step.detach()[mask]
        progress = loss < self._reference * (1 - STALL)
        self._reference = torch.where(progress, loss, self._reference)
        self._since = torch.where(progress, 0, self._since + 1)
        if self._patience is not None:
            self.finished |= self._since >= self._patience


def _check_vertices(vertices: Tensor, n_photos: int, n_vertices: int, when: str) -> Tensor:
    if vertices.shape != (n_photos, n_vertices, 3):
        raise ValueError(
            f"shape_fn returned {tuple(vertices.shape)}; expected ({n_photos}, {n_vertices}, 3) camera-frame vertices"
        )
    bad = ~torch.isfinite(vertices.detach()).all(-1).all(-1)
    if bool(bad.any()):
        photos = bad.nonzero().flatten().tolist()
        raise ValueError(f"shape_fn returned vertices that are NaN or infinite {when}, photos {photos}")
    return vertices


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = vertices[:, faces].unbind(2)
    return torch.linalg.cross(b - a, c - a)


def _check_inputs(masks: NDArray[np.uint8], camera: Camera, n_photos: int, iterations: int, rate: float) -> None:
    if masks.shape[1:] != (camera.height, camera.width):
        raise ValueError(
            f"target masks are {masks.shape[1]} x {masks.shape[2]} px but the camera renders "
            f"{camera.height} x {camera.width}; resize the masks or the camera"
        )
    if len(masks) != n_photos:
        raise ValueError(f"there are {len(masks)} target masks but the variables hold {n_photos} photos")
    if iterations < 0:
        raise ValueError(f"iterations is {iterations}; it must be >= 0")
    if not rate > 0:
        raise ValueError(f"learning_rate is {rate}; it must be positive")


def _image_loss(renderer: PartRenderer, targets: PartTargets, loss: ImageLoss | None) -> Callable[[Tensor], Tensor]:
    """(B, V, 3) vertices -> (B,) loss of their part images."""
    if loss is not None:
        return lambda vertices: loss(renderer.parts(vertices), targets)
    costs = LabelCosts.from_targets(targets)
    return lambda vertices: renderer.region_loss(vertices, targets, costs)


def fit_controls(
    shape_fn: ShapeFunction,
    variables: Mapping[str, Variable],
    target_masks: ArrayLike | Tensor,
    camera: Camera,
    *,
    faces: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    iterations: int = 20,
    learning_rate: float = 0.1,
    prior: float = 1e-3,
    ramp_px: float = 5.0,
    ignore: ArrayLike | Tensor | None = None,
    gradient: Gradient = "label-edge",
    loss: ImageLoss | None = None,
    final_shape_fn: ShapeFunction | None = None,
    patience: int | None = None,
    min_area: int = MIN_AREA,
    backend: BackendName = "auto",
) -> FitResult:
    """Fit variables so that the rendered parts of each photo cover its masks.

    Minimises ``loss(parts, targets) + prior * sum u^2`` per photo by Adam on u, where each variable is
    ``x = initial + unit * u``; clamps to the bounds after every step; keeps the best iterate of each photo.

    Args:
        shape_fn: {name: (B, n)} -> (B, V, 3) mm in the camera frame (pose applied), differentiable.
        variables: the unknowns by name.
        target_masks: (B, H, W) label ids 0 to 6 in the camera's image.
        camera: the camera.
        faces: (F, 3) integer.
        labels: (V,) vertex label ids 1 to 6.
        iterations: Adam steps.
        learning_rate: step in natural units.
        prior: weight of the quadratic prior of variables that set none.
        ramp_px: half width of the targets' distance ramp, see `mask_targets`; 0 for binary targets.
        ignore: (B, H, W) bool, pixels that neither cost anything nor count in the overlap.
        gradient: see `PartRenderer`.
        loss: image loss per photo, such as `frobenius_loss`; None for `region_loss`, computed without the image
            where that is possible.
        final_shape_fn: shape function of the reported label maps, overlaps and motion (the loop may use a
            cheaper one); None for ``shape_fn``.
        patience: finish a photo when its loss has not fallen by 0.01 % for this many steps, and the fit when
            every photo is finished; None to take all steps.
        min_area: target parts with fewer pixels cost nothing and are not counted.
        backend: see `Renderer`.

    Returns:
        FitResult.

    Raises:
        ValueError: masks that do not fit the camera or the variables, ids outside 0..6, bad variables, or
            vertices that are not finite (the message names the iteration).
    """
    start = time.perf_counter()
    masks = check_label_masks(target_masks, "target masks")
    unknowns = Unknowns(variables, prior)
    _check_inputs(masks, camera, unknowns.n_photos, iterations, learning_rate)
    targets = mask_targets(masks, ramp_px, ignore=ignore, min_area=min_area)
    renderer = PartRenderer(faces, labels, camera, gradient=gradient, backend=backend)
    final = shape_fn if final_shape_fn is None else final_shape_fn
    size = (unknowns.n_photos, renderer.n_vertices)
    with torch.no_grad():
        before = _check_vertices(final(unknowns.values()), *size, "at the start")

    image_loss = _image_loss(renderer, targets, loss)
    optimiser = torch.optim.Adam(list(unknowns.steps.values()), lr=learning_rate)
    best = _Best(unknowns, patience)
    history = []
    for iteration in range(iterations + 1):
        vertices = _check_vertices(shape_fn(unknowns.values()), *size, f"at iteration {iteration}")
        losses = image_loss(vertices) + unknowns.prior()
        history.append(losses.detach().double().cpu())
        best.update(history[-1], unknowns.steps, iteration)
        if iteration == iterations or bool(best.finished.all()):
            break
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
        unknowns.clamp()

    with torch.no_grad():
        values = unknowns.values(best.steps)
        after = _check_vertices(final(values), *size, "at the end")
        labels_before, labels_after = (renderer.labels(shape).cpu().numpy() for shape in (before, after))
        triangles = torch.as_tensor(np.asarray(faces, np.int64), device=after.device)
        turned = (_normals(before, triangles) * _normals(after, triangles)).sum(-1) < 0
        moved = (after - before).norm(dim=-1).double().cpu().numpy()
    return FitResult(
        values=values,
        labels_before=labels_before,
        labels_after=labels_after,
        overlap_before=part_iou(labels_before, masks, ignore, min_area),
        overlap_after=part_iou(labels_after, masks, ignore, min_area),
        loss=torch.stack(history).numpy(),
        best_iteration=best.iteration.numpy(),
        flipped=turned.double().mean(1).cpu().numpy(),
        moved_mean=moved.mean(1),
        moved_p99=np.percentile(moved, 99, axis=1),
        iterations=len(history) - 1,
        seconds=time.perf_counter() - start,
    )
