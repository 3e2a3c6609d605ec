"""Training that was interrupted: what identifies it, and its state on disk."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segmodel._distributed import Workers
from segmodel._files import write_whole
from segmodel.layout import PartLayout
from segmodel.linear import LinearShapes

_FORMAT = "neo3df-vae-checkpoint-1"


@dataclass(frozen=True)
class TrainingIdentity:
    """What decides the result of a training: its settings, and digests (SHA-256, hex) of layout and faces."""

    settings: dict[str, Any]
    layout_sha256: str
    data_sha256: str

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """In words, where ``other``, the attributes of another identity, is not this one."""
        theirs = other["settings"]
        words = [
            f"{name} is {theirs.get(name)} there and {self.settings.get(name)} here"
            for name in sorted(self.settings.keys() | theirs.keys())
            if theirs.get(name) != self.settings.get(name)
        ]
        words += ["the labels or the mesh differ"] if other["layout_sha256"] != self.layout_sha256 else []
        return words + (["the faces or the held-out rows differ"] if other["data_sha256"] != self.data_sha256 else [])


def require_agreement(identity: TrainingIdentity, workers: Workers) -> None:
    """Raise ValueError, on every process, when one of them has other faces or settings."""
    for rank, other in enumerate(workers.from_each(vars(identity))):
        if words := identity.differences(other):
            raise ValueError(
                f"process {rank} does not train what process {workers.rank} does ({'; '.join(words)}): "
                "give all of them the same faces, labels and settings"
            )


def require_same_training(
    workers: Workers, settings: Any, layout: PartLayout, shapes: LinearShapes, held_out: NDArray[np.int64]
) -> None:
    """:func:`require_agreement` on a training with the dataclass ``settings``; one process agrees with itself."""
    if workers.count > 1:
        identity = TrainingIdentity(asdict(settings), layout_sha256(layout), data_sha256(shapes, held_out))
        require_agreement(identity, workers)


def layout_sha256(layout: PartLayout) -> str:
    """SHA-256 (hex) of labels, faces and template."""
    digest = hashlib.sha256()
    for values in (layout.labels, layout.faces, layout.template):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def data_sha256(shapes: LinearShapes, held_out: NDArray[np.int64]) -> str:
    """SHA-256 (hex) of the faces, mean, basis and coefficients, and of the row numbers that are held out."""
    digest = hashlib.sha256()
    for values in (shapes.mean, shapes.basis, shapes.coefficients):
        digest.update(values.numpy().tobytes())
    digest.update(held_out.tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, identity: TrainingIdentity, content: Mapping[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, texts, lists and dictionaries of them) and whose it is, atomically."""
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "identity": vars(identity), "content": dict(content)}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, identity: TrainingIdentity) -> dict[str, Any] | None:
    """The content that :func:`save_checkpoint` wrote for the same training, or None where there is no such file.

    Raises:
        ValueError: the file is something else, or the checkpoint of another training; the message names what differs.
    """
    if not path.is_file():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a checkpoint of this package: delete it or name another file") from error
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this package's format: delete it or name another file")
    if words := identity.differences(stored["identity"]):
        raise ValueError(
            f"{path} is the checkpoint of another training ({'; '.join(words)}): delete it or name another file"
        )
    return stored["content"]
