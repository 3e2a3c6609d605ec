"""Fitting the latents of a rival of the part models: what our fit does, with another shape in it."""

import torch
from torch import Tensor

from fitting import Variable
from segmodel.baselines.whole import WholeFaceModel

from ..face_fit import BOUND, FittedFaces, Ignore, Masks
from ..global_fit import Values, WholeFaceFitter
from ..run_model import Latents, PartFaceModel, Pose
from ..settings import FitConfig


class RivalFitter(WholeFaceFitter):
    """Fits all latents of a model of whole faces to label masks, each in its own standard deviation."""

    def __init__(self, model: PartFaceModel, rival: WholeFaceModel, settings: FitConfig) -> None:
        """``model`` shows the faces: its mesh is the rival's."""
        super().__init__(model, 0, settings)
        self.rival = rival
        self._mean, self._std = (torch.cat(list(of.values())) for of in (rival.latent_mean, rival.latent_std))

    def fit(self, latents: Latents, pose: Pose, masks: Masks, ignore: Ignore | None = None) -> FittedFaces:
        """Pull B faces, latents {name: (B, D)}, into line with their masks (B, 224, 224).

        A latent stays within 3 standard deviations of its mean unless it starts beyond. The part latents of the result
        are the part models' own view of the fitted shape, not the shape itself.
        """
        start = torch.cat([latents[name] for name in self.rival.latent_dims], 1)
        lower = torch.minimum(self._mean - BOUND * self._std, start)
        upper = torch.maximum(self._mean + BOUND * self._std, start)
        return self._fit({"latents": Variable(start, self._std, lower, upper)}, pose, masks, ignore)

    def neutral(self, values: Values) -> Tensor:
        """Neutral faces (B, V, 3) in mm of the rival's ``latents``, its slices side by side."""
        sizes = self.rival.latent_dims
        slices = values["latents"].split(list(sizes.values()), 1)
        return self.rival.decode(dict(zip(sizes, slices, strict=True)), blend=False)

    def sigma(self, values: Values) -> Tensor:
        """The latents in standard deviations."""
        return (values["latents"] - self._mean) / self._std
