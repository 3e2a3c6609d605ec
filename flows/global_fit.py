"""Rivals without parts under the loss, prior and renderer that parts are fitted by: a global face model and others."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fitting import PartModes, Variable
from fitting.modes import WHOLE

from .face_fit import (
    BOUND,
    FittedFaces,
    Ignore,
    Masks,
    Variables,
    fit_shape,
    mode_variable,
    moved_pose,
    part_motion,
    pose_variables,
)
from .run_model import PartFace, PartFaceModel, Pose
from .settings import FitConfig

Values = dict[str, Tensor]


class WholeFaceFitter(ABC):
    """Fits a model that makes the whole face at once, without parts or seams, to label masks."""

    def __init__(self, model: PartFaceModel, n_controls: int, settings: FitConfig) -> None:
        """``n_controls``: how many zeros stand for the controls, which such a model has none of."""
        self.model = model
        self.settings = settings
        self._n_controls = n_controls

    @abstractmethod
    def neutral(self, values: Values) -> Tensor:
        """Neutral faces (B, V, 3) in mm."""

    @abstractmethod
    def sigma(self, values: Values) -> Tensor:
        """Every number (B, n) of the shape in its own standard deviation, the mean being 0."""

    def _fit(self, variables: Variables, pose: Pose, masks: Masks, ignore: Ignore | None) -> FittedFaces:
        """Pull B faces into line with their masks (B, 224, 224) from the start of the shape's ``variables`` on.

        The part latents of the result are the part models' own view of the fitted shape, not the shape itself.
        """
        model = self.model

        def shape(values: Values) -> Tensor:
            return model.posed(self.neutral(values), moved_pose(pose, values))

        start = {name: variable.initial for name, variable in variables.items()}
        unknown = variables | pose_variables(pose, model, self.settings)
        result = fit_shape(shape, shape, unknown, masks, ignore, model, self.settings)
        with torch.no_grad():
            vertices = self.neutral(result.values)
            motion = part_motion(model, self.neutral(start), vertices)
            face: PartFace = model.encode(vertices)
        controls = torch.zeros(len(masks), self._n_controls).numpy()
        placed, sigma = moved_pose(pose, result.values), self.sigma(result.values)
        return FittedFaces(face, face, controls, placed, result, vertices, sigma, motion)


class GlobalFitter(WholeFaceFitter):
    """Fits the identity of a run's face model to label masks, with learned modes of the whole face if wanted."""

    def __init__(self, model: PartFaceModel, modes: PartModes | None, n_controls: int, settings: FitConfig) -> None:
        """``n_controls``: how many zeros stand for the controls, which a global model has none of."""
        if settings.modes and modes is None:
            raise ValueError("fit.modes is on but no global modes were learned: set modes.global_modes")
        super().__init__(model, n_controls, settings)
        self._modes = modes if settings.modes else None
        basis = model.face_model.id_basis
        self._basis = torch.from_numpy(basis.reshape(-1, basis.shape[2]).T.copy())
        self._mean = torch.from_numpy(model.face_model.mean)

    def fit(self, identity: Tensor, pose: Pose, masks: Masks, ignore: Ignore | None = None) -> FittedFaces:
        """Pull B faces, identity (B, Ni) in standard deviations, into line with their masks (B, 224, 224).

        The part latents of the result are the part models' own view of the fitted shape, not the shape itself.
        """
        lower, upper = identity.clamp(max=-BOUND), identity.clamp(min=BOUND)
        variables = {"identity": Variable(identity, 1.0, lower, upper)}
        if self._modes is not None:
            variables["modes"] = mode_variable(len(identity), len(self._modes.of(WHOLE)), self.settings)
        return self._fit(variables, pose, masks, ignore)

    def neutral(self, values: Values) -> Tensor:
        """Neutral faces (B, V, 3) in mm of ``identity``, and of ``modes`` where they are learned."""
        shape = self._mean + (values["identity"] @ self._basis).view(len(values["identity"]), -1, 3)
        return shape if self._modes is None else shape + self._modes.displacement({WHOLE: values["modes"]})

    def sigma(self, values: Values) -> Tensor:
        """Identity and modes, whose unit is the standard deviation."""
        return torch.cat([values[name] for name in ("identity", "modes") if name in values], 1)
