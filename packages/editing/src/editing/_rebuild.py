"""Rebuilding a face from its state with nothing decoded twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from editing.decoder import FaceDecoder
from editing.parts import REGIONS

Array = NDArray[np.floating]
KEPT = 8
"""How many results of every step are kept."""


class Rebuilder:
    """A decoder that remembers the last shapes of every region, placements and finished faces by their exact inputs.

    A result taken from memory is the array that was computed from the same bytes: remembering changes no bit. All
    results are read-only.
    """

    def __init__(self, decoder: FaceDecoder) -> None:
        self._decoder = decoder
        # one memory per region: a slider of the rest must not push the parts out of it
        self._shape = {region: lru_cache(KEPT)(self._decode_of(region)) for region in REGIONS}
        self._place = lru_cache(KEPT)(lambda latent: _frozen(decoder.place(_array(latent))))
        self._face = lru_cache(KEPT)(self._assemble)

    def place(self, rest_latent: Array) -> NDArray[np.float64]:
        """Box centres ``(5, 2)`` mm as float64."""
        return self._place(_bytes(rest_latent)).astype(np.float64)

    def face(self, latents: Mapping[str, Array], centres: Array) -> Array:
        """The finished face ``(V, 3)`` mm; ValueError when it has a coordinate that is not finite."""
        return self._face(tuple(_bytes(latents[region]) for region in REGIONS), _bytes(centres))

    def _assemble(self, latents: tuple[bytes, ...], centres: bytes) -> Array:
        shapes = {region: self._shape[region](z) for region, z in zip(REGIONS, latents, strict=True)}
        face = self._decoder.assemble(shapes, _array(centres).reshape(-1, 2))
        if not np.isfinite(face).all():
            raise ValueError("the decoded face has coordinates that are not finite")
        return _frozen(face)

    def _decode_of(self, region: str) -> Callable[[bytes], Array]:
        return lambda latent: _frozen(self._decoder.decode(region, _array(latent)))


def _bytes(values: Array) -> bytes:
    # -0.0 and 0.0 are one number: adding 0 gives it one form
    return (np.asarray(values, dtype=np.float64) + 0.0).tobytes()


def _array(values: bytes) -> NDArray[np.float64]:
    return np.frombuffer(values)


def _frozen(values: Array) -> Array:
    view = values.view()
    view.flags.writeable = False
    return view
