"""Random edits on top of each other (NEO-3DF figure 6): a later edit of one part must leave the others alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing import ControllerMap

from ..contracts import PARTS, REGIONS
from ..run_model import PartFace, PartFaceModel

STRENGTH, LIMIT = 1.5, 3.0
"""Standard deviation of the random controls, and where they are clipped, in sigma."""
BATCH = 10


@dataclass(frozen=True)
class EditPlan:
    """Random edits of N faces.

    ``regions`` (N, S): which of REGIONS each step edits, by its number; ``controls`` {region: (N, M)} in sigma, all of
    a region's at its step. The first step edits the rest, which carries the parts along; then the parts follow, in an
    order of each face's own.
    """

    regions: NDArray[np.int64]
    controls: dict[str, NDArray[np.float64]]

    @classmethod
    def random(cls, controllers: ControllerMap, count: int, n_steps: int, seed: int) -> "EditPlan":
        """A plan of ``n_steps``, 6 at most, for ``count`` faces."""
        rng = np.random.default_rng(seed)
        parts = np.stack([rng.permutation(len(PARTS)) for _ in range(count)])
        rest = np.full((count, 1), REGIONS.index("rest"))
        sizes = {region: len(fitted.names) for region, fitted in controllers.regions.items()}
        drawn = {r: STRENGTH * rng.standard_normal((count, size)) for r, size in sizes.items()}
        return cls(np.hstack([rest, parts])[:, :n_steps], {r: c.clip(-LIMIT, LIMIT) for r, c in drawn.items()})

    def rows(self, rows: slice) -> "EditPlan":
        """The same for some of the faces."""
        return EditPlan(self.regions[rows], {region: values[rows] for region, values in self.controls.items()})


@torch.no_grad()
def edited_in_steps(
    model: PartFaceModel, controllers: ControllerMap, start: PartFace, plan: EditPlan
) -> Iterator[Tensor]:
    """The blended faces (N, V, 3) as they are, and after each step of the plan; every one is decoded anew."""
    latents = model.padded(start.latents)
    placed = model.segments.offsets(start.latents["rest"])
    yield model.neutral(PartFace(latents, start.offsets), model.blender)
    for step in range(plan.regions.shape[1]):
        for number, region in enumerate(REGIONS):
            chosen = plan.regions[:, step, None] == number
            move = np.where(chosen, plan.controls[region] @ controllers.rows(region), 0.0)
            latents = {**latents, region: latents[region] + torch.from_numpy(move).float()}
        offsets = start.offsets + (model.segments.offsets(latents["rest"]) - placed)
        yield model.neutral(PartFace(latents, offsets), model.blender)


@dataclass(frozen=True)
class Stillness:
    """What N faces did where no edit of a part was meant: the part vertices, and the skin that no blending moves.

    ``compared``: vertices times steps; ``identical``: how many of them kept every bit; ``largest_mm``: the longest way.
    """

    compared: int
    identical: int
    largest_mm: float

    @property
    def share(self) -> float:
        """Of what was compared, how much is bit-identical."""
        return self.identical / self.compared


def stillness(model: PartFaceModel, controllers: ControllerMap, start: PartFace, plan: EditPlan) -> Stillness:
    """Compare each face before and after each edit of a part, at every vertex outside that part and its blending."""
    compared, identical, largest = 0, 0, 0.0
    regions_of = _region_numbers(model)
    for first in range(0, len(start.offsets), BATCH):
        rows = slice(first, first + BATCH)
        few, before = plan.rows(rows), None
        for step, after in enumerate(edited_in_steps(model, controllers, start.rows(rows), few), -1):
            if before is not None and step > 0:
                still = torch.from_numpy((regions_of >= 0) & (regions_of != few.regions[:, step, None]))
                moved = (after - before).norm(dim=-1)[still]
                same = (after == before).all(dim=-1)[still]
                compared, identical = compared + len(same), identical + int(same.sum())
                largest = max(largest, float(moved.max()))
            before = after
    return Stillness(compared, identical, largest)


def _region_numbers(model: PartFaceModel) -> NDArray[np.int64]:
    """(V,) the number of each vertex' region in REGIONS, -1 where blending moves it."""
    layout, area = model.segments.layout, model.blender.area
    numbers = np.empty(layout.n_vertices, np.int64)
    for number, region in enumerate(REGIONS):
        numbers[layout.core(region)] = number
    numbers[area.vertex_ids[area.free]] = -1
    return numbers
