"""Modes of motion learned from free-form registrations: what the shapes of a face model lack to cover real masks.

One idea, two groupings of vertices: per part, the modes join the part's latents and stay as local as these; for all
vertices at once, they give a global face model the same help.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fitting.parts import LABEL_IDS, PARTS

FORMAT = "neo3df-part-modes-1"
WHOLE = "whole"
"""Name of the only group of `learn_global_modes`."""

_MIRROR = torch.tensor([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class PartModes:
    """Linear modes of motion of groups of vertices, in mm in the neutral model frame.

    Attributes:
        n_vertices: V of the mesh.
        vertices: {group: (n,)} int64 ids of the vertices the group's modes move, ascending.
        basis: {group: (M, n, 3)} float32 mm per unit; a coefficient of 1 is the root mean square over the samples.
        share: {group: (M,)} float64, share of the samples' energy that the first modes up to this one keep.
    """

    n_vertices: int
    vertices: dict[str, Tensor]
    basis: dict[str, Tensor]
    share: dict[str, NDArray[np.float64]]

    def of(self, group: str) -> Tensor:
        """Modes (M, n, 3) of one group, mm per unit, for the vertices ``vertices[group]``."""
        return self.basis[group]

    @property
    def energy(self) -> dict[str, float]:
        """{group: share of the samples' energy that its modes keep}."""
        return {name: float(share[-1]) for name, share in self.share.items()}

    def first(self, n_modes: int) -> PartModes:
        """The first n_modes modes of every group, which are the same as if only these had been learned."""
        return PartModes(
            self.n_vertices,
            self.vertices,
            {name: basis[:n_modes] for name, basis in self.basis.items()},
            {name: share[:n_modes] for name, share in self.share.items()},
        )

    def displacement(self, coefficients: Mapping[str, Tensor]) -> Tensor:
        """Motion of the mesh.

        Args:
            coefficients: {group: (B, M)}, in units of the samples' root mean square; groups may be left out.

        Returns:
            (B, V, 3) mm, 0 at vertices of no group given; differentiable.

        Raises:
            ValueError: no coefficients, an unknown group, or coefficients that do not fit its modes.
        """
        if not coefficients:
            raise ValueError("there are no coefficients; give (B, M) of at least one group")
        for name, values in coefficients.items():
            if name not in self.basis:
                raise ValueError(f"there are no modes of {name!r}; the groups are {', '.join(self.basis)}")
            if values.ndim != 2 or values.shape[1] != len(self.basis[name]):
                raise ValueError(
                    f"coefficients of {name!r} have shape {tuple(values.shape)}; expected (B, {len(self.basis[name])})"
                )
        batch = next(iter(coefficients.values()))
        result = batch.new_zeros(len(batch), self.n_vertices, 3)
        for name, values in coefficients.items():
            result[:, self.vertices[name].to(values.device)] = torch.tensordot(values, self.basis[name].to(values), 1)
        return result

    def save(self, path: str | Path, topology_hash: str) -> None:
        """Write an npz file whole or not at all; ``topology_hash`` names the mesh whose vertices are numbered."""
        target = Path(path)
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "topology_hash": np.array(topology_hash),
            "n_vertices": np.array(self.n_vertices),
            "groups": np.array(list(self.basis)),
        }
        for name, basis in self.basis.items():
            arrays |= {f"vertices.{name}": self.vertices[name].numpy(), f"basis.{name}": basis.numpy()}
            arrays[f"share.{name}"] = self.share[name]
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, topology_hash: str | None = None) -> PartModes:
        """Read what `save` wrote.

        Args:
            path: the file.
            topology_hash: of the mesh the modes are to be used with; None to take any.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is no modes file, or of another mesh.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
        except (ValueError, EOFError, BadZipFile, TypeError):
            arrays = {}
        if str(arrays.get("format")) != FORMAT:
            raise ValueError(f"{path} is not a file of modes ({FORMAT}); learn the modes again")
        found = str(arrays["topology_hash"])
        if topology_hash is not None and found != topology_hash:
            raise ValueError(f"{path} holds modes of topology {found}, not {topology_hash}; learn them again")
        names = [str(name) for name in arrays["groups"]]
        return cls(
            int(arrays["n_vertices"]),
            {name: torch.from_numpy(arrays[f"vertices.{name}"]) for name in names},
            {name: torch.from_numpy(arrays[f"basis.{name}"]) for name in names},
            {name: arrays[f"share.{name}"] for name in names},
        )


def _samples(displacements: ArrayLike | Tensor, mirror: ArrayLike | Tensor | None) -> Tensor:
    """(N, V, 3) or, with a mirror map, (2N, V, 3): the samples and their mirror images."""
    samples = torch.as_tensor(displacements).detach().float()
    if samples.ndim != 3 or samples.shape[2] != 3 or not len(samples):
        raise ValueError(f"displacements have shape {tuple(samples.shape)}; expected (N, V, 3) mm with N >= 1")
    bad = ~torch.isfinite(samples).flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(f"displacements hold NaN or infinity, samples {bad.nonzero().flatten().tolist()}")
    if mirror is None:
        return samples
    other = torch.as_tensor(mirror).long()
    count = samples.shape[1]
    if other.shape != (count,) or not torch.equal(other.sort().values, torch.arange(count)):
        raise ValueError(f"mirror must hold each vertex id from 0 to {count - 1} once, shape ({count},)")
    return torch.cat([samples, samples[:, other] * _MIRROR])


def _without(rows: Tensor, explained: ArrayLike | Tensor, name: str) -> Tensor:
    """Rows (N, 3n) less their orthogonal projection on the row space of ``explained`` (D, 3n)."""
    basis = torch.as_tensor(explained).to(rows)
    if basis.ndim != 2 or basis.shape[1] != rows.shape[1]:
        raise ValueError(f"explained[{name!r}] has shape {tuple(basis.shape)}; expected (D, {rows.shape[1]})")
    _, strength, directions = torch.linalg.svd(basis, full_matrices=False)
    directions = directions[strength > 1e-6 * strength.max()]
    return rows - rows @ directions.mT @ directions


def _principal(rows: Tensor, n_modes: int, name: str) -> tuple[Tensor, NDArray[np.float64]]:
    """Uncentred principal modes (M, 3n) of rows (N, 3n), scaled to root mean square 1, and their cumulative share."""
    possible = min(rows.shape)
    if not 1 <= n_modes <= possible:
        raise ValueError(f"n_modes is {n_modes}; {len(rows)} samples of {name!r} give between 1 and {possible}")
    _, strength, directions = torch.linalg.svd(rows, full_matrices=False)
    energy = strength.square()
    if not bool(energy.sum() > 0):
        raise ValueError(f"{name!r} does not move in any sample; there is nothing to learn")
    modes = directions[:n_modes] * strength[:n_modes, None] / len(rows) ** 0.5
    largest = modes.gather(1, modes.abs().argmax(1, keepdim=True))
    modes = torch.where(largest < 0, -modes, modes)  # the sign is free; fixed for repeatable files
    return modes, (energy.cumsum(0) / energy.sum())[:n_modes].numpy()


def _learn(
    samples: Tensor, groups: Mapping[str, Tensor], n_modes: int, explained: Mapping[str, ArrayLike | Tensor] | None
) -> PartModes:
    unknown = sorted(set(explained or {}) - set(groups))
    if unknown:
        raise ValueError(f"explained names {', '.join(unknown)}; the groups are {', '.join(groups)}")
    basis, share = {}, {}
    for name, ids in groups.items():
        rows = samples[:, ids].flatten(1).double()
        if explained is not None and name in explained:
            rows = _without(rows, explained[name], name)
        modes, share[name] = _principal(rows, n_modes, name)
        basis[name] = modes.view(n_modes, len(ids), 3).float()
    return PartModes(samples.shape[1], dict(groups), basis, share)


def learn_part_modes(
    displacements: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    n_modes: int = 10,
    mirror: ArrayLike | Tensor | None = None,
    explained: Mapping[str, ArrayLike | Tensor] | None = None,
) -> PartModes:
    """Principal modes of the motion of each part, one group per part.

    Args:
        displacements: (N, V, 3) mm in the neutral model frame, see `FreeForm` for the way there.
        labels: (V,) vertex label ids 1 to 6.
        n_modes: modes per part.
        mirror: (V,) id of each vertex's mirror image across x = 0; every sample then counts mirrored as well.
        explained: {part: (D, 3n)} directions of the part's n vertices that other variables already give (latents,
            offsets); they are projected out. Parts may be left out.

    Returns:
        PartModes with the groups PARTS.

    Raises:
        ValueError: wrong shapes, values that are not finite, a part without vertices or motion, a mirror map that is
            no permutation, or more modes than samples.
    """
    samples, ids = _samples(displacements, mirror), torch.as_tensor(labels)
    if ids.shape != samples.shape[1:2]:
        raise ValueError(f"labels have shape {tuple(ids.shape)}; expected ({samples.shape[1]},)")
    groups = {part: (ids == LABEL_IDS[part]).nonzero().flatten() for part in PARTS}
    empty = [part for part, vertices in groups.items() if not len(vertices)]
    if empty:
        raise ValueError(f"no vertex is labelled {', '.join(empty)}")
    return _learn(samples, groups, n_modes, explained)


def learn_global_modes(
    displacements: ArrayLike | Tensor,
    *,
    n_modes: int = 50,
    mirror: ArrayLike | Tensor | None = None,
    explained: ArrayLike | Tensor | None = None,
) -> PartModes:
    """Principal modes of the motion of the whole face, parts and surroundings at once.

    Args:
        displacements: as for `learn_part_modes`.
        n_modes: modes in all; five times the number per part is a fair rival.
        mirror: as for `learn_part_modes`.
        explained: (D, 3V) directions that other variables already give, such as an identity basis.

    Returns:
        PartModes with the one group WHOLE: the vertices that move in any sample.

    Raises:
        ValueError: as for `learn_part_modes`.
    """
    samples = _samples(displacements, mirror)
    moving = samples.abs().amax((0, 2)).nonzero().flatten()
    if explained is None:
        return _learn(samples, {WHOLE: moving}, n_modes, None)
    basis = torch.as_tensor(explained)
    if basis.ndim != 2 or basis.shape[1] != 3 * samples.shape[1]:
        raise ValueError(f"explained has shape {tuple(basis.shape)}; expected (D, {3 * samples.shape[1]})")
    own = basis.view(len(basis), -1, 3)[:, moving].flatten(1)
    return _learn(samples, {WHOLE: moving}, n_modes, {WHOLE: own})
