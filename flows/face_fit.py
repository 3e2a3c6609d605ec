"""Fitting faces to masks: the variables of NEO-3DF section 4.3 and beyond in natural units, and the shape they make."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing import ControllerMap
from fitting import LABEL_IDS, Camera, FitResult, Variable, fit_controls, frobenius_loss

from .contracts import PARTS
from .run_model import PartFace, PartFaceModel, Pose, part_slices
from .settings import FitConfig

CAMERA = Camera.deep3d()
EXPRESSION_UNIT = 0.3
ANGLE_UNIT = 0.02
TRANSLATION_UNIT = (1.0, 1.0, 10.0)
BOUND = 3.0

Masks = NDArray[np.uint8]
Ignore = NDArray[np.bool_]
Variables = dict[str, Variable]
Shape = Callable[[dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class FittedFaces:
    """B faces after fitting.

    Attributes:
        face: what makes the fitted faces.
        base: the same before ``controls`` (B, 22), in sigma over the five parts, were applied; kept apart so that an
            editor can go on from them.
        pose: expression and pose.
        result: the fit itself.
        neutral: vertices (B, V, 3) in mm.
        sigma: (B, n) every latent number of the shape in its own standard deviation, the mean being 0.
        motion: (B, p) how far each vertex of a part moved from the start in the frame of the neutral face, mm.
    """

    face: PartFace
    base: PartFace
    controls: NDArray[np.float32]
    pose: Pose
    result: FitResult
    neutral: Tensor
    sigma: Tensor
    motion: Tensor


class PartFitter:
    """Fits the parts of faces of one run to label masks."""

    def __init__(self, model: PartFaceModel, controllers: ControllerMap | None, settings: FitConfig) -> None:
        """``controllers`` may be left out where none is to be fitted."""
        if controllers is None and settings.variables == "controls":
            raise ValueError("fit.variables is controls but there is no controller map")
        if settings.modes and all(model.n_directions(part) < 2 for part in PARTS):
            raise ValueError("fit.modes is on but no modes were learned: set modes.n_modes")
        self.model = model
        self.settings = settings
        rows = {part: np.zeros((0, model.latent_dims[part])) for part in PARTS}
        if controllers is not None:
            rows = {part: controllers.rows(part) for part in PARTS}
        self.rows = {part: torch.from_numpy(matrix).float() for part, matrix in rows.items()}
        self.slices = part_slices({part: len(rows) for part, rows in self.rows.items()})

    def fit(self, start: PartFace, pose: Pose, masks: Masks, ignore: Ignore | None = None) -> FittedFaces:
        """Pull B faces into line with their masks (B, 224, 224), part ids; ``ignore`` pixels cost nothing."""
        model, settings = self.model, self.settings
        start = PartFace(model.padded(start.latents), start.offsets)
        in_the_loop = model.blender.with_solves(settings.loop_solves) if settings.blend else None
        in_full = model.blender if settings.blend else None
        with torch.no_grad():
            skin = model.segments.decode_part("rest", start.latents["rest"])  # no variable moves it

        def shape(values: dict[str, Tensor]) -> Tensor:
            return model.posed(model.neutral(self._moved(start, values), in_the_loop, skin), moved_pose(pose, values))

        def final_shape(values: dict[str, Tensor]) -> Tensor:
            return model.posed(model.neutral(self._moved(start, values), in_full, skin), moved_pose(pose, values))

        variables = self._variables(start) | pose_variables(pose, model, settings)
        result = fit_shape(shape, final_shape, variables, masks, ignore, model, settings)
        with torch.no_grad():
            face = self._moved(start, result.values)
            neutral = model.neutral(face, in_full)
            motion = part_motion(model, model.neutral(start, in_full), neutral)
        controls = result.values.get("controls", torch.zeros(len(masks), self.n_controls)).numpy()
        latents = self._moved(start, {k: v for k, v in result.values.items() if k != "controls"}).latents
        base = PartFace(latents, face.offsets)
        placed = moved_pose(pose, result.values)
        return FittedFaces(face, base, controls, placed, result, neutral, self._sigma(face), motion)

    @property
    def n_controls(self) -> int:
        """Number of controllers of the five parts."""
        return sum(len(rows) for rows in self.rows.values())

    def _variables(self, start: PartFace) -> Variables:
        """Unit steps: one sigma of a control or latent, one millimetre, one standard deviation of a learned mode."""
        batch, settings = len(start.offsets), self.settings
        variables = {}
        if settings.variables == "controls":
            variables["controls"] = Variable(torch.zeros(batch, self.n_controls), 1.0, -BOUND, BOUND)
        if settings.variables == "latents":
            variables["latents"] = self._latents(start)
        if settings.offsets != "none":
            variables["offsets"] = Variable(torch.zeros(batch, 2 * len(PARTS)), 1.0)
        if settings.offsets == "xyz":
            variables["shift_x"] = Variable(torch.zeros(batch, len(PARTS)), 1.0)
        if settings.modes:
            n_modes = sum(self.model.n_directions(part) - 1 for part in PARTS)
            variables["modes"] = mode_variable(batch, n_modes, settings)
        return variables

    def _latents(self, start: PartFace) -> Variable:
        """Change of the decoders' numbers; the total stays within 3 sigma of the mean unless it starts beyond."""
        segments = self.model.segments
        mean, unit = (torch.cat([of[part] for part in PARTS]) for of in (segments.latent_mean, segments.latent_std))
        now = torch.cat([start.latents[part][:, : segments.latent_dims[part]] for part in PARTS], 1)
        lower, upper = mean - BOUND * unit - now, mean + BOUND * unit - now
        return Variable(torch.zeros_like(now), unit, lower.clamp(max=0), upper.clamp(min=0))

    def _sigma(self, face: PartFace) -> Tensor:
        """The parts' latents in standard deviations; the shift in x, which has none, is left out."""
        segments, columns = self.model.segments, []
        for part in PARTS:
            z, dim = face.latents[part], segments.latent_dims[part]
            columns += [(z[:, :dim] - segments.latent_mean[part]) / segments.latent_std[part], z[:, dim + 1 :]]
        return torch.cat(columns, 1)

    def _moved(self, start: PartFace, values: dict[str, Tensor]) -> PartFace:
        latents = dict(start.latents)
        sizes = [self.model.segments.latent_dims[part] for part in PARTS]
        if "controls" in values:
            for part, where in self.slices.items():
                latents[part] = latents[part] + values["controls"][:, where] @ self.rows[part]
        if "latents" in values:
            for part, change in zip(PARTS, values["latents"].split(sizes, 1), strict=True):
                latents[part] = latents[part] + torch.nn.functional.pad(change, (0, self.model.n_directions(part)))
        if "shift_x" in values or "modes" in values:
            for part, change in self._directions(values).items():
                latents[part] = latents[part] + torch.nn.functional.pad(
                    change, (self.model.segments.latent_dims[part], 0)
                )
        offsets = start.offsets
        if "offsets" in values:
            offsets = offsets + values["offsets"].view(-1, len(PARTS), 2)
        return PartFace(latents, offsets)

    def _directions(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Coefficients of each part's directions: the shift in x, then the learned modes."""
        counts = [self.model.n_directions(part) - 1 for part in PARTS]
        batch = len(next(iter(values.values())))
        shift = values.get("shift_x", torch.zeros(batch, len(PARTS)))
        modes = values.get("modes", torch.zeros(batch, sum(counts))).split(counts, 1)
        return {part: torch.cat([shift[:, k, None], modes[k]], 1) for k, part in enumerate(PARTS)}


def mode_variable(batch: int, n_modes: int, settings: FitConfig) -> Variable:
    """Coefficients of learned modes in standard deviations."""
    return Variable(torch.zeros(batch, n_modes), 1.0, -BOUND, BOUND, settings.modes_prior)


def part_motion(model: PartFaceModel, start: Tensor, end: Tensor) -> Tensor:
    """Distances (B, p) between the vertices of the parts of neutral faces (B, V, 3)."""
    return (end - start)[:, model.labels != LABEL_IDS["rest"]].norm(dim=-1)


def fit_shape(
    shape: Shape,
    final_shape: Shape,
    variables: Variables,
    masks: Masks,
    ignore: Ignore | None,
    model: PartFaceModel,
    settings: FitConfig,
) -> FitResult:
    """One batch of `fit_controls` with a run's settings."""
    return fit_controls(
        shape,
        variables,
        masks,
        CAMERA,
        faces=model.faces,
        labels=model.labels,
        iterations=settings.iterations,
        learning_rate=settings.learning_rate,
        prior=settings.prior,
        ramp_px=settings.ramp_px,
        binary_after=settings.binary_after,
        flip_penalty=settings.flip_penalty,
        loss=frobenius_loss if settings.loss == "frobenius" else None,
        gradient=settings.gradient,
        ignore=ignore,
        final_shape_fn=final_shape,
    )


def pose_variables(pose: Pose, model: PartFaceModel, settings: FitConfig) -> Variables:
    """Expression in steps of .3, angles of .02 rad, translation of (1, 1, 10) mm: those that may move."""
    variables = {}
    if settings.expression and pose.expression.shape[1]:
        low, high = torch.from_numpy(model.face_model.ex_range).T
        variables["expression"] = Variable(pose.expression, EXPRESSION_UNIT, low, high)
    if settings.pose:
        variables["angles"] = Variable(pose.angles, ANGLE_UNIT)
        variables["translation"] = Variable(pose.translation, torch.tensor(TRANSLATION_UNIT))
    return variables


def moved_pose(pose: Pose, values: dict[str, Tensor]) -> Pose:
    """Expression and pose with what was fitted of them."""
    return Pose(
        values.get("expression", pose.expression),
        values.get("angles", pose.angles),
        values.get("translation", pose.translation),
    )
