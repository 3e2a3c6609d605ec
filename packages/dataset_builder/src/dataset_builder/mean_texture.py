"""Skin colours for a face model that has none: the mean of fitted photographs."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .camera import CropCamera
from .face_model import FaceModel, Float32, Int64
from .landmark_fit import FaceEstimate
from .normals import vertex_normals
from .preprocessing import check_crops
from .subdivision import mesh_edges
from .visibility import visible_vertices
from .voters import VertexVoters, nearest_seen

Array = NDArray[np.floating]
Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]

_BLOCK = 4096  # vertices averaged at a time
_FEWEST = 0.5  # summed weight below which a vertex counts as unseen
_SMOOTHING = 10  # passes over filled holes


def mean_texture(
    model: FaceModel,
    estimate: FaceEstimate,
    crops: UInt8,
    *,
    ignore: Bool | None = None,
    trim: float = 0.2,
) -> Float32:
    """Mean colour of each vertex over the photographs that show it.

    A photograph's weight at a vertex is the squared cosine between normal and view, 0 where the vertex is hidden. Per
    colour, the darkest and the brightest ``trim`` of the weight are left out: hair, highlights, shadows. Left and right
    of the face are one, so the light of many photographs has no side. Vertices that nobody shows take the colour of the
    nearest one along the mesh, smoothed.

    Args:
        model: the face.
        estimate: coefficients and pose of N photographs. Some hundred are plenty; 3 V bytes of each are kept.
        crops: (N, 224, 224, 3) uint8, the same photographs.
        ignore: (N, 224, 224) bool, pixels that show no face, or None.
        trim: share of the weight left out at either end, below 0.5.

    Returns:
        (V, 3) float32, sRGB in [0, 1]: an ``albedo`` with the photographs' mean shading in it.

    Raises:
        ValueError: shapes or numbers do not fit, ``trim`` is out of range, or no vertex is shown.
        ImportError: if open3d is not installed (extra ``photos``).
    """
    _check(estimate, crops, ignore, trim)
    colours = np.empty((len(crops), model.n_vertices, 3), np.uint8)
    weights = np.empty((len(crops), model.n_vertices), np.float32)
    for row, crop in enumerate(crops):
        vertices = estimate.posed(model, row)
        colours[row], inside = _sampled(crop, CropCamera().project(vertices), None if ignore is None else ignore[row])
        weights[row] = inside * _facing(vertices, model.faces)
    blocks = [slice(first, first + _BLOCK) for first in range(0, model.n_vertices, _BLOCK)]
    mean = np.concatenate([_trimmed_mean(colours[:, block], weights[:, block], trim) for block in blocks])
    weight = weights.sum(0)
    mirror = VertexVoters(model).mirror
    both = weight + weight[mirror]
    if both.max() < _FEWEST:
        raise ValueError("no vertex is shown by the photographs; check the estimated poses")
    mean = (mean * weight[:, None] + (mean * weight[:, None])[mirror]) / np.maximum(both, 1e-9)[:, None]
    filled = _fill(mean, both >= _FEWEST, model)
    return (filled / 255).clip(0, 1).astype(np.float32)


def _facing(vertices: Array, faces: Int64) -> Array:
    """Squared cosine (V,) between normal and direction to the camera, 0 for hidden vertices."""
    camera = CropCamera()
    view = np.array([0, 0, camera.distance]) - vertices
    cosine = (vertex_normals(vertices, faces) * view).sum(1) / np.linalg.norm(view, axis=1)
    return np.asarray(cosine.clip(0) ** 2 * visible_vertices(vertices, faces, camera))


def _sampled(crop: UInt8, pixels: Array, ignore: Bool | None) -> tuple[Array, Bool]:
    """Bilinear colours (V, 3) at pixels (V, 2), and which of them lie in the crop clear of ignored pixels."""
    last = len(crop) - 1
    at = pixels - 0.5
    inside = np.asarray(((at >= 0) & (at <= last)).all(1))
    corner = np.floor(at).clip(0, last - 1).astype(np.int64)
    part_way = (at - corner).clip(0, 1)
    colour = np.zeros((len(pixels), 3))
    for across in (0, 1):
        for down in (0, 1):
            column, row = corner[:, 0] + across, corner[:, 1] + down
            share = np.abs(1 - across - part_way[:, 0]) * np.abs(1 - down - part_way[:, 1])
            colour += share[:, None] * crop[row, column]
            if ignore is not None:
                inside &= ~ignore[row, column]
    return colour.round(), inside


def _trimmed_mean(colours: UInt8, weights: Array, trim: float) -> Array:
    """Weighted mean (V, 3) of (N, V, 3) without ``trim`` of the weight at either end; 0 without any weight."""
    order = colours.argsort(0, kind="stable")
    sorted_colours = np.take_along_axis(colours, order, 0)
    weight = np.take_along_axis(np.broadcast_to(weights[..., None], colours.shape), order, 0).astype(np.float64)
    total = weight.sum(0)
    end = weight.cumsum(0)
    kept = np.minimum(end, (1 - trim) * total) - np.maximum(end - weight, trim * total)
    kept = kept.clip(0)
    return (kept * sorted_colours).sum(0) / np.maximum(kept.sum(0), 1e-12)


def _fill(values: Array, known: Bool, model: FaceModel) -> Array:
    """Values (V, 3) with the unknown ones taken from the nearest known vertex and smoothed."""
    edges = mesh_edges(model.faces)
    filled = values[nearest_seen(model.mean, edges, known)]
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    ring = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(values), len(values)))
    valence = np.maximum(np.asarray(ring.sum(1)), 1)
    for _ in range(_SMOOTHING):
        filled = np.where(known[:, None], filled, (ring @ filled) / valence)
    return filled


def _check(estimate: FaceEstimate, crops: UInt8, ignore: Bool | None, trim: float) -> None:
    check_crops(crops)
    if not len(crops) or len(estimate) != len(crops):
        raise ValueError(f"{len(crops)} crops but {len(estimate)} estimated faces; both must be as many, 1 or more")
    if ignore is not None and ignore.shape != crops.shape[:3]:
        raise ValueError(f"ignore has shape {ignore.shape}, crops {crops.shape[:3]}")
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim is {trim}, must be 0 or more and below 0.5")
