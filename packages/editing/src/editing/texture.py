"""Colours from one photo onto a face: what it shows, the mirrored side where it does not, and a smooth rest.

The photo's light stays in the colours. Everything here is in sRGB from 0 to 1, as photos are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import distance_transform_edt
from scipy.sparse.linalg import splu

Array = NDArray[np.floating]
Int64 = NDArray[np.int64]

_PULL = 100.0  # how much more a colour that is seen counts than a difference between neighbours
_REST = 1e-6  # pull of the mean colour, for a piece of the mesh that nobody shows
_FEATHER = 4  # rings of vertices over which a border of what is seen is faded
_SKIN, _STRANGE = 2.0, 3.0  # standard deviations of skin colour: surely skin below, surely not above
_NOISE = 0.04  # of the colours of one skin, whatever the sample says
_MARGIN = 8  # texels that a chart's border colours reach beyond it


@dataclass(frozen=True)
class Sight:
    """What one photo shows at N points of a surface.

    Attributes:
        colours: ``(N, 3)`` sRGB from 0 to 1; any where nothing is seen.
        weight: ``(N,)`` how far to believe them: 0 hidden, 1 seen from the front.
    """

    colours: Array
    weight: Array


@dataclass(frozen=True)
class TexelMap:
    """Which point of the mesh each of the covered texels of a picture shows.

    Attributes:
        covered: ``(H, W)`` bool with N texels; row 0 is v = 1.
        triangle: ``(N,)`` ids.
        weights: ``(N, 3)`` barycentric.
    """

    covered: NDArray[np.bool_]
    triangle: Int64
    weights: Array

    def at(self, values: Array, faces: Int64) -> Array:
        """Values ``(V,)`` or ``(V, C)`` of the vertices at the covered texels, ``(N,)`` or ``(N, C)``."""
        return np.einsum("nk,nk...->n...", self.weights, values[faces[self.triangle]])


def sample_photo(image: NDArray[np.uint8], pixels: Array) -> Array:
    """Bilinear colours ``(N, 3)``, 0 to 1, of an image ``(H, W, 3)`` at ``(N, 2)`` (column, row), centres at +0.5."""
    last = np.array(image.shape[1::-1]) - 1
    at = (pixels - 0.5).clip(0, last)
    corner = np.floor(at).astype(np.int64)
    share = at - corner
    beyond = np.minimum(corner + 1, last)
    colour = np.zeros((len(pixels), 3))
    for column, across in ((corner[:, 0], 1 - share[:, 0]), (beyond[:, 0], share[:, 0])):
        for row, down in ((corner[:, 1], 1 - share[:, 1]), (beyond[:, 1], share[:, 1])):
            colour += (across * down)[:, None] * image[row, column]
    return colour / 255


def feathered(weight: Array, faces: Int64) -> Array:
    """Weights ``(V,)`` that fall off towards what is hidden, over some rings of vertices, and are nowhere raised."""
    ring = _ring_mean(faces, len(weight))
    for _ in range(_FEATHER):
        weight = np.minimum(weight, ring @ weight)
    return weight


def without_strangers(
    seen: Sight, faces: Int64, skin: NDArray[np.bool_], inner: NDArray[np.bool_], mirror: Int64
) -> Sight:
    """The same without what one side shows unlike skin and the other does not: hair, background beside the face.

    For photos without a mask. A beard has both sides and stays; so does what the other side cannot judge.

    Args:
        seen: at the V vertices.
        faces: ``(F, 3)``.
        skin: ``(V,)`` which vertices should show skin.
        inner: ``(V,)`` which of them nothing hides: their colours say what skin is here.
        mirror: ``(V,)`` the vertex on the other side.
    """
    ring = _ring_mean(faces, len(seen.weight))
    sample = skin & inner & (seen.weight > 0.5)
    if sample.sum() < (skin & inner).sum() / 10:
        return seen
    share = np.maximum(ring @ (ring @ skin.astype(float)), 1e-9)
    smooth = (ring @ (ring @ (skin[:, None] * seen.colours))) / share[:, None]
    centre = np.median(smooth[sample], axis=0)
    spread = np.cov(smooth[sample].T) + _NOISE**2 * np.eye(3)
    offset = smooth - centre
    distance = np.sqrt(np.einsum("vi,ij,vj->v", offset, np.linalg.inv(spread), offset))
    strange = skin & (distance > _STRANGE) & (distance[mirror] < _SKIN) & (seen.weight[mirror] > 0)
    reach = strange.astype(float)
    for _ in range(_FEATHER):
        reach = ring @ reach
    return Sight(seen.colours, np.where(skin & (reach > 0), 0, seen.weight))


def fill_colours(seen: Sight, faces: Int64, mirror: Int64 | None = None) -> Array:
    """Colours of all vertices from those that the photo shows.

    Least squares over the edges of the mesh (Perez et al. 2003): differences between neighbours are those of the photo
    where both are seen, those of the mirrored side where that is, and 0 elsewhere; colours that are seen are kept. So a
    hidden cheek has the other one's pores and shadows at the brightness of its own surroundings, without a seam.

    Args:
        seen: at the V vertices.
        faces: ``(F, 3)``.
        mirror: ``(V,)`` the vertex on the other side, or None when unknown.

    Returns:
        ``(V, 3)`` sRGB from 0 to 1.

    Raises:
        ValueError: nothing is seen.
    """
    n, weight = len(seen.weight), seen.weight
    if not weight.max(initial=0) > 0:
        raise ValueError("the photo shows no vertex of the face: check the pose and the mask")
    edges = _edges(faces)
    a, b = edges.T
    wanted = _confidence(weight, edges) * (seen.colours[a] - seen.colours[b])
    if mirror is not None:
        left = (1 - _confidence(weight, edges)) * _confidence(weight[mirror], edges)
        wanted += left * (seen.colours[mirror[a]] - seen.colours[mirror[b]])
    ones = np.ones(len(edges))
    difference = sparse.csr_matrix(
        (np.concatenate([ones, -ones]), (np.tile(np.arange(len(edges)), 2), edges.T.ravel())), (len(edges), n)
    )
    pull = _PULL * weight**2
    mean = (weight[:, None] * seen.colours).sum(axis=0) / weight.sum()
    system = difference.T @ difference + sparse.diags(pull + _REST)
    right = difference.T @ wanted + pull[:, None] * seen.colours + _REST * mean
    return splu(system.tocsc()).solve(right).clip(0, 1)


def bake_texture(
    texels: TexelMap,
    faces: Int64,
    vertices: Sight,
    filled: Array,
    seen: Sight,
    other: Sight | None,
    mirror: Int64 | None,
) -> NDArray[np.uint8]:
    """The picture that the texture coordinates of a mesh refer to.

    A texel has the photo's colour where the photo shows it; where it shows the mirrored point, that one's colour, moved
    to the brightness of the filled vertices; else theirs.

    Args:
        texels: the N covered texels.
        faces: ``(F, 3)``.
        vertices: what the photo shows at the vertices.
        filled: ``(V, 3)`` of :func:`fill_colours`.
        seen: what the photo shows at the texels.
        other: what it shows at their mirrored points; None, as ``mirror``, when unknown.
        mirror: ``(V,)``.

    Returns:
        ``(H, W, 3)`` uint8 RGB, charts extended by some texels and the mean colour beyond.
    """
    colour = texels.at(filled, faces)
    if other is not None and mirror is not None:
        opposite = vertices.weight[mirror]
        known = (opposite > 0)[faces[texels.triangle]].all(axis=1)
        share = np.minimum(other.weight, texels.at(feathered(opposite, faces), faces)) * known
        moved = other.colours + texels.at(filled - vertices.colours[mirror], faces)
        colour += share[:, None] * (moved - colour)
    share = np.minimum(seen.weight, texels.at(feathered(vertices.weight, faces), faces))
    colour += share[:, None] * (seen.colours - colour)
    picture = np.zeros((*texels.covered.shape, 3))
    picture[texels.covered] = colour.clip(0, 1)
    distance, nearest = distance_transform_edt(~texels.covered, return_indices=True)
    picture = np.where((distance <= _MARGIN)[..., None], picture[nearest[0], nearest[1]], filled.mean(axis=0))
    return np.rint(picture * 255).astype(np.uint8)


def _confidence(weight: Array, edges: Int64) -> Array:
    return np.minimum(weight[edges[:, 0]], weight[edges[:, 1]])[:, None]


def _ring_mean(faces: Int64, n_vertices: int) -> sparse.csr_matrix:
    """Takes values of the vertices to the means over their neighbours and themselves."""
    edges = _edges(faces)
    ring = sparse.coo_matrix((np.ones(len(edges)), edges.T), (n_vertices, n_vertices))
    ring = ring + ring.T + sparse.identity(n_vertices)
    return sparse.diags(1 / np.asarray(ring.sum(axis=1)).ravel()) @ ring.tocsr()


def _edges(faces: Int64) -> Int64:
    return np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
