"""CPU rasteriser: which triangle owns a pixel and where on it, and the gradient of "where".

Conventions follow hardware rasterisers (Laine et al., Modular Primitives for High-Performance Differentiable
Rendering, 2020): positions are homogeneous clip space with w > 0 in front, pixel (c, r) has its centre at
ndc ((2c+1)/W - 1, (2r+1)/H - 1), and a raster image holds (u, v, z/w, id+1) per pixel, with u, v the
perspective-correct weights of the triangle's vertices 0 and 1 and id+1 = 0 where nothing is seen.

Coverage is decided in integers: vertices are rounded (half to even) to 1/16 px and an edge owns the pixel
centres that lie on it only if it is a left edge or a horizontal edge of lowest row, so that triangles that
share an edge never both draw, nor both miss, a pixel. Weights and depth come from the unrounded positions in
float64. Triangles are drawn whatever their winding; those with a vertex at w <= 0 are dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from fitting._types import Array

SUBPIXEL_BITS = 4
_ONE = 1 << SUBPIXEL_BITS
_HALF = _ONE >> 1
_OFF = np.int32(-(1 << 30))
_LARGEST = 1 << 24


@njit(cache=True, nogil=True, error_model="numpy")
def _snap_vertices(
    clip: Array, height: int, width: int, x: Array, y: Array, z: Array, inverse_w: Array, snapped: Array
) -> int:
    """Screen positions of one image's vertices; returns the first vertex that is not finite, or -1."""
    for v in range(clip.shape[0]):
        w = float(clip[v, 3])
        total = clip[v, 0] + clip[v, 1] + clip[v, 2] + clip[v, 3]
        if not np.isfinite(total):
            return v
        snapped[v, 0] = _OFF
        if w <= 0.0:
            continue
        inverse = 1.0 / w
        column = (clip[v, 0] * inverse + 1.0) * 0.5 * width
        row = (clip[v, 1] * inverse + 1.0) * 0.5 * height
        if abs(column) < _LARGEST and abs(row) < _LARGEST:
            x[v] = column
            y[v] = row
            z[v] = clip[v, 2] * inverse
            inverse_w[v] = inverse
            snapped[v, 0] = np.int32(np.rint(column * _ONE))
            snapped[v, 1] = np.int32(np.rint(row * _ONE))
    return -1


@njit(cache=True, nogil=True)
def _centres_between(low: Any, high: Any, size: int) -> tuple[int, int]:
    """First and last pixel whose centre lies in [low, high] sixteenths of a pixel, within an axis of `size` px."""
    return max((low + _HALF - 1) >> SUBPIXEL_BITS, 0), min((high - _HALF) >> SUBPIXEL_BITS, size - 1)


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(faces: Array, x: Array, y: Array, z: Array, snapped: Array, owner: Array, nearest: Array) -> None:
    """Z-buffer all triangles into owner (H,W) int32 (-1 = empty) and nearest (H,W) float32 z/w."""
    height, width = owner.shape
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        xi, xj, xk = np.int64(snapped[i, 0]), np.int64(snapped[j, 0]), np.int64(snapped[k, 0])
        if min(xi, xj, xk) == _OFF:
            continue
        first_column, last_column = _centres_between(min(xi, xj, xk), max(xi, xj, xk), width)
        if first_column > last_column:
            continue
        yi, yj, yk = np.int64(snapped[i, 1]), np.int64(snapped[j, 1]), np.int64(snapped[k, 1])
        first_row, last_row = _centres_between(min(yi, yj, yk), max(yi, yj, yk), height)
        if first_row > last_row:
            continue
        doubled_area = (xj - xi) * (yk - yi) - (xk - xi) * (yj - yi)
        if doubled_area == 0:
            continue
        if doubled_area < 0:
            j, k = k, j
            xj, xk = xk, xj
            yj, yk = yk, yj
        ax, ay = xj - xi, yj - yi
        bx, by = xk - xj, yk - yj
        cx, cy = xi - xk, yi - yk
        a_least = 0 if ay < 0 or (ay == 0 and ax > 0) else 1
        b_least = 0 if by < 0 or (by == 0 and bx > 0) else 1
        c_least = 0 if cy < 0 or (cy == 0 and cx > 0) else 1

        for row in range(first_row, last_row + 1):
            py = row * _ONE + _HALF
            for column in range(first_column, last_column + 1):
                px = column * _ONE + _HALF
                if (
                    ax * (py - yi) - ay * (px - xi) < a_least
                    or bx * (py - yj) - by * (px - xj) < b_least
                    or cx * (py - yk) - cy * (px - xk) < c_least
                ):
                    continue
                x0, y0, z0 = x[i], y[i], z[i]
                x1, y1, x2, y2 = x[j] - x0, y[j] - y0, x[k] - x0, y[k] - y0
                dx, dy = column + 0.5 - x0, row + 0.5 - y0
                area = x1 * y2 - x2 * y1
                slope = ((dx * y2 - x2 * dy) * (z[j] - z0) + (x1 * dy - dx * y1) * (z[k] - z0)) / area
                depth = z0 + slope if area != 0.0 else z0
                depth = np.float32(min(max(depth, min(z0, z[j], z[k])), max(z0, z[j], z[k])))
                if depth <= nearest[row, column]:
                    nearest[row, column] = depth
                    owner[row, column] = f


