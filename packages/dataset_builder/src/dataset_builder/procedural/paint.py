"""Colours of everything a photograph's rays hit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..normals import vertex_normals
from .albedo import FacePaint
from .appearance import Appearance
from .height import middle_bump, smooth_step
from .noise import Textures, look_up
from .scene import Material, Piece
from .shading import Surface, shade, skin_wrap
from .studio import Hits, Mesh, Studio, key_light_share

Array = NDArray[np.floating]

_SHADOW_RAYS = 5


def paint(
    studio: Studio, hits: Hits, scene: Any, meshes: list[Mesh], pieces: list[Piece], face: Array, look: Appearance
) -> Array:
    """Linear light (N, 3) of every ray.

    Args:
        studio: of the face model.
        hits: what each ray met.
        scene: for shadows.
        meshes: camera-frame meshes of the scene, the face first.
        pieces: what the meshes after the face are.
        face: (V, 3) the face in its own frame.
        look: colours and light.
    """
    textures = Textures.sample(look.seed)
    light = np.empty((len(hits.piece), 3))
    free = np.flatnonzero(hits.piece < 0)
    light[free] = _background(free, round(len(hits.piece) ** 0.5), look, textures)
    normals = _normals(meshes, pieces)
    own = np.flatnonzero(hits.piece == 0)
    light[own] = _face(studio, hits, own, scene, meshes[0], normals[0], face, look, textures)
    for k, piece in enumerate(pieces, start=1):
        seen = np.flatnonzero(hits.piece == k)
        if len(seen):
            lit = _lit(scene, meshes[k], normals[k], piece, look)
            light[seen] = _piece(hits, seen, meshes[k][1], normals[k], lit, piece, look, textures)
    return light


def _background(rays: NDArray[np.int64], side: int, look: Appearance, textures: Textures) -> Array:
    slope = np.random.default_rng([look.seed, 61]).uniform(-1, 1)
    v, u = np.divmod(rays, side)
    v, u = (v + 0.5) / side, (u + 0.5) / side
    noise = look_up(textures.cloud, v * 200, u * 200) * 0.35 + (v - 0.5) * slope
    share = (0.5 + 0.5 * noise).clip(0, 1)[:, None]
    return np.asarray(look.background[0] * (1 - share) + look.background[1] * share)


def _interpolate(values: Array, triangles: NDArray[np.int64], weights: Array) -> Array:
    return np.asarray(np.einsum("nk,nkc->nc", weights, values[triangles]))


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _normals(meshes: list[Mesh], pieces: list[Piece]) -> list[Array]:
    """Unit normals of every mesh, towards the viewer's side of the face along seams with it."""
    normals: list[Array] = [vertex_normals(*mesh) for mesh in meshes]
    for k, piece in enumerate(pieces, start=1):
        if len(piece.seam):
            n = len(piece.seam)
            own, other = normals[0][piece.seam], normals[k][:n]
            if (own * other).sum() < 0:
                normals[k] = -normals[k]
            joined = _unit(own + normals[k][:n])
            normals[0][piece.seam] = joined
            normals[k][:n] = joined
    return normals


def _lit(scene: Any, mesh: Mesh, normals: Array, piece: Piece, look: Appearance) -> Array:
    """Share (N,) of the key light at the vertices of a piece: ray cast on skin, as modelled elsewhere."""
    if piece.material is not Material.SKIN:
        return piece.open
    towards = normals * np.where(normals[:, 2] < 0, -1.0, 1.0)[:, None]
    return key_light_share(scene, mesh[0], towards, look, _SHADOW_RAYS)


