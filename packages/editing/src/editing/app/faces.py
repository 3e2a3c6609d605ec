"""What the browser editor is given: how to open a face, the mesh it lives on, and how to keep it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editing._mesh import checked_mesh
from editing.editor import FaceEditor


def _state_alone(editor: FaceEditor, _: str | None) -> str:
    """The state of an editor's face as JSON text, without anything else the file had."""
    return editor.to_json()


@dataclass(frozen=True, eq=False)
class EditableFaces:
    """Faces of one topology, to be edited.

    Attributes:
        open: the text of a face file -> an editor of its face; None -> a new editor of the face that a tab starts with.
            Called once per tab and once per file, from several threads.
        faces: ``(F, 3)`` triangles, 0-based.
        labels: ``(V,)`` label ids 1 to 6.
        transition: ``(V,)`` bool, the skin that blending may move; None hides that view.
        photo: ``(V, 3)`` uint8 sRGB, the skin of the face that tabs start with; None hides that view.
        save: an editor, and the text its face was opened from or None -> the text of its face file; ``open`` reads it.
        export: writes an editor's face to a path, in the format of the path's ending; None offers no export.
        formats: the endings that ``export`` knows, the first is proposed.
        title: heading of the page.

    Raises:
        ValueError: faces, labels, transition and photo do not belong together.
    """

    open: Callable[[str | None], FaceEditor]
    faces: NDArray[np.integer]
    labels: NDArray[np.integer]
    transition: NDArray[np.bool_] | None = None
    photo: NDArray[np.uint8] | None = None
    save: Callable[[FaceEditor, str | None], str] = _state_alone
    export: Callable[[FaceEditor, Path], object] | None = None
    formats: tuple[str, ...] = (".glb", ".obj", ".ply", ".stl")
    title: str = "neo3df"

    def __post_init__(self) -> None:
        n_vertices = len(self.labels)
        checked_mesh(np.zeros((n_vertices, 3)), self.faces, self.labels)
        for name, values, shape in (
            ("transition", self.transition, (n_vertices,)),
            ("photo", self.photo, (n_vertices, 3)),
        ):
            if values is not None and np.shape(values) != shape:
                raise ValueError(f"{name} has shape {np.shape(values)}: expected {shape}, one row per vertex")
