"""What a face parser says, and in which order the parsers of others count their classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .masks import BISENET_CLASSES, CELEBAMASK_CLASSES, labels_from_index_mask
from .parts import LABEL_IDS, PARTS

PARSER_CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"bisenet": BISENET_CLASSES, "parsenet": CELEBAMASK_CLASSES}
)
"""Class names by index of each foreign parser: BiSeNet was trained on classes in an order of its own (zllrunning
2019), ParseNet in the official order of CelebAMask-HQ (Chen et al. 2021)."""

_SMALLEST_PART = 20  # pixels of a crop; a part of fewer is too thin to be scored


@dataclass(frozen=True, eq=False)
class ParsedFaces:
    """Parsing of B standard crops.

    Attributes:
        labels: (B, 224, 224) uint8 label ids, 0 where nothing of the face is seen.
        ignore: (B, 224, 224) bool, where hair, a hat or glasses may hide the face; labels are 0 there.
    """

    labels: NDArray[np.uint8]
    ignore: NDArray[np.bool_]


def labels_of_classes(indices: NDArray[np.integer], parser: str) -> ParsedFaces:
    """Our labels of class indices (B, H, W) that the parser named "bisenet" or "parsenet" gave.

    Raises:
        ValueError: no such parser, or an index out of range.
    """
    if parser not in PARSER_CLASSES:
        raise ValueError(f"no label order for a parser named {parser!r}; there are {', '.join(PARSER_CLASSES)}")
    flat, ignore = labels_from_index_mask(
        indices.reshape(-1, indices.shape[-1]), PARSER_CLASSES[parser], f"output of {parser}"
    )
    return ParsedFaces(flat.reshape(indices.shape), ignore.reshape(indices.shape))


def parsing_iou(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Intersection over union (B, 5) of each of PARTS in label images (B, H, W); NaN where the truth has < 20 pixels.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"label images must be (B, H, W) alike, got {predicted.shape} and {truth.shape}")
    scores = np.full((len(truth), len(PARTS)), np.nan)
    for column, part in enumerate(PARTS):
        found, wanted = predicted == LABEL_IDS[part], truth == LABEL_IDS[part]
        union = (found | wanted).sum((1, 2))
        scored = wanted.sum((1, 2)) >= _SMALLEST_PART
        scores[scored, column] = (found & wanted).sum((1, 2))[scored] / union[scored]
    return scores
