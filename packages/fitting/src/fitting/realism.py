"""How far a fit went to get its overlap: what to read beside an IoU, which says nothing about the face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting.flips import Orientation
from fitting.parts import FIRST_PART_ID

FAR = 3.0
"""Values more than this many units from their centre are counted as far."""

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Realism:
    """Realism of B fitted faces against their starts; NaN for a photo whose start had no finite shape.

    Attributes:
        flipped: (B,) share of triangles whose normal points the other way than at the start.
        moved_mean, moved_rms, moved_p99: (B,) mm, mean, root mean square and 99th percentile of the motion of all
            vertices in the camera frame, pose and expression included.
        parts_rms, parts_p99: (B,) mm, the same of the vertices that are labelled as a part.
        unit_rms: {name: (B,)} root mean square of ``(x - centre) / unit`` of a variable, with the centre of its prior.
        far: {name: (B,)} share of its values more than 3 units from there.
    """

    flipped: Figures
    moved_mean: Figures
    moved_rms: Figures
    moved_p99: Figures
    parts_rms: Figures
    parts_p99: Figures
    unit_rms: dict[str, Figures]
    far: dict[str, Figures]

    @classmethod
    def of(
        cls,
        before: Tensor,
        after: Tensor,
        orientation: Orientation,
        labels: NDArray[np.integer],
        from_centre: Mapping[str, Tensor],
    ) -> Realism:
        """Realism of shapes.

        Args:
            before, after: (B, V, 3) mm; NaN in ``before`` marks a photo without a start.
            orientation: of ``before``.
            labels: (V,) vertex label ids.
            from_centre: {name: (B, n)} distances of the variables from their centres, in units.
        """
        moved = (after - before).norm(dim=-1).double().cpu().numpy()
        parts = moved[:, labels >= FIRST_PART_ID]
        flipped = orientation.flipped(after).numpy()
        flipped[np.isnan(moved).any(1)] = np.nan
        sizes = {name: values.detach().double().cpu().abs() for name, values in from_centre.items()}
        return cls(
            flipped,
            moved.mean(1),
            _rms(moved),
            _p99(moved),
            _rms(parts),
            _p99(parts),
            {name: _rms(size.numpy()) for name, size in sizes.items()},
            {name: _share(size) for name, size in sizes.items()},
        )


def _rms(values: Figures) -> Figures:
    if not values.shape[1]:
        return np.zeros(len(values))
    return np.asarray(np.sqrt(np.square(values).mean(1)))


def _p99(values: Figures) -> Figures:
    if not values.shape[1]:
        return np.zeros(len(values))
    return np.asarray(np.percentile(values, 99, axis=1))


def _share(sizes: Tensor) -> Figures:
    """Share beyond FAR; float32 rounding of a value clamped to FAR does not count."""
    return torch.gt(sizes, FAR * (1 + 1e-5)).double().sum(1).div(max(sizes.shape[1], 1)).numpy()
