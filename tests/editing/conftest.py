"""A small labelled face for the editing tests: an oval grid, elliptic parts, 68 landmarks and linear part models."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from editing import LABEL_IDS, PARTS, REGIONS, ControllerMap, MeasurementLandmarks, measure

SPACING = 2.0
# centre x, centre y, half-width, half-height in mm; paired parts are mirrored
ELLIPSES = {
    "eyebrows": (34.0, 44.0, 18.0, 4.0),
    "eyes": (30.0, 26.0, 12.0, 4.0),
    "nose": (0.0, 10.0, 18.0, 24.0),
    "upper_lip": (0.0, -30.0, 24.0, 4.0),
    "lower_lip": (0.0, -38.0, 22.0, 4.0),
}
# cosine waves across and up a part, and their phase
WAVES = [(0, 0, 0.1), (1, 0, 0.2), (0, 1, 0.3), (1, 1, 0.1), (2, 0, 0.4), (2, 1, 0.2)]
LATENT = {"eyebrows": 6, "eyes": 7, "nose": 9, "upper_lip": 6, "lower_lip": 6, "rest": 12}
# Multi-PIE order, the subject's right half (x < 0) of the paired ones; (x, y) in mm
JAW = [(-72, 20), (-72, 4), (-70, -12), (-66, -28), (-54, -40), (-46, -54), (-34, -66), (-18, -74), (0, -77)]
BROW = [(-52, 44), (-42, 48), (-34, 48), (-26, 48), (-16, 44)]
EYE = [(-42, 26), (-34, 30), (-26, 30), (-18, 26), (-26, 22), (-34, 22)]
MOUTH_RIGHT = [(-24, -30), (-12, -26), (-6, -26)]


def mirrored(points):
    return [(-x, y) for x, y in reversed(points)]


def landmark_positions():
    bridge, base = [(0, 34), (0, 24), (0, 12), (0, -4)], [(-12, -12), (-6, -13), (0, -14), (6, -13), (12, -12)]
    left_eye = [(-x, y) for x, y in (EYE[i] for i in (3, 2, 1, 0, 5, 4))]
    outer = [*MOUTH_RIGHT, (0, -26), *mirrored(MOUTH_RIGHT), (12, -40), (6, -42), (0, -42), (-6, -42), (-12, -40)]
    inner = [(-20, -34), (-6, -34), (0, -34), (6, -34), (20, -34), (6, -36), (0, -36), (-6, -36)]
    points = [*JAW, *mirrored(JAW[:-1]), *BROW, *mirrored(BROW), *bridge, *base, *EYE, *left_eye, *outer, *inner]
    return np.array(points, dtype=float)


@dataclass(frozen=True)
class GridFace:
    """vertices and flat (z = 0), both (V, 3); faces (F, 3), labels (V,), landmarks68 (68,), basis (V, 3, D) each."""

    vertices: np.ndarray
    flat: np.ndarray
    faces: np.ndarray
    labels: np.ndarray
    landmarks68: np.ndarray
    basis: dict

    def decode(self, latents, offsets=None):
        """A linear part model: every part moves by its own basis, offsets shift parts in y and z."""
        composed = self.vertices + np.einsum("vcd,...d->...vc", self.basis["rest"], latents["rest"])
        rest = composed.copy()
        for k, part in enumerate(PARTS):
            own = self.labels == LABEL_IDS[part]
            moved = self.vertices[own] + np.einsum("vcd,...d->...vc", self.basis[part][own], latents[part])
            composed[..., own, :] = moved + (0 if offsets is None else np.array([0.0, *offsets[k]]))
        return composed, rest


@dataclass(frozen=True)
class GridDecoder:
    """`GridFace` in the steps of `editing.FaceDecoder`; ``blend`` gets composed and rest, (V, 3) each.

    ``calls`` lists the steps that were run.
    """

    face: GridFace
    blend: Callable = lambda composed, rest: composed
    calls: list = field(default_factory=list)

    latent_mean: dict = field(default_factory=lambda: {region: np.zeros(size) for region, size in LATENT.items()})
    latent_std: dict = field(default_factory=lambda: {region: np.ones(size) for region, size in LATENT.items()})

    def decode(self, region, latent):
        """The region's own vertices about its box centre; all vertices for the rest."""
        self.calls.append(region)
        own = self.own(region)
        shape = self.face.vertices[own] + self.face.basis[region][own] @ latent
        if region != "rest":
            shape[:, 1:] -= self.centre(region)
        return shape

    def place(self, rest_latent):
        """Template centres, moved as the rest under the part moves on average; float32 as networks give."""
        self.calls.append("place")
        moved = [(self.face.basis["rest"][self.own(part), 1:] @ rest_latent).mean(axis=0) for part in PARTS]
        return (np.array([self.centre(part) for part in PARTS]) + moved).astype(np.float32)

    def assemble(self, shapes, centres):
        self.calls.append("assemble")
        rest = shapes["rest"].copy()
        composed = rest.copy()
        for part, centre in zip(PARTS, centres, strict=True):
            composed[self.own(part)] = shapes[part] + [0.0, *centre]
        return self.blend(composed, rest)

    def own(self, region):
        return slice(None) if region == "rest" else self.face.labels == LABEL_IDS[region]

    def centre(self, part):
        box = self.face.vertices[self.own(part), 1:]
        return (box.max(axis=0) + box.min(axis=0)) / 2


