"""The exact affine subspace in which the (re-centred) shapes of one region live.

Re-centring subtracts ``(y_c, z_c)``, which depends on the shape nonlinearly, but it moves vertices along two fixed
directions only. So the re-centred region of a linear face model with K modes lies exactly in ``span[basis, e_y, e_z]``,
an affine space of at most K + 2 dimensions. In orthonormal coordinates of that space every squared vertex error and
every quadratic smoothness term keeps its value, and a step of training costs K + 2 numbers per face instead of 3n.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segmodel._mesh import cotangent_laplacian
from segmodel.linear import LinearShapes

Float64 = NDArray[np.float64]

_RANK_TOLERANCE = 1e-7  # of the largest singular value; float32 bases carry no information below it


@dataclass(frozen=True)
class Subspace:
    """``shape = mean + basis @ u``: ``mean (3n,)``, orthonormal ``basis (3n, r)``, float64, mm.

    ``variance (r,)`` holds the variances of ``u`` over the fitted rows in mm^2, descending: the axes are PCA axes.
    """

    mean: Float64
    basis: Float64
    variance: Float64


def fit_subspace(shapes: LinearShapes, centres: Tensor | None, rows: NDArray[np.int64]) -> Subspace:
    """PCA axes, over ``rows``, of the exact subspace of a region's shapes minus their ``centres (N, 2)`` (or None)."""
    directions, coefficients = _affine_form(shapes, centres, np.arange(len(shapes)))
    centre = coefficients[rows].mean(axis=0)
    orthonormal, triangle = np.linalg.qr(directions)
    left, singular, right = np.linalg.svd(triangle)
    keep = singular > _RANK_TOLERANCE * singular[0]
    points = (coefficients[rows] - centre) @ (singular[keep, None] * right[keep]).T
    variance, axes = np.linalg.eigh(points.T @ points / len(rows))
    order = np.argsort(variance)[::-1]
    return Subspace(
        mean=_flat_mean(shapes) + directions @ centre,
        basis=orthonormal @ (left[:, keep] @ axes[:, order]),
        variance=np.maximum(variance[order], 0.0),
    )


def coordinates(
    mean: Tensor, basis: Tensor, shapes: LinearShapes, centres: Tensor | None, rows: NDArray[np.int64]
) -> Tensor:
    """Orthonormal coordinates ``basis.T @ (shape - centre - mean)`` of the given rows, ``(len(rows), r)`` float32.

    ``mean (3n,)`` and ``basis (3n, r)`` describe the subspace. No mesh is built: the cost is that of a small matrix
    product per row.
    """
    directions, coefficients = _affine_form(shapes, centres, rows)
    axes = basis.detach().cpu().double().numpy()
    origin = axes.T @ (_flat_mean(shapes) - mean.detach().cpu().double().numpy())
    return torch.from_numpy(coefficients @ (axes.T @ directions).T + origin).float()


def smoothness_factor(
    subspace: Subspace, template: NDArray[np.float32], faces: NDArray[np.int64], weight: float
) -> Tensor:
    """Lower triangular ``S (r, r)`` float32 with ``|e S|^2 = |e|^2 + weight * |Lambda (basis e)|^2`` for row vectors e.

    ``Lambda`` is the row-normalised cotangent Laplacian of the region on its ``template (n, 3)``; so one small product
    gives reconstruction plus smoothness loss exactly.
    """
    differential = _differential(subspace.basis, template, faces)
    gram = weight * (differential.T @ differential)
    return torch.from_numpy(np.linalg.cholesky(np.eye(len(gram)) + gram)).float()


@dataclass(frozen=True)
class ShapePenalty:
    """``|u T + t|^2 + c = weight * |Lambda (mean + basis u)|^2`` for every row vector of coordinates u.

    ``factor`` T ``(r, r)``, ``offset`` t ``(1, r)`` mm and ``constant`` c ``(1, 1)`` mm^2, float32: the smoothness of a
    shape itself, not of its difference to another, costs one small product too.
    """

    factor: Tensor
    offset: Tensor
    constant: Tensor


def shape_penalty(
    subspace: Subspace, template: NDArray[np.float32], faces: NDArray[np.int64], weight: float
) -> ShapePenalty:
    """The absolute smoothness of a region with this ``template (n, 3)``, by QR of ``Lambda [basis, mean]``.

    The shapes of a part are re-centred; ``Lambda`` does not see that.
    """
    rank = subspace.basis.shape[1]
    columns = np.column_stack([subspace.basis, subspace.mean])
    upper = np.linalg.qr(_differential(columns, template, faces), mode="r")
    triangle = np.zeros((rank + 1, rank + 1))
    triangle[: len(upper)] = np.sqrt(weight) * upper
    return ShapePenalty(
        factor=torch.from_numpy(triangle[:rank, :rank].T.copy()).float(),
        offset=torch.from_numpy(triangle[None, :rank, rank].copy()).float(),
        constant=torch.from_numpy(triangle[rank:, rank:] ** 2).float(),
    )


def _differential(columns: Float64, template: NDArray[np.float32], faces: NDArray[np.int64]) -> Float64:
    """Cotangent Laplacian coordinates ``(3n, k)`` of ``columns (3n, k)``."""
    width = columns.shape[1]
    laplacian = cotangent_laplacian(template, faces)
    return (laplacian @ columns.reshape(len(template), 3 * width)).reshape(-1, width)


def _flat_mean(shapes: LinearShapes) -> Float64:
    return shapes.mean.double().numpy().ravel()


def _affine_form(shapes: LinearShapes, centres: Tensor | None, rows: NDArray[np.int64]) -> tuple[Float64, Float64]:
    """``directions (3n, K')`` and ``coefficients (len(rows), K')`` with ``shape - centre = mean + directions @ c``."""
    n_modes = shapes.basis.shape[2]
    directions = shapes.basis.double().numpy().reshape(-1, n_modes)
    coefficients = shapes.coefficients.numpy()[rows].astype(np.float64)
    if centres is None:
        return directions, coefficients
    axes = np.zeros((shapes.n_vertices, 3, 2))
    axes[:, 1, 0] = axes[:, 2, 1] = -1.0
    return (
        np.hstack([directions, axes.reshape(-1, 2)]),
        np.hstack([coefficients, centres.numpy()[rows].astype(np.float64)]),
    )
