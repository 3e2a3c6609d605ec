"""One tab's face: what a person does to it and what is to be seen of it. Nothing here knows a browser."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from editing.app.colouring import heat_colours, legend_maximum, moved_mm, transition_colours
from editing.app.faces import EditableFaces
from editing.colours import part_colours
from editing.editor import FaceEditor
from editing.state import FaceState

SKIN, PHOTO, PARTS, TRANSITION, HEAT = "Skin", "Photo", "Parts", "Transition area", "Heat map"
GESTURE_SECONDS: Final = 1.0
"""Settings of one thing that follow each other faster than this are one edit: a slider being dragged."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What is to be seen: ``vertices (V, 3)`` mm, ``colours (V, 3)`` uint8 or None for plain skin; ``legend_mm`` is the
    value of the heat map's last colour, or None."""

    vertices: NDArray[np.floating]
    colours: NDArray[np.uint8] | None = None
    legend_mm: float | None = None


class EditSession:
    """The face of one tab, its history, and how it is looked at."""

    def __init__(self, faces: EditableFaces, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the face that tabs start with.

        Args:
            faces: see ``EditableFaces``.
            clock: seconds, to tell one drag of a slider from the next.
        """
        self._faces, self._clock = faces, clock
        self._dragged: tuple[str, float] | None = None
        self.view = SKIN
        self.comparing = False
        self._open(None)

    @property
    def views(self) -> tuple[str, ...]:
        """The ways this face can be looked at."""
        missing = {PHOTO: self._faces.photo is None, TRANSITION: self._faces.transition is None}
        return tuple(view for view in (SKIN, PHOTO, PARTS, TRANSITION, HEAT) if not missing.get(view))

    def _open(self, text: str | None) -> None:
        """Edit another face from now on; distances and comparison are against it."""
        editor = self._faces.open(text)
        self.start = editor.vertices()
        self.editor, self._text, self._dragged = editor, text, None

    def set(self, name: str, sigma: float) -> None:
        """Set a control, standard deviations."""
        self._drag(name, lambda editor: editor.set(name, sigma))

    def move(self, part: str, dy: float, dz: float) -> None:
        """Put a part ``dy`` mm up and ``dz`` mm forward of where it was on the loaded face."""
        self._drag(part, lambda editor: editor.move_part(part, dy, dz))

    def _drag(self, what: str, action: Callable[[FaceEditor], None]) -> None:
        """An edit that a slider makes: all of one drag are one step of the history."""
        now = self._clock()
        same_drag = self._dragged is not None and self._dragged[0] == what and now - self._dragged[1] < GESTURE_SECONDS
        if same_drag:
            self.editor.undo()
        before = self.editor.state
        try:
            action(self.editor)
        except ValueError:
            if same_drag:
                self.editor.redo()
            raise
        self._dragged = (what, now) if self.editor.state is not before else None

    def edit(self, action: Callable[[FaceEditor], object]) -> None:
        """Do anything else to the face; it ends a drag."""
        self._dragged = None
        action(self.editor)

    def load(self, content: bytes) -> None:
        """Take the face of a face file; ValueError in one line for a file that is none."""
        self._open(_text(content))

    def read(self, content: bytes) -> FaceState:
        """The face of a face file, to take from; ValueError as in ``load``."""
        return self._faces.open(_text(content)).state

    def save(self) -> bytes:
        """The face as the content of a face file."""
        return self._faces.save(self.editor, self._text).encode()

    def export(self, ending: str) -> bytes:
        """The face as the content of a mesh file; ValueError for an ending that is not offered."""
        if self._faces.export is None or ending not in self._faces.formats:
            offered = ", ".join(self._faces.formats) if self._faces.export is not None else "none"
            raise ValueError(f"cannot export {ending}: the formats are {offered}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"face{ending}"
            self._faces.export(self.editor, path)
            return path.read_bytes()

    def picture(self) -> Picture:
        """The face as it is to be seen now: the start while comparing, in the colours of ``view``."""
        shown = self.start if self.comparing else self.editor.vertices()
        if self.view == PHOTO and self._text is None:  # of another face there is no photo
            return Picture(shown, self._faces.photo)
        if self.view == PARTS:
            return Picture(shown, part_colours(self._faces.labels))
        if self.view == TRANSITION and self._faces.transition is not None:
            return Picture(shown, transition_colours(self._faces.labels, self._faces.transition))
        if self.view == HEAT:
            moved = moved_mm(self.editor.vertices(), self.start)
            most = legend_maximum(moved)
            return Picture(shown, heat_colours(moved_mm(shown, self.start), most), most)
        return Picture(shown)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("not a face file: it is not text") from None