def grid_face():
    xs, ys = np.arange(-72, 73, SPACING), np.arange(-78, 87, SPACING)
    x, y = (axis.ravel() for axis in np.meshgrid(xs, ys))
    columns, inside = len(xs), (x / 74) ** 2 + ((y - 4) / 84) ** 2 <= 1
    corner = np.arange(columns * (len(ys) - 1)).reshape(-1, columns)[:, :-1].ravel()
    squares = np.stack([corner, corner + 1, corner + columns + 1, corner + columns], axis=1)
    faces = np.concatenate([squares[:, [0, 1, 2]], squares[:, [0, 2, 3]]])
    faces = faces[inside[faces].all(axis=1)]
    new_id = np.full(x.size, -1)
    used = np.unique(faces)
    new_id[used] = np.arange(used.size)
    x, y, faces = x[used], y[used], new_id[faces]
    labels = np.full(x.size, LABEL_IDS["rest"])
    for part, (cx, cy, half_width, half_height) in ELLIPSES.items():
        labels[((np.abs(x) - cx) / half_width) ** 2 + ((y - cy) / half_height) ** 2 <= 1 + 1e-9] = LABEL_IDS[part]
    flat = np.stack([x, y, np.zeros_like(x)], axis=1)
    places = landmark_positions()
    landmarks68 = np.argmin(np.linalg.norm(flat[:, None, :2] - places, axis=2), axis=0)
    z = 30 - 0.012 * x**2 - 0.003 * y**2 + 22 * np.exp(-((x / 12) ** 2) - ((y + 2) / 22) ** 2)
    arched = y - 0.004 * (np.abs(x) - 34) ** 2 * (labels == LABEL_IDS["eyebrows"])
    vertices = np.stack([x, arched, z], axis=1)
    return GridFace(vertices, flat, faces, labels, landmarks68, part_bases(flat, labels))


def part_bases(flat, labels):
    """Smooth random displacement fields, mirror-symmetric, small against the grid."""
    rng = np.random.default_rng(7)
    basis = {}
    for region in REGIONS:
        own = labels == LABEL_IDS[region] if region != "rest" else np.ones(len(flat), dtype=bool)
        low, high = flat[own].min(axis=0), flat[own].max(axis=0)
        size = np.where(high > low, high - low, 1.0)
        u, v = np.abs(flat[:, 0]) / size[0] * 2, (flat[:, 1] - low[1]) / size[1]
        waves = [np.cos(np.pi * (i * u + phase)) * np.cos(np.pi * (j * v + phase)) for i, j, phase in WAVES]
        fields = np.einsum("wv,wcd->vcd", waves, rng.normal(0, 0.08, (len(WAVES), 3, LATENT[region])))
        fields[:, 0] *= np.sign(flat[:, :1])
        basis[region] = fields * own[:, None, None]
    return basis


@pytest.fixture(scope="session")
def face():
    return grid_face()


@pytest.fixture(scope="session")
def points(face):
    return MeasurementLandmarks.from_template(face.vertices, face.labels, face.landmarks68)


@pytest.fixture(scope="session")
def latents():
    rng = np.random.default_rng(3)
    return {region: rng.normal(size=(300, d)) for region, d in LATENT.items()}


@pytest.fixture(scope="session")
def controllers(face, points, latents):
    return ControllerMap.fit(measure(face.decode(latents)[0], points), latents)


@pytest.fixture
def decoder(face):
    return GridDecoder(face)


@pytest.fixture
def bent_decoder(face):
    """Its blend is not linear: bends what lies off the template, and mixes in a little of the rest."""

    def bend(composed, rest):
        off = 0.9 * composed + 0.1 * rest - face.vertices
        return face.vertices + off + 0.02 * off * np.abs(off)

    return GridDecoder(face, bend)