@njit(cache=True, nogil=True, error_model="numpy")
def rasterise(clip: Array, faces: Array, raster: Array) -> int:
    """Rasterise a batch.

    clip (B,V,4) float32, faces (F,3) int32, raster (B,H,W,4) float32 is overwritten with (u, v, z/w, id+1).
    Returns the flat index b*V+v of the first vertex that is not finite, or -1. Equal depth: the later
    triangle wins.
    """
    batch, height, width = raster.shape[:3]
    n_vertices = clip.shape[1]
    x, y, z, inverse_w = np.empty(n_vertices), np.empty(n_vertices), np.empty(n_vertices), np.empty(n_vertices)
    snapped = np.empty((n_vertices, 2), np.int32)
    owner = np.empty((height, width), np.int32)
    nearest = np.empty((height, width), np.float32)
    for b in range(batch):
        bad = _snap_vertices(clip[b], height, width, x, y, z, inverse_w, snapped)
        if bad >= 0:
            return b * n_vertices + bad
        owner[:] = -1
        nearest[:] = np.inf
        _draw(faces, x, y, z, snapped, owner, nearest)
        for row in range(height):
            for column in range(width):
                f = owner[row, column]
                if f < 0:
                    for channel in range(4):
                        raster[b, row, column, channel] = 0.0
                    continue
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                px, py = column + 0.5, row + 0.5
                xi, yi, xj, yj, xk, yk = x[i] - px, y[i] - py, x[j] - px, y[j] - py, x[k] - px, y[k] - py
                wi, wj, wk = xj * yk - xk * yj, xk * yi - xi * yk, xi * yj - xj * yi
                sign = 1.0 if wi + wj + wk > 0.0 else -1.0
                wi = max(sign * wi, 0.0) * inverse_w[i]
                wj = max(sign * wj, 0.0) * inverse_w[j]
                wk = max(sign * wk, 0.0) * inverse_w[k]
                total = wi + wj + wk
                if total <= 0.0:  # a sliver that rounding turned over
                    wi = wj = wk = 1.0
                    total = 3.0
                raster[b, row, column, 0] = wi / total
                raster[b, row, column, 1] = wj / total
                raster[b, row, column, 2] = nearest[row, column]
                raster[b, row, column, 3] = f + 1
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def rasterise_backward(clip: Array, faces: Array, raster: Array, grad_raster: Array, grad_clip: Array) -> None:
    """Add to grad_clip (B,V,4) the gradient of u and v in grad_raster (B,H,W,4); z/w and id have none.

    With p_i = (x_i - X w_i, y_i - Y w_i) for pixel centre (X, Y) in ndc, u = (p_1 x p_2) / A and
    v = (p_2 x p_0) / A, where A is the sum of the three cross products.
    """
    batch, height, width = raster.shape[:3]
    for b in range(batch):
        for row in range(height):
            centre_y = (2.0 * row + 1.0) / height - 1.0
            for column in range(width):
                f = int(raster[b, row, column, 3]) - 1
                gu, gv = float(grad_raster[b, row, column, 0]), float(grad_raster[b, row, column, 1])
                if f < 0 or (gu == 0.0 and gv == 0.0):
                    continue
                centre_x = (2.0 * column + 1.0) / width - 1.0
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                xi, yi = clip[b, i, 0] - centre_x * clip[b, i, 3], clip[b, i, 1] - centre_y * clip[b, i, 3]
                xj, yj = clip[b, j, 0] - centre_x * clip[b, j, 3], clip[b, j, 1] - centre_y * clip[b, j, 3]
                xk, yk = clip[b, k, 0] - centre_x * clip[b, k, 3], clip[b, k, 1] - centre_y * clip[b, k, 3]
                area = (xj * yk - xk * yj) + (xk * yi - xi * yk) + (xi * yj - xj * yi)
                if area == 0.0:
                    continue
                mean = gu * raster[b, row, column, 0] + gv * raster[b, row, column, 1]
                gi, gj, gk = (gu - mean) / area, (gv - mean) / area, -mean / area
                _add(grad_clip[b, i], gk * yj - gj * yk, gj * xk - gk * xj, centre_x, centre_y)
                _add(grad_clip[b, j], gi * yk - gk * yi, gk * xi - gi * xk, centre_x, centre_y)
                _add(grad_clip[b, k], gj * yi - gi * yj, gi * xj - gj * xi, centre_x, centre_y)


