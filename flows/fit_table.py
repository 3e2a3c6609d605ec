"""Fitted faces as rows of the ``fits`` table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fitting import PartOverlap

from .face_fit import FittedFaces
from .settings import FitConfig
from .tables import write_table


def write_fits(
    path: Path,
    face_ids: Sequence[str],
    fitted: Sequence[FittedFaces],
    seconds: NDArray[np.floating],
    settings: FitConfig,
    topology_hash: str,
) -> Path:
    """Write one row per face of the batches ``fitted``; ``seconds`` (N,) is the time each face took."""
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
        "flipped_fraction": np.concatenate([f.result.flipped for f in fitted]),
        "moved_mean": np.concatenate([f.result.moved_mean for f in fitted]),
        "moved_p99": np.concatenate([f.result.moved_p99 for f in fitted]),
        "largest_control": np.concatenate([np.abs(f.controls).max(1) for f in fitted]),
        "iterations": np.concatenate([np.full(len(f.controls), f.result.iterations) for f in fitted]),
        "seconds": seconds,
    }
    return write_table(path, "fits", columns, topology_hash=topology_hash, producer="fitting")


def _overlap_columns(overlaps: list[PartOverlap], when: str) -> dict[str, NDArray[np.generic]]:
    columns: dict[str, NDArray[np.generic]] = {f"iou_{when}": np.concatenate([overlap.iou() for overlap in overlaps])}
    for key in ("intersection", "union"):
        columns[f"{key}_{when}"] = np.concatenate([getattr(overlap, key) for overlap in overlaps])
    return columns
