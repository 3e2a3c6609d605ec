"""The editor of a face of a run: what the editing package asks of a face model, answered by the run's part models."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing import ControllerMap, FaceEditor, FaceState, MeasurementLandmarks

from .contracts import PARTS, REGIONS
from .run_model import PartFaceModel

Array = NDArray[np.floating]
STACKED = ("rest", *PARTS)


class RunDecoder:
    """Decodes, places and blends the parts of single faces by a run's model; see ``editing.FaceDecoder``."""

    def __init__(self, model: PartFaceModel) -> None:
        self._model = model
        layout = model.segments.layout
        ids = {region: layout.vertices(region) for region in STACKED}
        starts = dict(zip(STACKED, np.cumsum([0, *(len(ids[region]) for region in STACKED)])[:-1], strict=True))
        rows = {region: start + np.arange(len(ids[region])) for region, start in starts.items()}
        # of the regions in one stack, the row of each vertex: a part's own, and on its border also the rest's
        self._composed_rows = np.empty(layout.n_vertices, np.int64)
        for region in STACKED:
            self._composed_rows[ids[region]] = rows[region]
        self._rest_rows = self._composed_rows.copy()
        self._rest_rows[ids["rest"]] = rows["rest"]

    @cached_property
    def latent_mean(self) -> dict[str, Array]:
        """Mean latents; 0 for directions."""
        return self._one_per_region(self._model.segments.latent_mean)

    @cached_property
    def latent_std(self) -> dict[str, Array]:
        """Standard deviations of the latents; 0 for directions, so that no random face goes along them."""
        return self._one_per_region(self._model.segments.latent_std)

    def _one_per_region(self, values: Mapping[str, Tensor]) -> dict[str, Array]:
        padded = self._model.padded({region: row[None] for region, row in values.items()})
        return {region: padded[region][0].numpy() for region in REGIONS}

    @torch.no_grad()
    def decode(self, region: str, latent: Array) -> Array:
        """Vertices (n, 3) mm of a region; a part comes out about its box centre, moved along its directions."""
        z, d = _row(latent), self._model.segments.latent_dims[region]
        shape = self._model.segments.decode_part(region, z[:, :d])[0]
        if region in self._model.directions:
            shape = shape + (z[:, d:] @ self._model.directions[region].flatten(1)).view(-1, 3)
        return shape.numpy()

    @torch.no_grad()
    def place(self, rest_latent: Array) -> Array:
        """Box centres (5, 2) mm by the offset regressor."""
        return self._model.segments.offsets(_row(rest_latent))[0].numpy()

    @torch.no_grad()
    def assemble(self, shapes: Mapping[str, Array], centres: Array) -> Array:
        """The parts at their centres in the rest, blended (V, 3) mm."""
        shifts = np.pad(centres.astype(np.float32), ((0, 0), (1, 0)))
        parts = [shapes[part] + shift for part, shift in zip(PARTS, shifts, strict=True)]
        stack = np.concatenate([shapes["rest"], *parts])
        composed, rest = (torch.from_numpy(stack.take(rows, axis=0)) for rows in (self._composed_rows, self._rest_rows))
        return self._model.blender(composed, rest).numpy()


def editor_of(
    model: PartFaceModel, state: FaceState, controllers: ControllerMap, points: MeasurementLandmarks | None = None
) -> FaceEditor:
    """An editor of one face. Edits of the rest carry the parts along by what the offset regressor says they move."""
    return FaceEditor(state, RunDecoder(model), controllers, points)


def _row(values: Array) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))[None]
