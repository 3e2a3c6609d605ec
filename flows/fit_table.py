"""Fitted faces as rows of the ``fits`` table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fitting import PartOverlap

from .face_fit import FittedFaces
from .settings import FitConfig
from .tables import write_table

BEYOND = 3 + 1e-4
"""Standard deviations beyond which a latent number counts as unlikely; a bound that is met exactly does not."""


def write_fits(
    path: Path,
    face_ids: Sequence[str],
    fitted: Sequence[FittedFaces],
    settings: FitConfig,
    topology_hash: str,
    seconds: NDArray[np.floating] | None = None,
) -> Path:
    """Write one row per face of the batches ``fitted``.

    ``seconds`` (N,): the time each face took, where the file need not be the same bytes when it is made again.
    """
    columns = {
        "face_id": list(face_ids),
        "method": [f"{settings.variables} from {settings.start}"] * len(face_ids),
        **_overlap_columns([f.result.overlap_before for f in fitted], "before"),
        **_overlap_columns([f.result.overlap_after for f in fitted], "after"),
        "labels_before": np.concatenate([f.result.labels_before for f in fitted]),
        "labels_after": np.concatenate([f.result.labels_after for f in fitted]),
        "controls": np.concatenate([f.controls for f in fitted]),
        "offsets": np.concatenate([f.face.offsets.numpy() for f in fitted]),
        "expression": np.concatenate([f.pose.expression.numpy() for f in fitted]),
        "angles": np.concatenate([f.pose.angles.numpy() for f in fitted]),
        "translation": np.concatenate([f.pose.translation.numpy() for f in fitted]),
        "flipped_fraction": np.concatenate([f.result.realism.flipped for f in fitted]),
        "moved_mean": np.concatenate([f.result.realism.moved_mean for f in fitted]),
        "moved_p99": np.concatenate([f.result.realism.moved_p99 for f in fitted]),
        "parts_rms": np.concatenate([f.motion.square().mean(1).sqrt().numpy() for f in fitted]),
        "parts_p99": np.concatenate([np.percentile(f.motion.numpy(), 99, axis=1) for f in fitted]),
        "largest_control": np.concatenate([np.abs(f.controls).max(1) for f in fitted]),
        "latent_rms": np.concatenate([f.sigma.square().mean(1).sqrt().numpy() for f in fitted]),
        "latent_beyond_3": np.concatenate([(f.sigma.abs() > BEYOND).float().mean(1).numpy() for f in fitted]),
        "moved_offset_rms": np.concatenate([_offset_rms(f) for f in fitted]),
        "iterations": np.concatenate([np.full(len(f.controls), f.result.iterations) for f in fitted]),
        "set_aside": [reason for f in fitted for reason in f.result.reasons],
    }
    if seconds is not None:
        columns["seconds"] = seconds
    return write_table(path, "fits", columns, topology_hash=topology_hash, producer="fitting")


def _offset_rms(fitted: FittedFaces) -> NDArray[np.float32]:
    """Root mean square motion (B,) of the parts' positions in mm; 0 where they were held."""
    values = fitted.result.values
    moves = [values[name] for name in ("offsets", "shift_x") if name in values]
    if not moves:
        return np.zeros(len(fitted.controls), np.float32)
    return torch.cat(moves, 1).square().mean(1).sqrt().numpy()


def _overlap_columns(overlaps: list[PartOverlap], when: str) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {f"iou_{when}": np.concatenate([overlap.iou() for overlap in overlaps])}
    for key in ("intersection", "union"):
        columns[f"{key}_{when}"] = np.concatenate([getattr(overlap, key) for overlap in overlaps])
    return columns
