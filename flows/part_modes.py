"""Linear displacements beside the part decoders: the shift in x, and modes learned from masks."""

from pathlib import Path

import torch
from torch import Tensor

from fitting import PartModes
from segmodel import PartLayout

from .contracts import PARTS

PART_MODES, WHOLE_MODES = "part_modes.npz", "whole_modes.npz"


def shifts_in_x(layout: PartLayout) -> dict[str, Tensor]:
    """For each part of n vertices one direction (1, n, 3): a millimetre along x. The paper's offsets have y and z."""
    one = torch.tensor([1.0, 0.0, 0.0])
    return {part: one.expand(1, len(layout.vertices(part)), 3).contiguous() for part in PARTS}


def read_directions(folder: Path, layout: PartLayout, topology_hash: str) -> dict[str, Tensor]:
    """The shift in x and then the modes, if any were learned, of every part: (E, n, 3) in mm per unit."""
    directions = shifts_in_x(layout)
    modes = read_modes(folder / PART_MODES, topology_hash)
    if modes is None:
        return directions
    return {part: torch.cat([shift, modes.of(part)]) for part, shift in directions.items()}


def read_modes(path: Path, topology_hash: str) -> PartModes | None:
    """Learned modes, or None where none were asked for."""
    return PartModes.load(path, topology_hash) if path.exists() else None
