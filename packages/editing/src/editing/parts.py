"""Names and ids of the six face regions, and the part of a triangle; nothing that needs a shape."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

PARTS: Final = ("eyebrows", "eyes", "nose", "upper_lip", "lower_lip")
REGIONS: Final = (*PARTS, "rest")
LABEL_IDS: Final[dict[str, int]] = {
    "background": 0,
    "rest": 1,
    "eyebrows": 2,
    "eyes": 3,
    "nose": 4,
    "upper_lip": 5,
    "lower_lip": 6,
}
"""Region name -> label id; background exists in images only, never on a vertex."""


def face_labels(labels: NDArray[np.integer], faces: NDArray[np.integer]) -> NDArray[np.int64]:
    """Label id of every triangle: the majority of its three vertices, rest when all three differ.

    Args:
        labels: ``(V,)`` label id per vertex.
        faces: ``(F, 3)`` triangles.

    Returns:
        ``(F,)`` int64 label ids.
    """
    a, b, c = np.asarray(labels, dtype=np.int64)[np.asarray(faces)].T
    return np.where((a == b) | (a == c), a, np.where(b == c, b, LABEL_IDS["rest"]))
