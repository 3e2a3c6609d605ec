"""Synthetic photographs of the procedural face with exact part masks and landmarks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ..camera import CropCamera, apply_pose, rotation_matrix
from ..face_model import FaceModel
from .appearance import Appearance, sample_appearance
from .model import valid_identity
from .paint import paint
from .scene import pose_piece, surroundings
from .studio import Studio, build_scene, cast

Array = NDArray[np.floating]

_SUPERSAMPLING = 2
_YAW, _PITCH, _ROLL = np.radians(20), np.radians(10), np.radians(5)


@dataclass(frozen=True, eq=False)
class SyntheticPhoto:
    """A photograph with its truth.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8 part ids, exact at every pixel centre; 0 wherever the face model is not what one sees.
        landmarks: (68, 2) float32 pixels (column, row).
        identity, expression: coefficients (Ni,), (Ne,) float32.
        angles: (3,) pitch, yaw, roll in radians.
        translation: (3,) mm.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    angles: Array
    translation: Array


def render_photo(
    model: FaceModel | Studio,
    identity: NDArray[np.floating],
    expression: NDArray[np.floating],
    angles: NDArray[np.floating],
    translation: NDArray[np.floating],
    appearance: Appearance,
    size: int = 224,
) -> SyntheticPhoto:
    """Photograph one face.

    Args:
        model: a procedural face, or a :class:`Studio` of it when many photographs follow.
        identity: (Ni,) coefficients.
        expression: (Ne,) coefficients.
        angles: (3,) pitch, yaw, roll in radians.
        translation: (3,) mm.
        appearance: skin, hair, light, background.
        size: pixels a side.

    Raises:
        ValueError: when ``model`` is not a procedural face or the size is not 16 to 2048 pixels.
        ImportError: when open3d, of the extra ``photos``, is not installed.
    """
    studio = model if isinstance(model, Studio) else Studio.of(model)
    return _render(studio, identity, expression, angles, translation, appearance, size)


def make_photos(model: FaceModel, n: int, seed: int, size: int = 224, first: int = 0) -> Iterator[SyntheticPhoto]:
    """Photographs of ``n`` different people in random poses, with mild expressions.

    Yaw within 20 degrees, pitch within 10, roll within 5. Photo i depends on ``seed`` and i only.

    Args:
        model: a procedural face.
        n: how many.
        seed: of everything random.
        size: pixels a side.
        first: number of the first photo, to make a long series in pieces.
    """
    studio = Studio.of(model)
    for i in range(first, first + n):
        rng = np.random.default_rng([seed, i, 31])
        identity = valid_identity(model, rng.standard_normal((1, model.n_identity)).clip(-2.5, 2.5))[0]
        angles = rng.uniform(-1, 1, 3) * [_PITCH, _YAW, _ROLL]
        translation = rng.normal(0, [2.5, 2.5, 12.0])
        look = sample_appearance(int(rng.integers(2**31)))
        yield _render(studio, identity, _mild_expression(model, rng), angles, translation, look, size)


def _mild_expression(model: FaceModel, rng: np.random.Generator) -> NDArray[np.float32]:
    """At most two expressions at part strength; the eyes blink together and rarely."""
    value = dict.fromkeys(model.ex_names, 0.0)
    if rng.random() < 0.6:
        value["smile"] = rng.uniform(0.1, 0.9)
    if rng.random() < 0.25:
        value["jaw_open"] = rng.uniform(0.05, 0.5)
    if rng.random() < 0.3:
        value[str(rng.choice(["brow_raise", "brow_lower", "pucker", "mouth_frown"]))] = rng.uniform(0.1, 0.6)
    if value["smile"]:
        value["pucker"] = value["mouth_frown"] = 0.0
    value["blink_left"] = value["blink_right"] = float(rng.uniform(0, 0.25))
    return np.array([value[name] for name in model.ex_names], np.float32)


def _render(
    studio: Studio,
    identity: NDArray[np.floating],
    expression: NDArray[np.floating],
    angles: NDArray[np.floating],
    translation: NDArray[np.floating],
    look: Appearance,
    size: int,
) -> SyntheticPhoto:
    if not 16 <= size <= 2048:
        raise ValueError(f"photo size is {size} pixels, must be 16 to 2048")
    model, camera = studio.model, CropCamera.of_size(size)
    angles, translation = np.asarray(angles, float), np.asarray(translation, float)
    face = model.shape(identity, expression).astype(float)
    posed = apply_pose(face, angles, translation)
    pieces = surroundings(face, studio.rim_ids, studio.lip_ids, studio.mouth_gap(face), look.hair)
    rotation = rotation_matrix(angles)
    meshes = [(posed, model.faces)] + [(pose_piece(piece, rotation, translation), piece.faces) for piece in pieces]
    scene = build_scene(meshes)
    centres = cast(scene, camera, 1)
    mask = np.where(centres.piece == 0, studio.labels[np.where(centres.piece == 0, centres.triangle, 0)], 0)
    hits = cast(scene, camera, _SUPERSAMPLING)
    linear = paint(studio, hits, scene, meshes, pieces, face, look)
    return SyntheticPhoto(
        image=_develop(linear, look, size),
        mask=mask.reshape(size, size).astype(np.uint8),
        landmarks=camera.project(posed[model.landmarks68]).astype(np.float32),
        identity=np.asarray(identity, np.float32),
        expression=np.asarray(expression, np.float32),
        angles=angles,
        translation=translation,
    )


def _develop(linear: Array, look: Appearance, size: int) -> NDArray[np.uint8]:
    """Image (S, S, 3) uint8 of supersampled linear light: averaged, soft shoulder, gamma, slight blur and noise."""
    k = _SUPERSAMPLING
    light = linear.reshape(size, k, size, k, 3).mean((1, 3))
    light = np.where(light > 0.6, 0.6 + 0.4 * np.tanh((light - 0.6) / 0.4), light)
    grey = 255 * light ** (1 / 2.2)
    grey = gaussian_filter(grey, (0.35 * size / 224, 0.35 * size / 224, 0))
    rng = np.random.default_rng([look.seed, 51])
    grey = grey + rng.normal(0, look.noise, (size, size, 1)) + rng.normal(0, 0.4 * look.noise, grey.shape)
    return np.asarray((grey + 0.5).clip(0, 255).astype(np.uint8))
