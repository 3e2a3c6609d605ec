"""Identity, expression and pose of a face model from 68 landmarks: analysis by synthesis by damped Gauss-Newton.

The objective is that of landmark-based morphable model fitting (Blanz and Vetter 1999; Aldrian and Smith 2013): squared
reprojection error in units of the detector's noise plus Gaussian priors on the coefficients.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .camera import CropCamera, apply_pose, rotation_matrix
from .face_model import FaceModel, Float32

Float64 = NDArray[np.float64]

JAW, BROWS, INNER = slice(0, 17), slice(17, 27), slice(27, 68)
JAW_WEIGHT, BROW_WEIGHT = 0.05, 0.5
_CHUNK = 32


@dataclass(frozen=True, eq=False)
class FaceEstimate:
    """Coefficients and pose of N faces.

    Attributes:
        identity: (N, Ni) float32, standard deviations.
        expression: (N, Ne) float32, within the model's ``ex_range``.
        angles: (N, 3) float32 pitch, yaw, roll in radians.
        translation: (N, 3) float32 mm, of the model's origin in the camera frame.
        residual: (N, 68) float32, distance of every landmark from its model point, crop pixels.
    """

    identity: Float32
    expression: Float32
    angles: Float32
    translation: Float32
    residual: Float32

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, rows: slice | NDArray) -> "FaceEstimate":
        """The estimates of some photos, by slice, index array or boolean mask."""
        if not isinstance(rows, slice | np.ndarray):
            raise TypeError(f"index a FaceEstimate by a slice or an array, got {type(rows).__name__}")
        return FaceEstimate(
            self.identity[rows], self.expression[rows], self.angles[rows], self.translation[rows], self.residual[rows]
        )

    def posed(self, model: FaceModel, row: int) -> Float32:
        """Camera-frame vertices (V, 3) float32, mm, of the face in photo ``row``."""
        shape = model.shape(self.identity[row], self.expression[row])
        return apply_pose(shape, self.angles[row], self.translation[row]).astype(np.float32)


class LandmarkEstimator:
    """Fits a face model to landmarks, many photos at a time, using the 68 landmark rows of its bases only.

    First the pose is found, from a scaled-orthographic least-squares start; then pose, identity and expression
    together by Levenberg-Marquardt. Expressions stay within ``ex_range`` by an active set. Residuals far beyond the
    noise weigh less (Huber 1964), so that single wild landmarks do not tear the face.

    Args:
        model: the face.
        identity_weight: weight of the squared identity coefficients; 1 is the model's own N(0, 1) prior.
        expression_weight: weight of the squared expression coefficients; 16 is a standard deviation of 1/4.
        noise_px: standard deviation of a landmark, pixels of the 224 crop.
        robust_px: residual beyond which a landmark counts linearly, pixels of the 224 crop.
        iterations: most Gauss-Newton steps per stage.

    Raises:
        ValueError: if a weight is negative or a pixel scale is not positive.
    """

    def __init__(
        self,
        model: FaceModel,
        *,
        identity_weight: float = 1.0,
        expression_weight: float = 16.0,
        noise_px: float = 1.5,
        robust_px: float = 10.0,
        iterations: int = 25,
    ) -> None:
        if min(identity_weight, expression_weight) < 0 or min(noise_px, robust_px) <= 0:
            raise ValueError(
                "identity_weight and expression_weight must be 0 or more, noise_px and robust_px above 0; got "
                f"{identity_weight}, {expression_weight}, {noise_px}, {robust_px}"
            )
        ids = model.landmarks68
        self._mean = model.mean[ids].astype(np.float64)
        self._basis = np.concatenate([model.id_basis[ids], model.ex_basis[ids]], -1).astype(np.float64)
        self._n_identity, n_expression = model.n_identity, model.n_expression
        self._prior = np.repeat([float(identity_weight), float(expression_weight)], [self._n_identity, n_expression])
        unbounded = np.full(self._n_identity, np.inf)
        self._lower = np.concatenate([-unbounded, model.ex_range[:, 0]])
        self._upper = np.concatenate([unbounded, model.ex_range[:, 1]])
        self._noise_px, self._robust_px, self._iterations = noise_px, robust_px, iterations
        self._weights = np.ones(68)
        self._weights[JAW], self._weights[BROWS] = JAW_WEIGHT, BROW_WEIGHT

    def estimate(
        self,
        landmarks: NDArray[np.floating],
        image_size: int = 224,
        fit_identity: bool = True,
        fit_expression: bool = True,
    ) -> FaceEstimate:
        """Coefficients and pose of the faces with ``landmarks`` (N, 68, 2), (column, row) in crop pixels.

        Args:
            landmarks: Multi-PIE order as in :class:`FaceModel`; pixel centres at +0.5.
            image_size: side of the square crop in pixels.
            fit_identity: otherwise identity stays 0.
            fit_expression: otherwise expression stays 0 (or the nearest value of ``ex_range``).

        Raises:
            ValueError: if the landmarks are not (N, 68, 2), not finite, or all in one place.
        """
        points = np.asarray(landmarks, np.float64)
        _check_landmarks(points)
        points = points * (224 / image_size)
        chosen = np.repeat([fit_identity, fit_expression], [self._n_identity, len(self._prior) - self._n_identity])
        chunks = [self._fit(points[i : i + _CHUNK], chosen) for i in range(0, len(points), _CHUNK)]
        pose, coefficients = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        residual = np.linalg.norm(self._project(pose, coefficients) - points, axis=-1) * (image_size / 224)
        identity, expression = np.split(coefficients, [self._n_identity], axis=1)
        estimate = (identity, expression, pose[:, :3], pose[:, 3:], residual)
        return FaceEstimate(*(values.astype(np.float32) for values in estimate))

    def _fit(self, points: Float64, chosen: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        coefficients = np.broadcast_to(np.clip(0, self._lower, self._upper), (len(points), len(self._prior))).copy()
        start = np.concatenate([self._start_pose(points, coefficients), coefficients], 1)
        free = np.zeros(start.shape[1], bool)
        free[:6] = True
        state = self._minimise(points, start, free)
        if chosen.any():
            free[6:] = chosen
            state = self._minimise(points, state, free)
        return state[:, :6], state[:, 6:]

    def _start_pose(self, points: Float64, coefficients: Float64) -> Float64:
        """Pose (N, 6) from a weighted scaled-orthographic fit of the mean face, which is linear in its 8 unknowns."""
        camera = CropCamera()
        model = self._mean + coefficients[0] @ np.moveaxis(self._basis, -1, 1)
        centre = model.mean(0)
        root = np.sqrt(self._weights)[:, None]
        design = np.concatenate([model - centre, np.ones((68, 1))], 1) * root
        targets = (points - camera.centre) * [1, -1] * root
        solution = np.linalg.pinv(design) @ targets  # (N, 4, 2)
        rows, shift = np.swapaxes(solution[:, :3], 1, 2), solution[:, 3]
        u, scale, vt = np.linalg.svd(rows, full_matrices=False)
        scale = scale.mean(1)
        first, second = np.moveaxis(u @ vt, 1, 0)
        third = np.cross(first, second)
        yaw = np.arcsin(np.clip(-third[:, 0], -1, 1))
        pitch, roll = np.arctan2(third[:, 1], third[:, 2]), np.arctan2(second[:, 0], first[:, 0])
        angles = np.stack([pitch, yaw, roll], 1)
        depth = camera.focal / scale
        placed = np.concatenate([shift * (depth / camera.focal)[:, None], (camera.distance - depth)[:, None]], 1)
        translation = placed - apply_pose(centre[None], angles, np.zeros(3))[:, 0]
        return np.concatenate([angles, translation], 1)

    def _project(self, pose: Float64, coefficients: Float64) -> Float64:
        placed = apply_pose(self._shape(coefficients), pose[:, :3], pose[:, 3:])
        return np.asarray(CropCamera().project(placed), np.float64)

    def _shape(self, coefficients: Float64) -> Float64:
        flat = coefficients @ self._basis.reshape(68 * 3, -1).T
        return self._mean + flat.reshape(-1, 68, 3)

    def _cost(self, points: Float64, state: Float64) -> Float64:
        distance = np.linalg.norm(self._project(state[:, :6], state[:, 6:]) - points, axis=-1)
        huber = np.where(distance < self._robust_px, distance**2, self._robust_px * (2 * distance - self._robust_px))
        return huber @ self._weights / self._noise_px**2 + state[:, 6:] ** 2 @ self._prior

    def _minimise(self, points: Float64, state: Float64, free: NDArray[np.bool_]) -> Float64:
        """Levenberg-Marquardt over the ``free`` columns of ``state`` (N, 6 + Ni + Ne), projected on the bounds."""
        columns = np.flatnonzero(free)
        prior = np.concatenate([np.zeros(6), self._prior])[columns]
        lower = np.concatenate([np.full(6, -np.inf), self._lower])[columns]
        upper = np.concatenate([np.full(6, np.inf), self._upper])[columns]
        state, damping = state.copy(), np.full(len(state), 1e-3)
        cost, open_rows = self._cost(points, state), np.arange(len(state))
        for _ in range(self._iterations):
            gradient, hessian = self._normal_equations(points[open_rows], state[open_rows], columns, prior)
            now = state[open_rows][:, columns]
            held = ((now <= lower) & (gradient > 0)) | ((now >= upper) & (gradient < 0))
            step = _damped_step(gradient, hessian, held, damping[open_rows])
            trial = state[open_rows]
            trial[:, columns] = np.clip(now + step, lower, upper)
            trial_cost = self._cost(points[open_rows], trial)
            better = trial_cost < cost[open_rows]
            gain = (cost[open_rows] - trial_cost) / (cost[open_rows] + 1e-12)
            rows = open_rows[better]
            state[rows], cost[rows] = trial[better], trial_cost[better]
            damping[open_rows] = np.where(better, damping[open_rows] / 10, damping[open_rows] * 10)
            done = np.where(better, gain < 1e-5, damping[open_rows] > 1e4) | (cost[open_rows] < 1e-12)
            open_rows = open_rows[~done]
            if not len(open_rows):
                break
        return state

    def _normal_equations(
        self, points: Float64, state: Float64, columns: NDArray[np.intp], prior: Float64
    ) -> tuple[Float64, Float64]:
        """Gradient (N, P) and Gauss-Newton Hessian (N, P, P), both halved, of the cost over ``columns``."""
        camera = CropCamera()
        pose, coefficients = state[:, :6], state[:, 6:]
        rotated = apply_pose(self._shape(coefficients), pose[:, :3], np.zeros_like(pose[:, 3:]))
        placed = rotated + pose[:, None, 3:]
        depth = camera.distance - placed[..., 2]
        error = camera.project(placed) - points

        to_pixels = np.zeros((*depth.shape, 2, 3))  # d(column, row) / d(camera-frame point)
        to_pixels[..., 0, 0] = camera.focal / depth
        to_pixels[..., 1, 1] = -camera.focal / depth
        to_pixels[..., 0, 2] = camera.focal * placed[..., 0] / depth**2
        to_pixels[..., 1, 2] = -camera.focal * placed[..., 1] / depth**2

        turn = np.cross(_rotation_axes(pose[:, :3])[:, None], rotated[:, :, None])  # (N, 68, 3 angles, 3)
        jacobian = np.empty((*error.shape, len(columns)))
        jacobian[..., :3] = to_pixels @ np.swapaxes(turn, -1, -2)
        jacobian[..., 3:6] = to_pixels
        if len(columns) > 6:
            basis = self._basis[..., columns[6:] - 6]
            jacobian[..., 6:] = (to_pixels @ rotation_matrix(pose[:, :3])[:, None]) @ basis

        distance = np.linalg.norm(error, axis=-1)
        robust = np.minimum(1, self._robust_px / np.maximum(distance, 1e-9))
        weight = np.sqrt(self._weights * robust)[..., None] / self._noise_px
        flat = (jacobian * weight[..., None]).reshape(len(state), 136, -1)
        residual = (error * weight).reshape(len(state), 136, 1)
        transposed = np.swapaxes(flat, 1, 2)
        gradient = (transposed @ residual)[..., 0] + prior * state[:, columns]
        hessian = transposed @ flat
        diagonal = np.arange(len(columns))
        hessian[:, diagonal, diagonal] += prior
        return gradient, hessian


def _check_landmarks(points: Float64) -> None:
    if points.ndim != 3 or points.shape[1:] != (68, 2) or not len(points):
        raise ValueError(f"landmarks must be (N, 68, 2) crop pixels with N of at least 1, got {points.shape}")
    finite = np.isfinite(points).all((1, 2))
    if not finite.all():
        raise ValueError(f"the landmarks of face {int(np.argmin(finite))} are not finite; leave that photo out")
    spread = points[:, INNER].std(1).min(1)
    if spread.min() < 1e-3:
        raise ValueError(f"the landmarks of face {int(np.argmin(spread))} lie on a line or a point; leave it out")


def _rotation_axes(angles: Float64) -> Float64:
    """Axes (N, 3, 3) in the camera frame about which pitch, yaw and roll turn the face, for R_z R_y R_x."""
    roll = np.zeros_like(angles)
    roll[:, 2] = angles[:, 2]
    yaw_roll = angles * [0, 1, 1]
    pitch_axis, yaw_axis = rotation_matrix(yaw_roll)[..., 0], rotation_matrix(roll)[..., 1]
    return np.stack([pitch_axis, yaw_axis, np.broadcast_to([0.0, 0, 1], pitch_axis.shape)], 1)


def _damped_step(gradient: Float64, hessian: Float64, held: NDArray[np.bool_], damping: Float64) -> Float64:
    """Marquardt's step (N, P) with the ``held`` variables fixed."""
    loose = ~held
    diagonal = np.arange(hessian.shape[1])
    system = hessian * (loose[:, :, None] & loose[:, None, :])
    curvature = hessian[:, diagonal, diagonal]
    system[:, diagonal, diagonal] = np.where(held, 1, curvature * (1 + damping[:, None]) + 1e-12)
    return np.asarray(np.linalg.solve(system, (-gradient * loose)[..., None])[..., 0], np.float64)
