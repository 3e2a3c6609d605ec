"""Morph targets from the expressions of a linear face model, named as ARKit names its blend shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SIDES = {"L": "Left", "R": "Right"}


def expression_name(name: str, position: int) -> str:
    """A face model's name of an expression in ARKit's lower camelCase.

    ``eyeBlink_L`` becomes ``eyeBlinkLeft``, ``jaw_open`` becomes ``jawOpen``; a name that is only a number, as
    ``expression_07`` of a PCA basis, becomes ``ex_07`` after its ``position``.
    """
    words = [_SIDES.get(word, word) for word in re.split(r"[\W_]+", name) if word]
    if not words or re.fullmatch(r"[A-Za-z]*\d+", "".join(words)):
        return f"ex_{position:02d}"
    first, *others = words
    return first[0].lower() + first[1:] + "".join(word[0].upper() + word[1:] for word in others)


def expression_morphs(basis: ArrayLike, names: Sequence[str], ranges: ArrayLike) -> dict[str, NDArray[np.float32]]:
    """Expressions as morph targets: weight 1 is the full expression.

    Args:
        basis: ``(V, 3, E)`` mm per unit of each expression.
        names: the face model's E names.
        ranges: ``(E, 2)`` least and greatest value; the greatest is weight 1.

    Returns:
        ``{"eyeBlinkLeft": (V, 3)}`` float32 mm, in the model's order; exact, since the expressions are linear.

    Raises:
        ValueError: numbers of expressions that differ, a greatest value that is not above 0, or two names that become
            one.
    """
    modes, span = np.asarray(basis), np.asarray(ranges, dtype=np.float64)
    if modes.ndim != 3 or modes.shape[1] != 3 or len(names) != modes.shape[2] or span.shape != (len(names), 2):
        raise ValueError(
            f"basis {modes.shape}, {len(names)} names and ranges {span.shape} do not fit: expected (V, 3, E), E, (E, 2)"
        )
    targets: dict[str, NDArray[np.float32]] = {}
    for position, name in enumerate(names):
        full, target = float(span[position, 1]), expression_name(name, position)
        if not (np.isfinite(full) and full > 0):
            raise ValueError(f"expression {name!r} reaches to {full}: its greatest value must be above 0")
        if target in targets:
            raise ValueError(f"expression {name!r} would be a second target {target!r}: give it another name")
        targets[target] = (modes[:, :, position] * full).astype(np.float32)
    return targets
