"""The two files of a saved face model, whatever its kind: weights and layout, and a description that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from segmodel._files import write_json, write_whole
from segmodel.layout import PartLayout

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
_LAYOUT = ("labels", "faces", "template")


@dataclass(frozen=True)
class StoredModel:
    """What :func:`read_model` found: the description, the layout, and the state of the networks on the CPU."""

    description: dict[str, Any]
    layout: PartLayout
    state: dict[str, Tensor]


def write_model(
    directory: str | Path, file_format: str, prefix: str, layout: PartLayout, state: Mapping[str, Tensor], **facts: Any
) -> None:
    """Write weights and layout, then the description with ``facts``, each file whole, into ``directory``.

    ``prefix`` stands before the names of the networks' tensors.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{prefix}.{name}": tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    tensors |= {f"layout.{name}": torch.from_numpy(getattr(layout, name)).clone() for name in _LAYOUT}
    write_whole(folder / WEIGHTS, save(tensors))
    description = {
        "format": file_format,
        "format_version": FORMAT_VERSION,
        "package_version": version("neo3df-segmodel"),
        "units": "mm",
        "topology_hash": layout.topology_hash,
        "n_vertices": layout.n_vertices,
        **facts,
    }
    write_json(folder / DESCRIPTION, description)


def read_model(
    directory: str | Path, reader: str, prefix: str, expected: Mapping[str, str], topology_hash: str | None
) -> StoredModel:
    """Read what :func:`write_model` wrote.

    Args:
        directory: the folder. reader: the class that asks, for messages. prefix: of the networks' tensors.
        expected: what the description must say, besides version and units. topology_hash: None for any.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the files hold something else, are of another version, or of another topology.
    """
    folder = Path(directory)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist: give a folder written by {reader}.save")
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    wanted = {**expected, "format_version": FORMAT_VERSION, "units": "mm"}
    found = {key: description.get(key) for key in wanted}
    if found != wanted:
        raise ValueError(f"{folder / DESCRIPTION} is {found}, {reader} reads {wanted}: train the model again")
    stored = description["topology_hash"]
    if topology_hash is not None and topology_hash != stored:
        raise ValueError(
            f"{folder} was trained on topology {stored} but topology {topology_hash} is asked for: "
            "use the face model it was trained with"
        )
    tensors = load_file(folder / WEIGHTS)
    layout = PartLayout.from_labels(*(tensors.pop(f"layout.{name}").numpy() for name in _LAYOUT))
    if layout.topology_hash != stored:
        raise ValueError(f"{folder}: model.json names topology {stored}, the weights hold {layout.topology_hash}")
    return StoredModel(description, layout, {name.removeprefix(f"{prefix}."): t for name, t in tensors.items()})
