"""Analytic antialiasing of silhouette edges on the CPU (Laine et al. 2020, section 3.6), with its gradient.

For two neighbouring pixels seen by different triangles, the nearer triangle is searched for a silhouette edge
that crosses the line between the two pixel centres: an edge that is a border of the mesh or whose two
triangles lie on the same side of it. If the edge crosses at the fraction s of the way from the nearer pixel p
to the other pixel q, then p's surface covers q beyond its border by s - 1/2 (if positive), or q's shows in p
by 1/2 - s, and the colours are mixed by that area. s depends on the edge's vertices, which is where the
gradient of occlusion comes from. Only triangles that own a pixel are seen, so it finds few silhouettes on
meshes whose triangles are smaller than a pixel; use the label-edge force there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fitting._types import Array

_TOLERANCE = 1.0 / 16.0
UNKNOWN = 255
"""Silhouette edges of a triangle that nobody has asked for yet."""


def opposite_vertices(faces: np.ndarray) -> np.ndarray:
    """For the edge opposite to each corner, the far vertex of the triangle on its other side.

    Args:
        faces: (F, 3) integer.

    Returns:
        (F, 3) int32; -1 where the edge has no neighbour or more than one.
    """
    faces = np.asarray(faces, np.int64)
    corners = faces.reshape(-1)
    ends = np.stack([np.roll(faces, -1, 1).reshape(-1), np.roll(faces, -2, 1).reshape(-1)], 1)
    ends.sort(1)
    key = ends[:, 0] * (faces.max(initial=0) + 1) + ends[:, 1]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    pairs = starts[np.diff(starts, append=len(key)) == 2]
    first, second = order[pairs], order[pairs + 1]
    opposite = np.full(len(key), -1, np.int32)
    opposite[first], opposite[second] = corners[second], corners[first]
    return opposite.reshape(faces.shape)


@njit(cache=True, nogil=True, error_model="numpy")
def _project(clip: Array, height: int, width: int, screen: Array) -> None:
    """Overwrite screen (V,2) float64 with the columns and rows of one image's vertices."""
    for v in range(clip.shape[0]):
        inverse = 1.0 / float(clip[v, 3])
        screen[v, 0] = (clip[v, 0] * inverse + 1.0) * 0.5 * width
        screen[v, 1] = (clip[v, 1] * inverse + 1.0) * 0.5 * height


@njit(cache=True, nogil=True)
def _silhouette_edges(clip: Array, screen: Array, faces: Array, opposite: Array, f: int) -> int:
    """Bit e is set if the edge opposite to corner e of triangle f is a border or folded over."""
    edges = 0
    for edge in range(3):
        d = opposite[f, edge]
        if d >= 0 and clip[d, 3] > 0.0:
            a, b, c = faces[f, (edge + 1) % 3], faces[f, (edge + 2) % 3], faces[f, edge]
            ax, ay = screen[a, 0], screen[a, 1]
            ex, ey = screen[b, 0] - ax, screen[b, 1] - ay
            side_c = ex * (screen[c, 1] - ay) - ey * (screen[c, 0] - ax)
            side_d = ex * (screen[d, 1] - ay) - ey * (screen[d, 0] - ax)
            if side_c * side_d < 0.0:
                continue
        edges |= 1 << edge
    return edges


