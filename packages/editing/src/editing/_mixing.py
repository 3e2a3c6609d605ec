"""Faces between two faces, region by region: copying is the end of blending."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from editing.parts import PARTS
from editing.state import FaceState

Array = NDArray[np.float64]
Place = Callable[[Array], Array]
"""rest latent ``(D,)`` -> the box centres ``(5, 2)`` mm that the model gives the parts."""


def mixed(face: FaceState, other: FaceState, weights: Mapping[str, float], place: Place) -> FaceState:
    """Latents, controls and offsets of each region between two faces: weight 0 is ``face``, 1 is ``other``, exactly.

    What is mixed of an offset is how far the part stands from where the model places it for the face's own rest: so a
    part goes to its place on the new rest, and copies of different regions may come in any order.
    """
    latents = {r: _between(z, other.latents[r], weights.get(r, 0.0)) for r, z in face.latents.items()}
    return FaceState.create(
        latents, _offsets(face, other, weights, latents["rest"], place), _controls(face, other, weights)
    )


def resolved_offsets(face: FaceState, rest_latent: Array, place: Place) -> Array:
    """Offsets ``(5, 2)`` mm of the face's parts on another rest; where the model places them if the face has none."""
    placed = place(rest_latent)
    return placed if face.offsets is None else face.offsets + (placed - place(face.latents["rest"]))


def _offsets(
    face: FaceState, other: FaceState, weights: Mapping[str, float], rest: Array, place: Place
) -> Array | None:
    if face.offsets is None and other.offsets is None:
        return None
    mine, theirs = (resolved_offsets(state, rest, place) for state in (face, other))
    weight = np.array([[weights.get(part, 0.0)] for part in PARTS])
    return _between(mine, theirs, weight)


def _controls(face: FaceState, other: FaceState, weights: Mapping[str, float]) -> dict[str, float]:
    names = sorted({*face.controls, *other.controls})
    a, b = (np.array([state.controls.get(name, 0.0) for name in names]) for state in (face, other))
    weight = np.array([weights.get(name.partition(".")[0], 0.0) for name in names])
    return dict(zip(names, _between(a, b, weight).tolist(), strict=True))


def _between(a: Array, b: Array, weight: float | Array) -> Array:
    # where both are equal rounding must not part them
    return np.where(a == b, a, (1.0 - weight) * a + weight * b)
