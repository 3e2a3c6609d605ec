"""Colours of the vertices for each way of looking at a face, and the heat map's legend. Arrays only."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editing.colours import PART_COLOURS, part_colours
from editing.parts import LABEL_IDS

Colours = NDArray[np.uint8]

SKIN: Final = (224, 180, 154)
"""sRGB of plain skin."""
TRANSITION: Final = (0, 158, 115)
"""sRGB of skin that blending may move."""
HEAT: Final = ((214, 206, 198), (253, 187, 132), (227, 74, 51), (127, 0, 0))
"""sRGB at equal steps from nothing (the grey of the rest) to the most: light to dark, so it also reads without hues."""
LEAST_LEGEND_MM: Final = 0.1


def transition_colours(labels: ArrayLike, transition: ArrayLike) -> Colours:
    """Skin that blending may move in green, the parts it hangs on in their colours, everything else grey.

    Args:
        labels: ``(V,)`` label ids.
        transition: ``(V,)`` bool.

    Returns:
        ``(V, 3)`` uint8 sRGB.
    """
    moves = np.asarray(transition, dtype=bool) & (np.asarray(labels) == LABEL_IDS["rest"])
    return np.where(moves[:, None], np.array(TRANSITION, np.uint8), part_colours(labels))


def moved_mm(vertices: ArrayLike, start: ArrayLike) -> NDArray[np.float64]:
    """How far every vertex is from where it started: two ``(V, 3)`` in mm -> ``(V,)`` mm."""
    return np.linalg.norm(np.asarray(vertices, np.float64) - np.asarray(start, np.float64), axis=1)


def heat_colours(values: ArrayLike, most: float) -> Colours:
    """Values from 0 to ``most`` as colours; what is beyond has the last colour.

    Args:
        values: ``(...)``, 0 or more.
        most: the value of the last colour, above 0.

    Returns:
        ``(..., 3)`` uint8 sRGB.
    """
    at = np.clip(np.asarray(values, np.float64) / most, 0, 1) * (len(HEAT) - 1)
    steps, table = np.arange(len(HEAT)), np.array(HEAT, np.float64)
    return np.stack([np.interp(at, steps, table[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def legend_maximum(values: ArrayLike) -> float:
    """The end of the legend for these values in mm: the next of 0.1, 0.2, 0.5, 1, 2, 5, ... that holds them all."""
    largest = float(np.max(values, initial=0.0))
    if largest <= LEAST_LEGEND_MM:
        return LEAST_LEGEND_MM
    decade = 10.0 ** np.floor(np.log10(largest))
    return float(next(step * decade for step in (1, 2, 5, 10) if step * decade >= largest * (1 - 1e-9)))


def linear_light(colours: ArrayLike) -> NDArray[np.float32]:
    """sRGB ``(..., 3)`` uint8 as linear light 0..1, the form that glTF vertex colours have (IEC 61966-2-1)."""
    levels = np.arange(256) / 255
    table = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return table[np.asarray(colours, np.uint8)]


def legend_html(most: float) -> str:
    """The heat map's colour bar with its numbers in mm, as HTML."""
    stops = ", ".join(f"rgb{colour}" for colour in HEAT)
    bar = f"height:0.8em;border-radius:2px;background:linear-gradient(to right, {stops})"
    numbers = "".join(f"<span>{value:g}{unit}</span>" for value, unit in ((0, ""), (most / 2, ""), (most, " mm")))
    return _framed(
        f'<div>Distance from the start</div><div style="{bar}"></div>'
        f'<div style="display:flex;justify-content:space-between">{numbers}</div>'
    )


def parts_html(transition: bool) -> str:
    """What the colours of the parts mean, as HTML; with ``transition``, the skin that blending moves as well."""
    shown = {**PART_COLOURS, "transition area": TRANSITION} if transition else PART_COLOURS
    swatch = "display:inline-block;width:0.8em;height:0.8em;border-radius:2px;margin-right:0.35em"
    entries = (
        f'<span style="display:inline-block;margin-right:0.9em"><span style="{swatch};background:rgb{colour}"></span>'
        f"{name.replace('_', ' ')}</span>"
        for name, colour in shown.items()
    )
    return _framed("".join(entries))


def _framed(content: str) -> str:
    return f'<div style="font-size:0.85em;padding:0.1em 1em 0.5em">{content}</div>'
