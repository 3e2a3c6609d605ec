"""The fixed colours of the face regions."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing.parts import LABEL_IDS, REGIONS

PART_COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "eyebrows": (0, 114, 178),
    "eyes": (86, 180, 233),
    "nose": (230, 159, 0),
    "upper_lip": (213, 94, 0),
    "lower_lip": (204, 121, 167),
    "rest": (214, 206, 198),
}
"""sRGB 0..255 per region: colours that colour-blind readers can tell apart (Okabe and Ito, 2008); rest is grey."""


def part_colours(labels: ArrayLike) -> NDArray[np.uint8]:
    """Colour of every vertex, triangle or pixel by its label.

    Args:
        labels: label ids 1 to 6, any shape ``(...)``.

    Returns:
        ``(..., 3)`` uint8 sRGB.

    Raises:
        ValueError: an id that is no region.
    """
    ids = np.asarray(labels)
    table = np.zeros((len(LABEL_IDS), 3), dtype=np.uint8)
    for region in REGIONS:
        table[LABEL_IDS[region]] = PART_COLOURS[region]
    if ids.size and (ids.min() < 1 or ids.max() >= len(table)):
        raise ValueError(f"labels run from {ids.min()} to {ids.max()}: mesh labels are 1 (rest) to {len(table) - 1}")
    return table[ids]
