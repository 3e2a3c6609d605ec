"""Fitting part faces to masks: the variables of NEO-3DF section 4.3 in natural units, and the shape they make."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing import ControllerMap
from fitting import Camera, FitResult, Variable, fit_controls
from segmodel import SeamBlender

from .contracts import PARTS
from .run_model import PartFace, PartFaceModel, Pose, part_slices
from .settings import FitConfig

CAMERA = Camera.deep3d()
EXPRESSION_UNIT = 0.3
ANGLE_UNIT = 0.02
TRANSLATION_UNIT = (1.0, 1.0, 10.0)


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
    """

    face: PartFace
    base: PartFace
    controls: NDArray[np.float32]
    pose: Pose
    result: FitResult
    neutral: Tensor


class PartFitter:
    """Fits faces of one run to label masks."""

    def __init__(self, model: PartFaceModel, controllers: ControllerMap, settings: FitConfig) -> None:
        self.model = model
        self.settings = settings
        self.rows = {part: torch.from_numpy(controllers.rows(part)).float() for part in PARTS}
        self.slices = part_slices({part: len(rows) for part, rows in self.rows.items()})

    def fit(
        self,
        start: PartFace,
        pose: Pose,
        masks: NDArray[np.uint8],
        ignore: NDArray[np.bool_] | None = None,
    ) -> FittedFaces:
        """Pull B faces into line with their masks (B, 224, 224), part ids; ``ignore`` pixels cost nothing."""
        model = self.model
        loop_blender = model.linear_blender if self.settings.blend else None
        final_blender = model.blender if self.settings.blend else None

        def shape_with(blender: SeamBlender | None, values: dict[str, Tensor]) -> Tensor:
            neutral = model.neutral(self._moved(start, values), blender)
            return model.posed(neutral, self._posed(pose, values))

        result = fit_controls(
            lambda values: shape_with(loop_blender, values),
            self._variables(start, pose),
            masks,
            CAMERA,
            faces=model.faces,
            labels=model.labels,
            iterations=self.settings.iterations,
            learning_rate=self.settings.learning_rate,
            prior=self.settings.prior,
            ramp_px=self.settings.ramp_px,
            ignore=ignore,
            final_shape_fn=lambda values: shape_with(final_blender, values),
        )
        with torch.no_grad():
            face = self._moved(start, result.values)
            neutral = model.neutral(face, final_blender)
        controls = result.values.get("controls", torch.zeros(len(masks), self.n_controls)).numpy()
        base = PartFace(start.latents if "controls" in result.values else face.latents, face.offsets)
        return FittedFaces(face, base, controls, self._posed(pose, result.values), result, neutral)

    @property
    def n_controls(self) -> int:
        """Number of controllers of the five parts."""
        return sum(len(rows) for rows in self.rows.values())

    def _variables(self, start: PartFace, pose: Pose) -> dict[str, Variable]:
        """Unit steps: one sigma, one millimetre, .3 of an expression, .02 rad (the natural units of each)."""
        batch, settings = len(start.offsets), self.settings
        variables = {}
        if settings.variables == "controls":
            variables["controls"] = Variable(torch.zeros(batch, self.n_controls), 1.0, -3.0, 3.0)
        else:
            flat = torch.cat([start.latents[part] for part in PARTS], 1)
            unit = torch.cat([self.model.segments.latent_std[part] for part in PARTS])
            variables["latents"] = Variable(torch.zeros_like(flat), unit, -3 * unit, 3 * unit)
        if settings.offsets:
            variables["offsets"] = Variable(torch.zeros(batch, 2 * len(PARTS)), 1.0)
        if settings.expression and pose.expression.shape[1]:
            low, high = torch.from_numpy(self.model.face_model.ex_range).T
            variables["expression"] = Variable(pose.expression, EXPRESSION_UNIT, low, high)
        if settings.pose:
            variables["angles"] = Variable(pose.angles, ANGLE_UNIT)
            variables["translation"] = Variable(pose.translation, torch.tensor(TRANSLATION_UNIT))
        return variables

    def _moved(self, start: PartFace, values: dict[str, Tensor]) -> PartFace:
        latents = dict(start.latents)
        if "controls" in values:
            for part, where in self.slices.items():
                latents[part] = latents[part] + values["controls"][:, where] @ self.rows[part]
        else:
            sizes = [start.latents[part].shape[1] for part in PARTS]
            for part, change in zip(PARTS, values["latents"].split(sizes, 1), strict=True):
                latents[part] = latents[part] + change
        offsets = start.offsets
        if "offsets" in values:
            offsets = offsets + values["offsets"].view(-1, len(PARTS), 2)
        return PartFace(latents, offsets)

    def _posed(self, pose: Pose, values: dict[str, Tensor]) -> Pose:
        return Pose(
            values.get("expression", pose.expression),
            values.get("angles", pose.angles),
            values.get("translation", pose.translation),
        )
