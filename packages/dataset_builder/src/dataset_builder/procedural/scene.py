"""What surrounds the face in a synthetic photograph: skull, ears, hair, mouth, neck and shoulders, all turned with it.

Every piece is a triangle mesh in the face frame with a material and two surface coordinates for its texture. Nothing
here carries a part label.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .appearance import Hair
from .height import smooth_step

Array = NDArray[np.floating]
Int64 = NDArray[np.int64]

_SKULL_AXES = np.array([77.0, 92.0, 97.0])
_HINGE = np.array([0.0, -70.0, -50.0])


class Material(Enum):
    """What a piece is made of."""

    SKIN = "skin"
    HAIR = "hair"
    MOUTH = "mouth"
    CLOTH = "cloth"


@dataclass(frozen=True)
class Piece:
    """One mesh.

    Attributes:
        material: what it is made of.
        vertices: (N, 3) mm, face frame.
        faces: (M, 3) int64.
        surface: (N, 2) coordinates on the surface, mm.
        follow: (N,) share of the head's turn that each vertex takes part in, 1 on the head and 0 on the body.
        open: (N,) share of the light that reaches it, 1 where the head casts no shadow.
        seam: (n,) vertices of the face with which its first n vertices coincide; shading runs smoothly across.
    """

    material: Material
    vertices: Array
    faces: Int64
    surface: Array
    follow: Array
    open: Array
    seam: Int64 = field(default_factory=lambda: np.empty(0, np.int64))


def _grid_faces(rows: int, columns: int) -> Int64:
    k = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = k[:-1, :-1].ravel(), k[:-1, 1:].ravel(), k[1:, :-1].ravel(), k[1:, 1:].ravel()
    return np.concatenate([np.column_stack([a, c, b]), np.column_stack([b, c, d])])


def _sheet(material: Material, points: Array, surface: Array) -> Piece:
    rows, columns = points.shape[:2]
    ones = np.ones(rows * columns)
    return Piece(material, points.reshape(-1, 3), _grid_faces(rows, columns), surface.reshape(-1, 2), ones, ones)


@dataclass(frozen=True)
class _Skull:
    centre: Array
    axes: Array

    @classmethod
    def behind(cls, rim: Array) -> "_Skull":
        """Ellipsoid that passes just under the forehead and the sides of a face with this rim."""
        wide = np.abs(rim[:, 0]).max()
        top = rim[rim[:, 1].argmax()]
        axes = _SKULL_AXES * [wide / 73.0 * 0.985, 1.0, 1.0]
        return cls(np.array([0.0, top[1] - 42.0, top[2] - 91.0]), axes)

    def point(self, azimuth: Array, level: Array, extra: Array) -> Array:
        """Points (..., 3) at an azimuth (0 in front) and height y, ``extra`` mm outside; a tube below the middle."""
        up = ((level - self.centre[1]) / (self.axes[1] + extra)).clip(0, 1)
        radius = np.sqrt(1 - up**2)
        x = (self.axes[0] + extra) * radius * np.sin(azimuth)
        z = self.centre[2] + (self.axes[2] + extra) * radius * np.cos(azimuth)
        return np.stack([x, level, z], -1)


def _ellipsoid(material: Material, centre: Array, axes: Array, rows: int = 16, columns: int = 24) -> Piece:
    polar, azimuth = np.meshgrid(np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns), indexing="ij")
    unit = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1)
    return _sheet(material, centre + unit * axes, np.stack([azimuth * 70, polar * 90], -1))


def _skirt(rim: Array) -> Piece:
    """From the rim of the face backwards: sides of the head and the underside of the jaw."""
    back = rim * [0.8, 0.84, 0.0] + [0.0, 3.0, -112.0]
    loop = np.append(np.arange(len(rim)), 0)
    t = np.linspace(0, 1, 8)[:, None, None]
    points = rim[loop] * (1 - t) + back[loop] * t
    points[..., :2] = rim[loop, :2] * (1 - t**1.6) + back[loop, :2] * t**1.6
    along = np.insert(np.linalg.norm(np.diff(rim[loop], axis=0), axis=1).cumsum(), 0, 0.0)
    surface = np.stack(np.broadcast_arrays(along, 110.0 + 100 * t[:, :, 0]), -1)
    below = smooth_step(points[..., 1], 0, -60) * smooth_step(t[:, :, 0], 0, 0.35)
    return replace(_sheet(Material.SKIN, points, surface), open=(1 - 0.55 * below).ravel())


def _ear(side: int, rim: Array) -> Piece:
    wide = np.abs(rim[:, 0]).max()
    polar, azimuth = np.meshgrid(np.linspace(0, np.pi, 14), np.linspace(0, 2 * np.pi, 28), indexing="ij")
    y = np.cos(polar) * 27.0
    across = np.sin(polar) * np.sin(azimuth)
    thick = np.sin(polar) * np.cos(azimuth)
    taper = 1 + 0.28 * np.cos(polar)
    hollow = 2.6 * np.exp(-((across / 0.5) ** 2) - (np.cos(polar) / 0.55) ** 2) * (thick > 0)
    flare = np.radians(32)
    depth, out = 16 * across * taper, 4.2 * thick - hollow
    x = side * (wide + 0.5 + out * np.cos(flare) - (depth - 9) * np.sin(flare) * 0.55)
    z = -64 + depth * np.cos(flare) + out * np.sin(flare)
    points = np.stack([x, y + 11 + 0.12 * depth, z], -1)
    return _sheet(Material.SKIN, points, np.stack([azimuth * 9 + 130, polar * 18], -1))


def _over_face(points: Array, face: Array, gap: Array) -> Array:
    """Points (N, 3) raised where they are over the face, so that they keep ``gap`` (N,) mm above its skin."""
    near = np.flatnonzero((points[:, 2] > -45) & (points[:, 1] < face[:, 1].max() + 3))
    distance, nearest = cKDTree(face[:, :2]).query(points[near, :2], k=4)
    weight = 1 / (distance + 1e-3)
    skin = (weight * face[nearest, 2]).sum(1) / weight.sum(1)
    lifted = points.copy()
    over = distance[:, 0] < 3.0
    lifted[near[over], 2] = np.maximum(points[near, 2], skin + gap[near])[over]
    return lifted


def _under_face(piece: Piece, face: Array, rim: Array) -> Piece:
    """The piece, lowered below the skin wherever it is behind the face: 4 mm at the rim, ever deeper inside."""
    coarse = face[:: max(len(face) // 1500, 1)]
    distance, nearest = cKDTree(coarse[:, :2]).query(piece.vertices[:, :2], k=8)
    gap = 4.0 + np.minimum(cKDTree(rim[:, :2]).query(piece.vertices[:, :2])[0], 40.0)
    vertices = piece.vertices.copy()
    behind = (distance[:, 0] < 6.0) & (vertices[:, 2] > -70)
    vertices[:, 2] = np.where(behind, np.minimum(vertices[:, 2], coarse[nearest, 2].min(1) - gap), vertices[:, 2])
    return replace(piece, vertices=vertices)


def _hair(hair: Hair, skull: _Skull, face: Array) -> Piece:
    """A cap with an opening for the face; over the forehead it lies on the skin and grows thicker backwards."""
    rows, columns = 56, 84
    top = skull.centre[1] + skull.axes[1] + hair.thickness - 0.02
    share = np.linspace(0, 1, rows)[:, None] ** 1.15
    level = top + (hair.bottom - top) * share
    low = 36.0
    open_at = ((hair.hairline - level) / (hair.hairline - low)).clip(0, 1)
    wave = 1 + 0.05 * np.sin(level / 31 + 9 * hair.parting) * smooth_step(level, 10, -30)
    long = float(hair.bottom < -20)
    opening = hair.opening * np.sqrt(open_at * (2 - open_at)) * wave
    opening = opening + 0.3 * (1 - long) * smooth_step(share, 0.8, 1.0) ** 2
    u = np.linspace(0, 1, columns)
    u = u + 0.12 * np.sin(4 * np.pi * u) / (2 * np.pi)
    azimuth = opening + (2 * np.pi - 2 * opening) * u
    edge = np.minimum(u, 1 - u) * 2
    turn = np.minimum(azimuth, 2 * np.pi - azimuth)
    level = level + np.zeros_like(azimuth)
    back = smooth_step(edge, 0.15, 0.8)
    if not long:
        level = level - 34 * back * smooth_step(share, 0.6, 1.0)
    line = low + (hair.hairline - low) * np.sqrt(1 - (turn / hair.opening).clip(0, 1) ** 2)
    from_line = np.hypot(np.maximum(level - line, 0), 75 * np.maximum(turn - hair.opening, 0))
    rise = np.maximum(smooth_step(from_line, 0, 26), 0.35 * long * smooth_step(level, 25, 0))
    extra = hair.thickness * rise + 0.4 + 2.0 * long * np.sin(azimuth * 9 + level / 23) * smooth_step(level, 30, -40)
    extra = extra * (1 - 0.85 * (1 - long) * smooth_step(share, 0.72, 1.0))
    points = skull.point(azimuth + hair.parting * np.exp(-((turn / 0.7) ** 2)) * (from_line > 0), level, extra)
    points[..., 0] *= 1 - 0.1 * smooth_step(level, -20, -90)
    flat = _over_face(points.reshape(-1, 3), face, (0.7 + 0.35 * extra).ravel())
    surface = np.stack([azimuth * 75, level], -1)
    return _sheet(Material.HAIR, flat.reshape(points.shape), surface)


def _mouth_inside(line: Array, gap: float) -> Piece:
    """Behind the lips: a sheet hung on the lower edge of the upper lip (n, 3), as long as the mouth is open (mm)."""
    below = np.concatenate([[-5.0, -2.0, 1.0, 4.0, 7.5], 8.0 + gap * np.array([0.0, 0.35, 0.7, 1.0])])
    depth = np.array([5.0, 5.5, 6.0, 6.5, 7.0, 11.0, 16.0, 18.0, 20.0])
    points = line[None] + np.stack([np.zeros(9), -below, -depth], -1)[:, None]
    surface = np.stack(np.broadcast_arrays(line[:, 0], below[:, None]), -1)
    return _sheet(Material.MOUTH, points, surface)


def _neck(rim: Array) -> Piece:
    chin = rim[rim[:, 1].argmin()]
    wide = np.abs(rim[:, 0]).max() / 73.0
    level = np.array([-30, -60, -85, -105, -120, -135, -150, -175.0]) + chin[1] + 80
    azimuth = np.linspace(0, 2 * np.pi, 49)
    flare = np.array([0.0, 0, 0, 1, 5, 14, 34, 70])
    x = ((50 * wide + flare)[:, None]) * np.sin(azimuth)
    z = -52 + (47 + 0.25 * flare)[:, None] * np.cos(azimuth)
    points = np.stack([x, np.broadcast_to(level[:, None], x.shape), z], -1)
    follow = np.broadcast_to(smooth_step(level, level[4], level[0])[:, None], x.shape)
    surface = np.stack(np.broadcast_arrays(azimuth * 55 + 200, level[:, None]), -1)
    shelter = np.broadcast_to(0.3 + 0.7 * smooth_step(level, level[2], level[6])[:, None], x.shape)
    return replace(_sheet(Material.SKIN, points, surface), follow=follow.ravel(), open=shelter.ravel())


def _shoulders(rim: Array) -> Piece:
    drop = rim[:, 1].min() + 80
    body = _ellipsoid(Material.CLOTH, np.array([0, -262.0 + drop, -70]), np.array([228.0, 138, 88]), 28, 48)
    return replace(body, follow=np.zeros(len(body.vertices)))


def surroundings(face: Array, rim_ids: Int64, lip_ids: Int64, mouth_gap: float, hair: Hair | None) -> list[Piece]:
    """Everything around one face.

    Args:
        face: (V, 3) vertices of the face in its own frame, expression included, mm.
        rim_ids: outer boundary of the face in order.
        lip_ids: lower edge of the upper lip from one corner to the other.
        mouth_gap: distance between the lips on the midline, mm.
        hair: its shape, or None.
    """
    rim = face[rim_ids]
    skull = _Skull.behind(rim)
    pieces = [
        replace(_skirt(rim), seam=np.append(rim_ids, rim_ids[0])),
        _under_face(_ellipsoid(Material.SKIN, skull.centre, skull.axes, 28, 40), face, rim),
        _ear(-1, rim),
        _ear(1, rim),
        _mouth_inside(face[lip_ids], mouth_gap),
        _under_face(_neck(rim), face, rim),
        _shoulders(rim),
    ]
    if hair is not None:
        pieces.append(_hair(hair, skull, face))
    return pieces


def pose_piece(piece: Piece, rotation: Array, translation: Array) -> Array:
    """Camera-frame vertices (N, 3): turned about the neck by the share that each vertex follows."""
    turned = piece.vertices @ rotation.T
    upright = piece.vertices + (_HINGE @ rotation.T - _HINGE)
    share = piece.follow[:, None]
    return np.asarray(turned * share + upright * (1 - share) + translation)
