"""The names of the face parts, their order and their integer label ids.

Label ids are used for vertices (1 to 6) and for label images (0 to 6, where 0 is background).
"""

from __future__ import annotations

PARTS: tuple[str, ...] = ("eyebrows", "eyes", "nose", "upper_lip", "lower_lip")
"""The five independent parts, in the order of every five-channel image."""

REGIONS: tuple[str, ...] = (*PARTS, "rest")
"""The parts and the remaining face."""

LABEL_IDS: dict[str, int] = {
    "background": 0,
    "rest": 1,
    "eyebrows": 2,
    "eyes": 3,
    "nose": 4,
    "upper_lip": 5,
    "lower_lip": 6,
}
"""Region name -> integer label id; background exists in images only."""

FIRST_PART_ID = LABEL_IDS[PARTS[0]]
"""Label id of channel 0 of a part image: channel k holds label id ``FIRST_PART_ID + k``."""
