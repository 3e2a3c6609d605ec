"""Part labels by rendering: textured faces in many poses, labelled in 2D by a parser that votes back on the vertices.

This is the way of NEO-3DF (Yan et al. 2022), after Koizumi and Smith 2020. What the votes become is the matter of
``label_transfer``.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from .alignment import CANONICAL_FIVE_POINTS_DM
from .camera import apply_pose
from .face_model import FaceModel, Float32, Int64
from .label_transfer import Borders, PartLabels, transfer_labels
from .landmark_fit import FaceEstimate
from .parsers import FaceParser

UInt8 = NDArray[np.uint8]
Array = NDArray[np.floating]

_CANONICAL_CENTRE = 100 * CANONICAL_FIVE_POINTS_DM.mean(0)  # mm
_RANDOM_POSE = np.array([0.1, 0.15, 0.05])  # standard deviation of pitch, yaw, roll
_IDENTITY_SPREAD = 0.5
_EXPRESSIONS_AT_ONCE = 3.0


def sweep_faces(
    model: FaceModel,
    *,
    yaw: float = 0.5,
    pitch: float = 0.3,
    step: float = 0.1,
    n_random: int = 100,
    seed: int = 0,
) -> FaceEstimate:
    """Faces to render: the mean face over a grid of poses, then random faces that look at the camera.

    Every face has an expression, so that lips and lids come apart: a few of the model's, at up to half strength. Random
    faces have identities of half the usual spread. All are where the standard crop has them: the five points' centre
    is at its canonical place.

    Args:
        model: the face.
        yaw: the grid runs from minus to plus this, radians.
        pitch: the same up and down; parsers learn from photographs, where faces hardly look farther up or down.
        step: between the grid's poses, radians.
        n_random: how many random faces.
        seed: of everything random.

    Returns:
        Identity, expression and pose of the N faces; their ``residual`` is 0.

    Raises:
        ValueError: the grid or ``n_random`` is negative, or ``step`` is not above 0.
    """
    if min(yaw, pitch, n_random) < 0 or step <= 0:
        raise ValueError(
            f"yaw, pitch and n_random must be 0 or more and step above 0; got {yaw}, {pitch}, {n_random} and {step}"
        )
    rng = np.random.default_rng([seed, 73])
    pitches, yaws = np.meshgrid(_steps(pitch, step), _steps(yaw, step), indexing="ij")
    grid = np.stack([pitches.ravel(), yaws.ravel(), np.zeros(pitches.size)], 1)
    angles = np.concatenate([grid, rng.normal(0, 1, (n_random, 3)) * _RANDOM_POSE])
    identity = np.zeros((len(angles), model.n_identity))
    identity[len(grid) :] = _IDENTITY_SPREAD * rng.standard_normal((n_random, model.n_identity))
    values = (identity, _expressions(model, len(angles), rng), angles)
    identity32, expression, angles32 = (x.astype(np.float32) for x in values)
    translation = np.stack([_placed(model, *row) for row in zip(identity32, expression, angles32, strict=True)])
    return FaceEstimate(
        identity32, expression, angles32, translation.astype(np.float32), np.zeros((len(angles), 68), np.float32)
    )


def vote_by_rendering(
    model: FaceModel,
    parser: FaceParser,
    render: Callable[[FaceEstimate], UInt8],
    faces: FaceEstimate | None = None,
    *,
    restrict: Mapping[str, Int64] | None = None,
    calibrate: bool = True,
    borders: Borders = "between",
) -> PartLabels:
    """Part labels of the model's vertices from what a parser sees in renders of it.

    Args:
        model: the face.
        parser: labels the renders.
        render: N faces to crops (N, 224, 224, 3) uint8, as a :class:`FaceRenderer`.
        faces: what to render; those of :func:`sweep_faces` when left out.
        restrict, calibrate, borders: see :func:`transfer_labels`, which counts the votes.

    Raises:
        ValueError: see :func:`transfer_labels` and the parser.
        ImportError: if open3d is not installed (extra ``photos``).
    """
    faces = sweep_faces(model) if faces is None else faces
    parsed = parser.parse(render(faces))
    return transfer_labels(
        model, parsed.labels, faces, ignore=parsed.ignore, restrict=restrict, calibrate=calibrate, borders=borders
    )


def _steps(reach: float, step: float) -> Array:
    n = int(np.floor(reach / step + 1e-9))
    return step * np.arange(-n, n + 1)


def _expressions(model: FaceModel, n: int, rng: np.random.Generator) -> Array:
    """(n, Ne): each expression on with a chance that makes a few at once, from rest to half of its range."""
    rest = np.clip(0, *model.ex_range.T.astype(np.float64))
    chance = min(1.0, _EXPRESSIONS_AT_ONCE / max(model.n_expression, 1))
    on = rng.random((n, model.n_expression)) < chance
    return rest + on * rng.uniform(0, 0.5, on.shape) * (model.ex_range[:, 1] - rest)


def _placed(model: FaceModel, identity: Float32, expression: Float32, angles: Float32) -> Array:
    """Translation (3,) mm that takes the centre of the face's five points to its canonical place."""
    ids = model.landmarks68
    points = model.mean[ids] + model.id_basis[ids] @ identity + model.ex_basis[ids] @ expression
    eyes = (points[[36, 42]] + points[[39, 45]]) / 2
    centre = np.concatenate([eyes, points[[30, 48, 54]]]).mean(0)
    turned = apply_pose(centre[None], angles, np.zeros(3))[0]
    return np.asarray(_CANONICAL_CENTRE - turned)