def _face(
    studio: Studio,
    hits: Hits,
    own: NDArray[np.int64],
    scene: Any,
    mesh: Mesh,
    normals: Array,
    face: Array,
    look: Appearance,
    textures: Textures,
) -> Array:
    posed, faces = mesh
    lit = key_light_share(scene, posed, normals, look, _SHADOW_RAYS)
    values = np.column_stack([studio.canonical, studio.chart, face, normals, lit, studio.occlusion]).astype(np.float32)
    at = _interpolate(values, faces[hits.triangle[own]], hits.weights[own].astype(np.float32))
    q, chart, place, normal = at[:, :2], at[:, 2:4], at[:, 4:7], _unit(at[:, 7:10])
    distance = studio.maps(q)
    painter = FacePaint(look, textures)
    albedo = painter(q, chart, place, distance, studio.eyes(face), min(studio.mouth_gap(face) / 3, 1.0))
    zone = 0.7 + 0.7 * middle_bump(q, 62, 30, 16) + 0.9 * middle_bump(q, 5, 9, 18) + 0.3 * middle_bump(q, -60, 12, 9)
    lips = np.minimum(distance["upper_lip"], distance["lower_lip"])
    gloss = look.oiliness * zone + 0.9 * smooth_step(lips, 0.5, -1.0)
    hairy = smooth_step(distance["brow"], 0.5, -0.5)
    surface = Surface(
        albedo=albedo,
        normal=normal,
        occlusion=(0.25 + 0.75 * at[:, 11]) ** 1.4,
        lit=at[:, 10],
        gloss=gloss * (1 - 0.8 * hairy),
        wrap=skin_wrap(),
    )
    return shade(surface, look)


def _piece(
    hits: Hits,
    seen: NDArray[np.int64],
    faces: NDArray[np.int64],
    normals: Array,
    lit_vertices: Array,
    piece: Piece,
    look: Appearance,
    textures: Textures,
) -> Array:
    values = np.column_stack([piece.surface, normals, piece.open, lit_vertices])
    at = _interpolate(values, faces[hits.triangle[seen]], hits.weights[seen])
    normal = _unit(at[:, 2:5])
    normal = normal * np.where(normal[:, 2] < 0, -1.0, 1.0)[:, None]
    u, v = at[:, 0], at[:, 1]
    ones: Array = np.ones(len(seen))
    reach, lit = at[:, 5], at[:, 6]
    wrap: Array
    occlusion, gloss, wrap = reach, 0 * reach, np.zeros(3)
    if piece.material is Material.SKIN:
        mottle = look_up(textures.coarse, u, v)
        albedo = look.skin * (1 + 0.04 * look.freckles * mottle)[:, None]
        wrap, gloss = skin_wrap(), 0.4 * ones
    elif piece.material is Material.HAIR:
        strands = look_up(textures.streak, u * 3.1, v * 0.16) + 0.7 * look_up(textures.streak, u * 0.9 + 31, v * 0.05)
        albedo = look.hair_colour * np.exp(0.33 * strands)[:, None]
        normal = _unit(normal + 0.12 * np.column_stack([strands, 0 * strands, 0 * strands]))
        occlusion, gloss, wrap = 0.75 * ones, 1.1 * np.exp(0.5 * strands).astype(float), np.full(3, 0.15)
    elif piece.material is Material.MOUTH:
        albedo = _mouth(u, v)
        occlusion, lit = 0.85 * ones, 0.2 + 0.6 * smooth_step(v, 9, 4)
    else:
        weave = look_up(textures.streak, u * 2, v * 2)
        albedo = look.cloth * (1 + 0.08 * weave)[:, None]
    return shade(Surface(albedo, normal, occlusion, lit, gloss, wrap), look)


def _mouth(x: Array, below: Array) -> Array:
    """Upper teeth in front of a dark mouth; ``below`` in mm from the edge of the upper lip."""
    teeth = smooth_step(below, 7.9, 7.0 - 0.3 * np.cos(x * 1.7)) * smooth_step(np.abs(x), 20, 17)
    gaps = 1 - 0.35 * np.exp(-((np.sin(x * np.pi / 7.6) / 0.12) ** 2))
    enamel = np.array([0.72, 0.66, 0.56]) * (gaps * (1 - 0.02 * np.abs(x)))[:, None]
    tongue = np.array([0.25, 0.06, 0.055]) * smooth_step(below, 9, 30)[:, None] + np.array([0.03, 0.008, 0.008])
    return np.asarray(tongue + (enamel - tongue) * teeth[:, None])
