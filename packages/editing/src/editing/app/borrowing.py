"""Widgets that take from another face file: one part of it, or a share of the whole face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from editing.app.session import EditSession
from editing.parts import REGIONS
from editing.state import FaceState


class Do(Protocol):
    """How a widget has things done."""

    def __call__(self, key: str, job: Callable[[], None], delay: float = 0.0) -> None:
        """Have a job done."""


class BorrowingWidgets:
    """Another face, and what is taken from it."""

    def __init__(self, gui: Any, session: EditSession, do: Do) -> None:
        """Build the folder in viser's ``gui``; ``do`` takes the jobs."""
        self._session = session
        self._other: FaceState | None = None
        with gui.add_folder("From another face", expand_by_default=False):
            upload = gui.add_upload_button("Other face.json", mime_type="application/json,.json", color="gray")
            self._name = gui.add_text("Face", "none yet", disabled=True)
            part = gui.add_dropdown("Part", REGIONS)
            copy = gui.add_button("Copy part")
            weight = gui.add_slider("Share", 0.0, 1.0, 0.05, 0.5, hint="0 keeps this face, 1 is the other one.")
            blend = gui.add_button("Blend faces")
        upload.on_upload(lambda event: do("other", self._reader(event.target.value)))
        copy.on_click(lambda _: do("copy", self._taker(lambda editor, other: editor.copy_part(other, part.value))))
        blend.on_click(lambda _: do("blend", self._taker(lambda editor, other: editor.blend_with(other, weight.value))))

    def _reader(self, uploaded: Any) -> Callable[[], None]:
        def read() -> None:
            self._other = self._session.read(uploaded.content)
            self._name.value = uploaded.name

        return read

    def _taker(self, take: Callable[[Any, FaceState], object]) -> Callable[[], None]:
        def take_from_other() -> None:
            other = self._other
            if other is None:
                raise ValueError("there is no other face yet: choose its face.json first")
            self._session.edit(lambda editor: take(editor, other))

        return take_from_other
