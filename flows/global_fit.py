"""The rival without parts: one global face model, driven by the same loss, prior and renderer."""

import torch
from torch import Tensor

from fitting import PartModes, Variable
from fitting.modes import WHOLE

from .face_fit import (
    BOUND,
    FittedFaces,
    Ignore,
    Masks,
    fit_shape,
    mode_variable,
    moved_pose,
    part_motion,
    pose_variables,
)
from .run_model import PartFace, PartFaceModel, Pose
from .settings import FitConfig


class GlobalFitter:
    """Fits the identity of a run's face model to label masks, with learned modes of the whole face if wanted."""

    def __init__(self, model: PartFaceModel, modes: PartModes | None, n_controls: int, settings: FitConfig) -> None:
        """``n_controls``: how many zeros stand for the controls, which a global model has none of."""
        if settings.modes and modes is None:
            raise ValueError("fit.modes is on but no global modes were learned: set modes.global_modes")
        self.model = model
        self.settings = settings
        self._n_controls = n_controls
        self._modes = modes if settings.modes else None
        basis = model.face_model.id_basis
        self._basis = torch.from_numpy(basis.reshape(-1, basis.shape[2]).T.copy())
        self._mean = torch.from_numpy(model.face_model.mean)

    def fit(self, identity: Tensor, pose: Pose, masks: Masks, ignore: Ignore | None = None) -> FittedFaces:
        """Pull B faces, identity (B, Ni) in standard deviations, into line with their masks (B, 224, 224).

        The part latents of the result are the part models' own view of the fitted shape, not the shape itself.
        """
        model = self.model

        def neutral(values: dict[str, Tensor]) -> Tensor:
            shape = self._mean + (values["identity"] @ self._basis).view(len(identity), -1, 3)
            return shape if self._modes is None else shape + self._modes.displacement({WHOLE: values["modes"]})

        def shape(values: dict[str, Tensor]) -> Tensor:
            return model.posed(neutral(values), moved_pose(pose, values))

        lower, upper = identity.clamp(max=-BOUND), identity.clamp(min=BOUND)
        variables = {"identity": Variable(identity, 1.0, lower, upper)}
        if self._modes is not None:
            variables["modes"] = mode_variable(len(identity), len(self._modes.of(WHOLE)), self.settings)
        start = {name: variable.initial for name, variable in variables.items()}
        variables |= pose_variables(pose, model, self.settings)
        result = fit_shape(shape, shape, variables, masks, ignore, model, self.settings)
        with torch.no_grad():
            vertices = neutral(result.values)
            motion = part_motion(model, neutral(start), vertices)
            face: PartFace = model.encode(vertices)
        controls = torch.zeros(len(masks), self._n_controls).numpy()
        sigma = torch.cat([result.values[name] for name in ("identity", "modes") if name in result.values], 1)
        return FittedFaces(face, face, controls, moved_pose(pose, result.values), result, vertices, sigma, motion)
