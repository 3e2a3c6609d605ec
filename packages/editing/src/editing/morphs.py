"""Morph targets from controls: the face's movement per standard deviation, with the error of calling it linear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editing.editor import LIMIT_SIGMA, FaceEditor

RANGE_SIGMA = 3.0


@dataclass(frozen=True)
class ControlMorphs:
    """Linear stand-ins for controls, around one face.

    Attributes:
        deltas: ``{"id_nose_width": (V, 3)}`` float32 mm per standard deviation.
        max_error_mm: the same names -> largest distance over all vertices between the face and the morph at -3 and +3.
    """

    deltas: dict[str, NDArray[np.float32]]
    max_error_mm: dict[str, float]


def control_morphs(editor: FaceEditor, names: Sequence[str] | None = None) -> ControlMorphs:
    """Linearise controls around the editor's present face.

    The delta of a control is (v(c + 1) - v(c - 1)) / 2, in mm per standard deviation; four rebuilt faces per control.

    Args:
        editor: the face; its state is not changed.
        names: full names of the controls, all by default.

    Returns:
        Deltas named ``id_<region>_<control>`` and their errors.

    Raises:
        ValueError: unknown names, or a control set so far out that +-3 around it is out of the editor's range.
    """
    neutral = editor.vertices().astype(np.float64)
    deltas, errors = {}, {}
    for name in editor.names if names is None else names:
        centre = editor.get(name)
        if abs(centre) + RANGE_SIGMA > LIMIT_SIGMA:
            raise ValueError(f"{name} is at {centre:g}: morphs need it within {LIMIT_SIGMA - RANGE_SIGMA:g} of 0")
        at = {
            step: editor.build({**editor.state.controls, name: centre + step}).astype(np.float64)
            for step in (-RANGE_SIGMA, -1.0, 1.0, RANGE_SIGMA)
        }
        delta = (at[1.0] - at[-1.0]) / 2
        ends = (at[step] - neutral - step * delta for step in (-RANGE_SIGMA, RANGE_SIGMA))
        target = f"id_{name.replace('.', '_')}"
        deltas[target] = delta.astype(np.float32)
        errors[target] = max(float(np.linalg.norm(end, axis=-1).max()) for end in ends)
    return ControlMorphs(deltas, errors)