@njit(cache=True, nogil=True, inline="always")
def _add(grad: Array, gx: float, gy: float, centre_x: float, centre_y: float) -> None:
    grad[0] += gx
    grad[1] += gy
    grad[3] -= centre_x * gx + centre_y * gy


@njit(cache=True, nogil=True)
def interpolate(attributes: Array, faces: Array, raster: Array, image: Array) -> None:
    """Overwrite image (B,H,W,C) with attributes (1 or B,V,C) at the surface points of raster; 0 where empty."""
    batch, height, width, channels = image.shape
    for b in range(batch):
        a = b if attributes.shape[0] > 1 else 0
        for row in range(height):
            for column in range(width):
                f = int(raster[b, row, column, 3]) - 1
                if f < 0:
                    for channel in range(channels):
                        image[b, row, column, channel] = 0.0
                    continue
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                u, v = raster[b, row, column, 0], raster[b, row, column, 1]
                t = np.float32(1.0) - u - v
                for channel in range(channels):
                    image[b, row, column, channel] = (
                        u * attributes[a, i, channel] + v * attributes[a, j, channel] + t * attributes[a, k, channel]
                    )


@njit(cache=True, nogil=True)
def interpolate_backward(
    attributes: Array, faces: Array, raster: Array, grad_image: Array, grad_attributes: Array, grad_raster: Array
) -> None:
    """Gradients of `interpolate`: adds to grad_attributes (may have 0 images: skipped), sets u, v of grad_raster."""
    batch, height, width, channels = grad_image.shape
    shared = attributes.shape[0] == 1
    wanted = grad_attributes.shape[0] > 0
    for b in range(batch):
        a = 0 if shared else b
        for row in range(height):
            for column in range(width):
                f = int(raster[b, row, column, 3]) - 1
                if f < 0 or not grad_image[b, row, column].any():
                    continue
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                u, v = raster[b, row, column, 0], raster[b, row, column, 1]
                t = np.float32(1.0) - u - v
                gu, gv = 0.0, 0.0
                for channel in range(channels):
                    g = grad_image[b, row, column, channel]
                    last = attributes[a, k, channel]
                    gu += g * (attributes[a, i, channel] - last)
                    gv += g * (attributes[a, j, channel] - last)
                    if wanted:
                        grad_attributes[a, i, channel] += g * u
                        grad_attributes[a, j, channel] += g * v
                        grad_attributes[a, k, channel] += g * t
                grad_raster[b, row, column, 0] = gu
                grad_raster[b, row, column, 1] = gv


@njit(cache=True, nogil=True)
def transform(points: Array, weight: Array, bias: Array, clip: Array) -> None:
    """Overwrite clip (B,V,4) with weight (4,3) @ point + bias (4,) of points (B,V,3)."""
    for b in range(points.shape[0]):
        for v in range(points.shape[1]):
            x, y, z = points[b, v, 0], points[b, v, 1], points[b, v, 2]
            for row in range(4):
                clip[b, v, row] = weight[row, 0] * x + weight[row, 1] * y + weight[row, 2] * z + bias[row]


@njit(cache=True, nogil=True)
def transform_backward(weight: Array, grad_clip: Array, grad_points: Array) -> None:
    """Overwrite grad_points (B,V,3) with weight^T @ grad_clip."""
    for b in range(grad_clip.shape[0]):
        for v in range(grad_clip.shape[1]):
            gx, gy, gz, gw = grad_clip[b, v, 0], grad_clip[b, v, 1], grad_clip[b, v, 2], grad_clip[b, v, 3]
            for column in range(3):
                grad_points[b, v, column] = (
                    weight[0, column] * gx + weight[1, column] * gy + weight[2, column] * gz + weight[3, column] * gw
                )
