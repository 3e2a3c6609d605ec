"""Fitting named variables to 2D part masks by gradient descent through a renderer (NEO-3DF section 3.5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fitting._best import Best
from fitting.camera import Camera
from fitting.flips import Orientation
from fitting.iou import PartOverlap, part_iou
from fitting.part_images import Gradient, PartRenderer
from fitting.realism import Realism
from fitting.region_cost import LabelCosts
from fitting.renderer import BackendName
from fitting.targets import MIN_AREA, PartTargets, check_label_masks, mask_targets
from fitting.variables import Unknowns, Values, Variable

ShapeFunction = Callable[[Values], Tensor]
"""{name: (B, n)} -> (B, V, 3) mm in the camera frame, differentiable."""

ImageLoss = Callable[[Tensor, PartTargets], Tensor]
"""(B, H, W, 5) part images, targets -> (B,)."""


@dataclass(frozen=True)
class FitResult:
    """What a fit found; B photos, each independent of the others.

    Attributes:
        values: {name: (B, n)} of the best iterate of each photo.
        vertices: (B, V, 3) their shape by the final shape function; NaN for a photo whose start had none.
        labels_before, labels_after: (B, H, W) uint8 hard label maps.
        overlap_before, overlap_after: their overlap with the target masks.
        realism: what the overlap cost: triangles flipped, vertices moved, variables stretched.
        loss: (iterations + 1, B) float64; row i is the loss after i steps, row 0 the start; infinite where a photo
            had no finite loss.
        binary_from: first row of ``loss`` that was measured against binary targets; None if there is none.
        best_iteration: (B,) int64, the number of steps after which the kept iterate was reached.
        failed: (B,) bool, photos that were set aside; they keep their best finite iterate.
        reasons: B lines, why a photo was set aside, "" for the others.
        iterations: steps that were taken.
        seconds: wall time of the whole call.
    """

    values: Values
    vertices: Tensor
    labels_before: NDArray[np.uint8]
    labels_after: NDArray[np.uint8]
    overlap_before: PartOverlap
    overlap_after: PartOverlap
    realism: Realism
    loss: NDArray[np.float64]
    binary_from: int | None
    best_iteration: NDArray[np.int64]
    failed: NDArray[np.bool_]
    reasons: tuple[str, ...]
    iterations: int
    seconds: float

    @property
    def flipped(self) -> NDArray[np.float64]:
        """(B,) share of triangles whose normal points the other way than at the start."""
        return self.realism.flipped

    @property
    def moved_mean(self) -> NDArray[np.float64]:
        """(B,) mm, mean vertex motion from the start."""
        return self.realism.moved_mean

    @property
    def moved_p99(self) -> NDArray[np.float64]:
        """(B,) mm, 99th percentile of the vertex motion from the start."""
        return self.realism.moved_p99


def _shape(vertices: Tensor, n_photos: int, n_vertices: int) -> tuple[Tensor, Tensor]:
    """Vertices with those of photos that are not finite replaced by 0, and which photos (B,) these are."""
    if vertices.shape != (n_photos, n_vertices, 3):
        raise ValueError(
            f"shape_fn returned {tuple(vertices.shape)}; expected ({n_photos}, {n_vertices}, 3) camera-frame vertices"
        )
    bad = ~torch.isfinite(vertices.detach().sum((1, 2))).cpu()
    if bool(bad.any()):
        vertices = vertices.masked_fill(_rows(bad, vertices), 0.0)
    return vertices, bad


def _rows(photos: Tensor, vertices: Tensor) -> Tensor:
    """(B,) bool as (B, 1, 1) on the device of vertices."""
    return photos.to(vertices.device)[:, None, None]


def _check_inputs(
    masks: NDArray[np.uint8], camera: Camera, n_photos: int, iterations: int, binary_after: int | None, rate: float
) -> None:
    if masks.shape[1:] != (camera.height, camera.width):
        raise ValueError(
            f"target masks are {masks.shape[1]} x {masks.shape[2]} px but the camera renders "
            f"{camera.height} x {camera.width}; resize the masks or the camera"
        )
    if len(masks) != n_photos:
        raise ValueError(f"there are {len(masks)} target masks but the variables hold {n_photos} photos")
    if iterations < 0:
        raise ValueError(f"iterations is {iterations}; it must be >= 0")
    if binary_after is not None and binary_after < 0:
        raise ValueError(f"binary_after is {binary_after}; it must be >= 0, or None to keep the ramp")
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
    binary_after: int | None = None,
    part_weight: ArrayLike | Tensor | None = None,
    flip_penalty: float = 0.0,
    ignore: ArrayLike | Tensor | None = None,
    gradient: Gradient = "label-edge",
    supersample: Literal[1, 2, 4] = 1,
    loss: ImageLoss | None = None,
    final_shape_fn: ShapeFunction | None = None,
    patience: int | None = None,
    min_area: int = MIN_AREA,
    backend: BackendName = "auto",
) -> FitResult:
    """Fit variables so that the rendered parts of each photo cover its masks.

    Minimises ``loss(parts, targets) + prior * sum u^2 + flip_penalty * flips`` per photo by Adam on u, where each
    variable is ``x = initial + unit * u``; clamps to the bounds after every step; keeps the best iterate of each photo.
    ``learning_rate=1e-3`` with units of 1, ``prior=0`` and 20 iterations is NEO-3DF's own setting, which moves no value
    by more than .02.

    With ``binary_after`` the ramp only leads the way: it pulls where parts do not overlap yet, but its optimum is soft.
    Losses of the two phases cannot be compared, so once the targets are binary the best iterate is chosen among the
    iterates from there on and the start, all by the binary loss; ``patience`` counts from there on as well.

    A photo whose shape, loss or gradient stops being finite, or whose face is not in the image, is set aside: it keeps
    its best iterate, `FitResult.failed` and `reasons` say so, and the others go on. A photo without any part to fit
    keeps its start.

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
        binary_after: use binary targets from this many steps on; None, or a number that is not reached, for never.
        part_weight: (5,) what each part counts in the loss, >= 0; None for 1 each.
        flip_penalty: weight of the triangles that turn over, see `Orientation.penalty`; try .001.
        ignore: (B, H, W) bool, pixels that neither cost anything nor count in the overlap.
        gradient, supersample: see `PartRenderer`.
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
        ValueError: masks that do not fit the camera or the variables, ids outside 0..6, bad variables or weights, or
            no photo has finite vertices at the start.
    """
    began = time.perf_counter()
    masks = check_label_masks(target_masks, "target masks")
    unknowns = Unknowns(variables, prior)
    _check_inputs(masks, camera, unknowns.n_photos, iterations, binary_after, learning_rate)
    if not flip_penalty >= 0:
        raise ValueError(f"flip_penalty is {flip_penalty}; it must be >= 0")
    switch = binary_after if binary_after and binary_after <= iterations else None
    binary_start = binary_after == 0 or ramp_px == 0
    targets = mask_targets(
        masks, 0.0 if binary_start else ramp_px, ignore=ignore, min_area=min_area, part_weight=part_weight
    )
    renderer = PartRenderer(faces, labels, camera, gradient=gradient, backend=backend, supersample=supersample)
    final = shape_fn if final_shape_fn is None else final_shape_fn
    size = (unknowns.n_photos, renderer.n_vertices)

    best = Best(unknowns.steps, None if switch else patience)
    with torch.no_grad():
        before, no_start = _shape(final(unknowns.values()), *size)
        if bool(no_start.all()):
            raise ValueError("shape_fn returned vertices that are NaN or infinite at the start, in every photo")
        labels_before = renderer.labels(before).cpu().numpy()
    best.set_aside(no_start, "vertices are NaN or infinite at the start")
    best.set_aside(torch.from_numpy(~labels_before.any((1, 2))), "the face is not in the image at the start")
    best.finished |= ~targets.weight.any(1)
    orientation = Orientation(before, faces)

    image_loss = _image_loss(renderer, targets, loss)

    def objective(vertices: Tensor, steps: Tensor) -> Tensor:
        total = image_loss(vertices) + unknowns.prior(steps)
        return total + flip_penalty * orientation.penalty(vertices) if flip_penalty else total

    optimiser = torch.optim.Adam([unknowns.steps], lr=learning_rate)
    history: list[Tensor] = []
    for iteration in range(iterations + 1):
        if iteration == switch:
            binary = mask_targets(masks, 0.0, ignore=ignore, min_area=min_area, part_weight=part_weight)
            image_loss = _image_loss(renderer, binary, loss)
            with torch.no_grad():
                start = torch.zeros_like(unknowns.steps)
                vertices, _ = _shape(shape_fn(unknowns.values(start)), *size)
                best.restart(objective(vertices, start).double().cpu(), patience)
        vertices, bad = _shape(shape_fn(unknowns.values()), *size)
        best.set_aside(bad, f"vertices are NaN or infinite at iteration {iteration}")
        losses = objective(vertices, unknowns.steps)
        found = losses.detach().double().cpu().masked_fill(bad, torch.inf)
        best.set_aside(~torch.isfinite(found), f"the loss is NaN or infinite at iteration {iteration}")
        history.append(found.nan_to_num(torch.inf, torch.inf))
        best.update(history[-1], unknowns.steps, iteration)
        if iteration == iterations or bool(best.finished.all()):
            break
        best.set_aside(
            _descend(optimiser, losses, unknowns), f"the gradient is NaN or infinite at iteration {iteration}"
        )
        unknowns.restore(best.finished, best.steps)

    with torch.no_grad():
        after, no_end = _shape(final(unknowns.values(best.steps)), *size)
        best.forget(no_end & ~no_start, "vertices are NaN or infinite at the end")
        after = torch.where(_rows(no_end, after), before, after)
        labels_after = renderer.labels(after).cpu().numpy()
        before, after = (shape.masked_fill(_rows(no_start, shape), torch.nan) for shape in (before, after))
        realism = Realism.of(before, after, orientation, np.asarray(labels), unknowns.from_centre(best.steps))
    return FitResult(
        values=unknowns.values(best.steps),
        vertices=after,
        labels_before=labels_before,
        labels_after=labels_after,
        overlap_before=part_iou(labels_before, masks, ignore, min_area),
        overlap_after=part_iou(labels_after, masks, ignore, min_area),
        realism=realism,
        loss=torch.stack(history).numpy(),
        binary_from=0 if binary_start else switch if switch is not None and len(history) > switch else None,
        best_iteration=best.iteration.numpy(),
        failed=np.array([bool(reason) for reason in best.reasons]),
        reasons=tuple(best.reasons),
        iterations=len(history) - 1,
        seconds=time.perf_counter() - began,
    )


def _descend(optimiser: torch.optim.Optimizer, losses: Tensor, unknowns: Unknowns) -> Tensor:
    """One step down the (B,) losses within the bounds; which photos (B,) had a gradient that is not finite.

    Only the unknowns get a gradient: parameters inside the shape function neither cost time nor collect one.
    """
    (gradient,) = torch.autograd.grad(losses.sum(), unknowns.steps)
    bad = ~torch.isfinite(gradient).all(1)
    unknowns.steps.grad = gradient.masked_fill(bad[:, None], 0.0)
    optimiser.step()
    unknowns.clamp()
    return bad.cpu()
