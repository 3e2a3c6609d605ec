"""What the editor needs of a face model: its parts one by one, where they sit, and how they become a face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class FaceDecoder(Protocol):
    """From latents to a face in steps, so that an editor can keep every step whose input did not change.

    All of it must be repeatable: equal inputs give bit-identical results. Arrays passed in are float64 and read-only.
    Several editors may share a decoder.
    """

    @property
    def latent_mean(self) -> Mapping[str, Array]:
        """Region -> ``(D,)`` mean latent over the training faces; every region of ``REGIONS``."""

    @property
    def latent_std(self) -> Mapping[str, Array]:
        """Region -> ``(D,)`` standard deviation of the latents over the training faces."""

    def decode(self, region: str, latent: NDArray[np.float64]) -> Array:
        """Vertices ``(n, 3)`` mm of one region from its latent ``(D,)``; a part comes out where its box centre is 0."""

    def place(self, rest_latent: NDArray[np.float64]) -> Array:
        """Box centres ``(5, 2)`` mm, y and z of each part in order of ``PARTS``, that the rest's latent asks for.

        In float32 their sums and differences are exact in float64: then copies commute to the last bit.
        """

    def assemble(self, shapes: Mapping[str, Array], centres: NDArray[np.float64]) -> Array:
        """The finished face ``(V, 3)`` mm from all ``decode``d regions, the parts at ``centres (5, 2)`` mm, seams
        made natural."""
