"""Free-form registration: every vertex around the parts may move, smoothly, until the parts cover their masks.

A face model can only lay its parts on a mask as far as its own shapes allow; free motion shows what it lacks, which
is what `fitting.modes` learns from. The motion is ``x = start + S u`` with ``S = (I + smoothing L)^-1`` and L the
uniform graph Laplacian of the mesh, and Adam works on u (Nicolet, Jacobson and Jakob 2021): a force on one vertex
moves its neighbourhood, so triangles keep their order. S is symmetric, so its own adjoint; its entries are positive
and its rows sum to at most 1, so a bound on u bounds the motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csc_array, csr_array, diags_array, eye_array
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fitting.camera import Camera
from fitting.fit import fit_controls
from fitting.iou import PartOverlap
from fitting.parts import FIRST_PART_ID
from fitting.renderer import BackendName
from fitting.targets import MIN_AREA
from fitting.variables import Values, Variable


@dataclass(frozen=True)
class FreeForm:
    """Motion of B faces onto their masks.

    Attributes:
        displacement: (B, V, 3) float32 mm in the camera frame; z is 0. For the model frame of a pose R (`apply_pose`)
            multiply by R: ``displacement @ R``.
        overlap_before, overlap_after: overlap with the target masks at the start and after the motion.
        loss: (iterations + 1, B) float64; row i is the loss after i steps.
        flipped: (B,) share of triangles whose normal points the other way than at the start.
    """

    displacement: Tensor
    overlap_before: PartOverlap
    overlap_after: PartOverlap
    loss: NDArray[np.float64]
    flipped: NDArray[np.float64]


def _adjacency(faces: NDArray[np.int64], n_vertices: int) -> csr_array:
    """(V, V) 1 where two vertices share an edge."""
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ones = np.ones(2 * len(ends))
    rows, columns = np.concatenate([ends, ends[:, ::-1]]).T
    matrix = coo_array((ones, (rows, columns)), (n_vertices, n_vertices)).tocsr()
    matrix.data[:] = 1
    return matrix


class _Smoother:
    """S = (I + smoothing L)^-1 on the vertices at most ``rings`` edges from a part; the others stand still.

    Args:
        faces: (F, 3) integer. labels: (V,) label ids. smoothing: >= 0. rings: >= 0.
    """

    def __init__(self, faces: NDArray[np.int64], labels: NDArray[np.int64], smoothing: float, rings: int) -> None:
        adjacency = _adjacency(faces, len(labels))
        near = labels >= FIRST_PART_ID
        for _ in range(rings):
            near = near | (adjacency @ near.astype(float) > 0)
        self.vertices = np.flatnonzero(near)
        laplacian = diags_array(adjacency.sum(1)) - adjacency
        inner = laplacian.tocsr()[self.vertices][:, self.vertices]
        system = csc_array(eye_array(len(self.vertices)) + smoothing * inner)
        self._factor: SuperLU = splu(
            system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )

    def __call__(self, u: Tensor) -> Tensor:
        """(B, n, C) -> S u of the same shape, dtype and device, differentiable."""
        return _Smooth.apply(u, self)

    def solve(self, u: Tensor) -> Tensor:
        """S u without a gradient."""
        columns = u.detach().movedim(1, 0).reshape(len(self.vertices), -1)
        solved = torch.from_numpy(self._factor.solve(np.asarray(columns.cpu(), np.float64)))
        return solved.view(len(self.vertices), u.shape[0], u.shape[2]).movedim(0, 1).to(u)


class _Smooth(Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, smoother: _Smoother) -> Tensor:
        ctx.smoother = smoother
        return smoother.solve(u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.smoother.solve(grad), None


def _check(vertices: Tensor, labels: NDArray[np.int64], settings: dict[str, float]) -> None:
    if vertices.ndim != 3 or vertices.shape[1:] != (len(labels), 3):
        raise ValueError(f"vertices have shape {tuple(vertices.shape)}; expected (B, {len(labels)}, 3), camera frame")
    bad = ~torch.isfinite(vertices).flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(f"vertices are NaN or infinite, photos {bad.nonzero().flatten().tolist()}")
    for name, value in settings.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}; it must be >= 0")
    if not (labels >= FIRST_PART_ID).any():
        raise ValueError("no vertex is labelled as a part; there is nothing to register")


def register_free_form(
    vertices: Tensor,
    target_masks: ArrayLike | Tensor,
    camera: Camera,
    *,
    faces: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    ignore: ArrayLike | Tensor | None = None,
    iterations: int = 60,
    learning_rate: float = 0.1,
    smoothing: float = 10.0,
    rings: int = 8,
    limit_mm: float = 6.0,
    prior: float = 1e-3,
    ramp_px: float = 5.0,
    min_area: int = MIN_AREA,
    backend: BackendName = "auto",
) -> FreeForm:
    """Move the vertices around the parts in the image plane until the rendered parts cover their masks.

    Minimises ``region loss + prior * mean of u^2 (mm^2)`` per photo by Adam on u of the module's ``x = start + S u``.
    Masks show nothing of depth, so z stays as it is.

    Args:
        vertices: (B, V, 3) mm, camera frame: the best fit of the face model.
        target_masks: (B, H, W) label ids 0 to 6 in the camera's image.
        camera: the camera.
        faces: (F, 3) integer.
        labels: (V,) vertex label ids 1 to 6.
        ignore: (B, H, W) bool, pixels that neither cost anything nor count in the overlap.
        iterations: Adam steps.
        learning_rate: of u, mm per step.
        smoothing: lambda of S; motion spreads over about its square root edges.
        rings: vertices more than this number of edges from every part do not move.
        limit_mm: bound of u and so of the motion, for x and y each.
        prior: weight of the mean square of u.
        ramp_px: half width of the targets' distance ramp, see `mask_targets`.
        min_area: target parts with fewer pixels cost nothing and are not counted.
        backend: see `Renderer`.

    Returns:
        FreeForm.

    Raises:
        ValueError: wrong shapes, ids outside 0..6, no part, a negative setting, or vertices that are not finite.
    """
    ids, triangles = np.asarray(labels, np.int64), np.asarray(faces, np.int64)
    start = vertices.detach()
    _check(start, ids, {"smoothing": smoothing, "rings": rings, "limit_mm": limit_mm})
    smoother = _Smoother(triangles, ids, smoothing, rings)
    moving = torch.from_numpy(smoother.vertices).to(start.device)
    n = len(moving)

    def motion(values: Values) -> Tensor:
        in_plane = smoother(values["u"].view(-1, n, 2))
        return torch.zeros_like(start).index_copy(1, moving, torch.nn.functional.pad(in_plane, (0, 1)))

    u = Variable(start.new_zeros(len(start), 2 * n), 1.0, -limit_mm, limit_mm, prior / (2 * n))
    result = fit_controls(
        lambda values: start + motion(values),
        {"u": u},
        target_masks,
        camera,
        faces=triangles,
        labels=ids,
        iterations=iterations,
        learning_rate=learning_rate,
        ramp_px=ramp_px,
        ignore=ignore,
        min_area=min_area,
        backend=backend,
    )
    with torch.no_grad():
        displacement = motion(result.values)
    return FreeForm(displacement, result.overlap_before, result.overlap_after, result.loss, result.flipped)
