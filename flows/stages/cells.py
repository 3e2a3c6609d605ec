"""compare_settings: the eight cells of NEO-3DF's table 3, with the paper's step size and with one in natural units."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from fitting import PartOverlap

from ..face_fit import PartFitter
from ..methods import MASK
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, validation_faces
from ..run_model import load_controllers, load_network, load_part_face_model
from ..settings import FitConfig, RunConfig
from ..tables import write_table

STEP_SIZES: Mapping[str, Mapping[str, object]] = {
    "natural": {},
    "literal": {"learning_rate": 1e-3, "prior": 0.0, "loss": "frobenius"},
}
"""Settings of each step size. The literal one moves nothing by more than .02 sigma or .02 mm in 20 iterations."""

START = "start"
"""Step of the rows of a cell before any iteration."""


@dataclass(frozen=True)
class Cell:
    """One cell of table 3: what may move, and whether seams are blended."""

    variables: str
    offsets: bool
    blend: bool

    @property
    def name(self) -> str:
        """As tables name it."""
        offsets, blending = " + offsets" if self.offsets else "", "blended" if self.blend else "not blended"
        return f"{self.variables}{offsets}, {blending}"

    @property
    def shard(self) -> str:
        """As files name it."""
        return f"{self.variables}-{'offsets' if self.offsets else 'alone'}-{'blended' if self.blend else 'open'}"

    def settings(self, step_size: str) -> FitConfig:
        """Fit settings of this cell: the paper's 20 iterations, no expression and no pose."""
        offsets = "yz" if self.offsets else "none"
        cell = {"variables": self.variables, "offsets": offsets, "blend": self.blend, "iterations": 20}
        return FitConfig.model_validate({**cell, **STEP_SIZES[step_size]})


_ALL = product(("latents", "controls"), (False, True), (False, True))
CELLS = {cell.shard: cell for cell in (Cell(*chosen) for chosen in _ALL)}


def shards(context: StageContext) -> list[str]:
    """Names of the cells; none where no faces are asked for."""
    return list(CELLS) if context.config.cells.n_faces else []


def run_shard(context: StageContext, shard: str) -> None:
    """Fit the chosen validation faces from the fine-tuned network on, with both step sizes."""
    torch.set_num_threads(1)
    cell, inputs = CELLS[shard], context.inputs
    model = load_part_face_model(inputs)
    controllers, _ = load_controllers(inputs, model)
    faces = chosen_faces(validation_faces(load_faces(inputs["build_dataset"])), context.config)
    masks, ignore = faces.masks()
    network = load_network(inputs, context.config.regressors.encoder, fine_tuned=True)
    start = network(faces.crops(), faces.five_points)
    overlaps: dict[str, list[PartOverlap]] = {}
    context.progress.start(cell.name, len(STEP_SIZES) * len(faces))
    for step_size in STEP_SIZES:
        settings = cell.settings(step_size)
        fitter = PartFitter(model, controllers, settings)
        for first in range(0, len(faces), settings.batch_size):
            rows = slice(first, first + settings.batch_size)
            result = fitter.fit(start.rows(rows), faces.pose.rows(rows), masks[rows], ignore[rows]).result
            overlaps.setdefault(step_size, []).append(result.overlap_after)
            if step_size == "natural":
                overlaps.setdefault(START, []).append(result.overlap_before)
            context.progress.advance(len(masks[rows]))
    context.progress.finish()
    _write(context, cell, faces, {step: PartOverlap.concatenate(parts) for step, parts in overlaps.items()})


def chosen_faces(faces: RunFaces, config: RunConfig) -> RunFaces:
    """``cells.n_faces`` of the faces, evenly chosen."""
    count = min(config.cells.n_faces, len(faces))
    chosen = np.zeros(len(faces), bool)
    chosen[np.linspace(0, len(faces) - 1, count).round().astype(int)] = True
    return faces.where(chosen)


def finish(context: StageContext) -> None:
    """How many faces there are in each cell."""
    metrics = MetricRows()
    if context.config.cells.n_faces:
        n = len(chosen_faces(validation_faces(load_faces(context.inputs["build_dataset"])), context.config))
        metrics.add("cells", "all", "faces", n, n)
    metrics.write(context.out)


def _write(context: StageContext, cell: Cell, faces: RunFaces, overlaps: Mapping[str, PartOverlap]) -> None:
    columns: dict[str, object] = {
        "face_id": faces.face_id * len(overlaps),
        "person": list(faces.person) * len(overlaps),
        "model": [cell.name] * (len(faces) * len(overlaps)),
        "step": [step for step in overlaps for _ in faces.face_id],
        "reference": [MASK] * (len(faces) * len(overlaps)),
    }
    for key in ("intersection", "union", "predicted_area", "target_area"):
        columns[key] = np.concatenate([getattr(overlap, key) for overlap in overlaps.values()])
    write_table(context.out / f"overlaps-{cell.shard}.parquet", "overlaps", columns, producer="fitting")