@njit(cache=True, nogil=True, error_model="numpy")
def _crossing(
    screen: Array, faces: Array, f: int, edges: int, row: int, column: int, axis: int, step: float
) -> tuple[int, float, float, float]:
    """Silhouette edge of triangle f between pixel (row, column) and its neighbour `step` px along `axis` (0 = x).

    Returns (edge, s, t, slope): the corner opposite to the edge (-1: none), the crossing s in pixels from the
    pixel centre, its place t along the edge, and the edge's slope along/across.
    """
    along_centre, across_centre = (column + 0.5, row + 0.5) if axis == 0 else (row + 0.5, column + 0.5)
    for edge in range(3):
        if not edges & (1 << edge):
            continue
        a, b = faces[f, (edge + 1) % 3], faces[f, (edge + 2) % 3]
        a_across, b_across = screen[a, 1 - axis], screen[b, 1 - axis]
        if (a_across <= across_centre) == (b_across <= across_centre):
            continue
        a_along, b_along = screen[a, axis], screen[b, axis]
        if abs(b_across - a_across) < abs(b_along - a_along):
            continue
        t = (across_centre - a_across) / (b_across - a_across)
        slope = (b_along - a_along) / (b_across - a_across)
        s = step * (a_along + t * (b_along - a_along) - along_centre)
        if -_TOLERANCE <= s <= 1.0 + _TOLERANCE:
            return edge, s, t, slope
    return -1, 0.0, 0.0, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def antialias(
    clip: Array,
    faces: Array,
    opposite: Array,
    silhouettes: Array,
    raster: Array,
    image: Array,
    grad_out: Array,
    out: Array,
    grad_clip: Array,
) -> None:
    """Forward and backward in one pass over the pixel pairs.

    Forward (grad_out has 0 images): `out` is image on entry and the antialiased image on return. Backward:
    `out` is grad_out on entry and the gradient of image on return; the gradient of clip (B,V,4) is added to
    grad_clip. image, grad_out and out are (B,H,W,C); silhouettes (B,F) uint8 remembers the silhouette edges of
    the triangles, UNKNOWN before the first pass.
    """
    batch, height, width, channels = image.shape
    backward = grad_out.shape[0] > 0
    screen = np.empty((clip.shape[1], 2))
    for b in range(batch):
        _project(clip[b], height, width, screen)
        for row in range(height):
            for column in range(width):
                for axis in range(2):
                    row2, column2 = row + axis, column + 1 - axis
                    if row2 >= height or column2 >= width:
                        continue
                    id1, id2 = raster[b, row, column, 3], raster[b, row2, column2, 3]
                    if id1 == id2:
                        continue
                    first_nearer = id2 == 0.0 or (id1 > 0.0 and raster[b, row, column, 2] < raster[b, row2, column2, 2])
                    if first_nearer:
                        pr, pc, qr, qc, step, f = row, column, row2, column2, 1.0, int(id1) - 1
                    else:
                        pr, pc, qr, qc, step, f = row2, column2, row, column, -1.0, int(id2) - 1
                    if silhouettes[b, f] == UNKNOWN:
                        silhouettes[b, f] = _silhouette_edges(clip[b], screen, faces, opposite, f)
                    if silhouettes[b, f] == 0:
                        continue
                    edge, s, t, slope = _crossing(screen, faces, f, silhouettes[b, f], pr, pc, axis, step)
                    if edge < 0:
                        continue
                    saturated = s <= 0.0 or s >= 1.0
                    amount = min(max(s, 0.0), 1.0) - 0.5
                    er, ec = (qr, qc) if amount > 0.0 else (pr, pc)
                    if not backward:
                        for channel in range(channels):
                            out[b, er, ec, channel] += amount * (image[b, pr, pc, channel] - image[b, qr, qc, channel])
                        continue
                    grad_s = 0.0
                    for channel in range(channels):
                        g = grad_out[b, er, ec, channel]
                        grad_s += g * (image[b, pr, pc, channel] - image[b, qr, qc, channel])
                        out[b, pr, pc, channel] += amount * g
                        out[b, qr, qc, channel] -= amount * g
                    if saturated:
                        continue
                    grad_s *= step
                    for end in range(2):
                        v = faces[f, (edge + 1 + end) % 3]
                        share = (1.0 - t) if end == 0 else t
                        w = float(clip[b, v, 3])
                        g_along, g_across = grad_s * share, -grad_s * share * slope
                        gx, gy = (g_along, g_across) if axis == 0 else (g_across, g_along)
                        gx, gy = gx * 0.5 * width / w, gy * 0.5 * height / w
                        grad_clip[b, v, 0] += gx
                        grad_clip[b, v, 1] += gy
                        grad_clip[b, v, 3] -= (gx * clip[b, v, 0] + gy * clip[b, v, 1]) / w
