"""The widgets of one tab: what a person asks is handed on as jobs, what the face has become is written back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from editing.app.borrowing import BorrowingWidgets
from editing.app.colouring import legend_html, parts_html
from editing.app.session import HEAT, SKIN, TRANSITION, EditSession, Picture
from editing.catalogue import CONTROLLERS, Controller
from editing.parts import PARTS, REGIONS

SLIDER_SIGMA: Final = 3.0
STEP: Final = 0.1
REACH_MM: Final = 10.0
STEP_MM: Final = 0.5
TYPING_SECONDS: Final = 0.6
"""A number being typed is taken as meant when it has not changed for this long."""
CATALOGUE: Final = {controller.key: controller for controller in CONTROLLERS}
ALL: Final = "whole face"
JSON: Final = "application/json,.json"


class Submit(Protocol):
    """How the panel has things done: ``Worker.submit``."""

    def __call__(self, key: str, job: Callable[[], None], delay: float = 0.0) -> None:
        """Have a job done."""


class Panel:
    """Sliders, numbers and buttons of one tab."""

    def __init__(
        self,
        gui: Any,
        session: EditSession,
        submit: Submit,
        download: Callable[[str, bytes], None],
        formats: tuple[str, ...],
    ) -> None:
        """Build the widgets.

        Args:
            gui: viser's GUI of the tab.
            session: the tab's face.
            submit: takes the jobs.
            download: file name and content -> the browser.
            formats: endings of the meshes that can be exported, may be empty.
        """
        self._gui, self._session, self._submit, self._download = gui, session, submit, download
        self._sliders: dict[str, Any] = {}
        self._exact: dict[str, Any] = {}
        self._places: dict[str, tuple[Any, Any]] = {}
        self._held: str | None = None
        self._measures = session.editor.can_measure
        self._add_history()
        self._add_views()
        for region in REGIONS:
            names = [name for name in session.editor.names if name.startswith(f"{region}.")]
            if names:
                self._add_region(region, names, opened=not self._sliders)
        self._add_random()
        BorrowingWidgets(gui, session, self._do)
        self._add_files(formats)

    def refresh(self, picture: Picture) -> None:
        """Write the face's controls and measurements, and the legend of a picture, into the widgets."""
        editor = self._session.editor
        for name, slider in self._sliders.items():
            if name != self._held:  # else the person's hand and this would pull at it at once
                slider.value = min(max(editor.get(name), -SLIDER_SIGMA), SLIDER_SIGMA)
        for part, places in self._places.items():
            if part != self._held:
                for slider, distance in zip(places, editor.moved(part), strict=True):
                    slider.value = round(min(max(distance, -REACH_MM), REACH_MM), 2)
        if self._exact:
            measured = editor.measurements()
            for name, number in self._exact.items():
                number.value = round(measured[name], 2)
        view = self._session.view
        self._legend.visible = view != SKIN
        if picture.legend_mm is not None:
            self._legend.content = legend_html(picture.legend_mm)
        elif view not in (SKIN, HEAT):
            self._legend.content = parts_html(view == TRANSITION)
        self._compare.value, self._view.value = self._session.comparing, view

    def _do(self, key: str, job: Callable[[], None], delay: float = 0.0) -> None:
        """Anything but a slider: it may change any control, so no slider is left as it is."""

        def release_and_do() -> None:
            self._held = None
            job()

        self._submit(key, release_and_do, delay)

    def _add_history(self) -> None:
        edits = {"Undo": self._undo, "Redo": self._redo, "Reset all": lambda: self._session.edit(lambda e: e.restore())}
        buttons = self._gui.add_button_group("Edit", tuple(edits), hint="Ctrl+Z and Ctrl+Shift+Z undo and redo")
        buttons.on_click(lambda event: self._do("history", edits[event.target.value]))
        for label, modifier in (("Undo", "cmd/ctrl"), ("Redo", "cmd/ctrl+shift")):
            command = self._gui.add_command(label, hotkey="Z", modifier=modifier)
            command.on_trigger(lambda _, label=label: self._do("history", edits[label]))

    def _undo(self) -> None:
        self._session.edit(lambda editor: editor.undo())

    def _redo(self) -> None:
        self._session.edit(lambda editor: editor.redo())

    def _add_views(self) -> None:
        session = self._session
        self._view = self._gui.add_dropdown("Show", session.views, hint="Heat map: mm from the face you started with")
        self._legend = self._gui.add_html("", visible=False)
        self._compare = self._gui.add_checkbox("Compare", False, hint="Show the face you started with (key C)")

        def look(view: str) -> None:
            session.view = view

        def compare(on: bool) -> None:
            session.comparing = on

        self._on_change(self._view, lambda value: self._do("view", lambda: look(value)))
        self._on_change(self._compare, lambda value: self._do("compare", lambda: compare(value)))
        command = self._gui.add_command("Compare with the start", hotkey="C")
        command.on_trigger(lambda _: self._do("compare", lambda: compare(not session.comparing)))

    def _add_region(self, region: str, names: list[str], *, opened: bool) -> None:
        title = "Face" if region == "rest" else region.replace("_", " ").capitalize()
        with self._gui.add_folder(title, expand_by_default=opened):
            for name in names:
                self._add_control(name, CATALOGUE[name])
            if region in PARTS:
                self._add_place(region)
            reset = self._gui.add_button_group("", (f"Reset {title.lower()}",))
            reset.on_click(
                lambda _: self._do("reset", lambda: self._session.edit(lambda editor: editor.restore(region)))
            )

    def _add_control(self, name: str, controller: Controller) -> None:
        slider = self._gui.add_slider(
            controller.title, -SLIDER_SIGMA, SLIDER_SIGMA, STEP, 0.0, hint=f"{controller.definition} In sigma."
        )
        self._sliders[name] = slider

        def slide(sigma: float) -> None:
            self._held = name
            self._session.set(name, sigma)

        self._on_change(slider, lambda value: self._submit(f"slide {name}", lambda: slide(value)))
        if not self._measures:
            return
        number = self._gui.add_number(
            f"in {controller.unit}",
            0.0,
            step=STEP,
            hint=f"Exact value of {controller.title.lower()} in {controller.unit}.",
        )
        self._exact[name] = number

        def set_exact(millimetres: float) -> None:
            self._session.edit(lambda editor: editor.set_exact(name, millimetres))

        self._on_change(number, lambda value: self._do(f"exact {name}", lambda: set_exact(value), delay=TYPING_SECONDS))

    def _add_place(self, part: str) -> None:
        up, out = (
            self._gui.add_slider(label, -REACH_MM, REACH_MM, STEP_MM, 0.0, hint=f"Moves the whole part {way}, mm.")
            for label, way in (("Move up, mm", "up or down"), ("Move out, mm", "out or in"))
        )
        self._places[part] = (up, out)

        def move() -> None:
            self._held = part
            self._session.move(part, up.value, out.value)

        for slider in (up, out):
            self._on_change(slider, lambda _: self._submit(f"move {part}", move))

    def _add_random(self) -> None:
        with self._gui.add_folder("Random face", expand_by_default=False):
            seed = self._gui.add_number("Seed", 1, min=0, step=1, hint="The same seed gives the same face.")
            strength = self._gui.add_slider(
                "Strength", 0.0, 2.0, STEP, 0.7, hint="Standard deviations of each control."
            )
            symmetric = self._gui.add_checkbox("Symmetric", True, hint="Else left and right differ as real faces do.")
            region = self._gui.add_dropdown("Draw", (ALL, *REGIONS))
            buttons = self._gui.add_button_group("Make", ("This seed", "Next seed"))

        def make(event: Any) -> None:
            if event.target.value == "Next seed":
                seed.value += 1
            drawn = None if region.value == ALL else [region.value]
            wanted = (int(seed.value), float(strength.value), bool(symmetric.value), drawn)
            self._do("random", lambda: self._session.edit(lambda editor: editor.randomise(*wanted)))

        buttons.on_click(make)

    def _add_files(self, formats: tuple[str, ...]) -> None:
        session = self._session
        with self._gui.add_folder("Files", expand_by_default=False):
            load = self._gui.add_upload_button("Load face.json", mime_type=JSON, color="gray")
            save = self._gui.add_button("Save face.json", color="gray")
            if formats:
                ending = self._gui.add_dropdown("Format", formats)
                export = self._gui.add_button("Export mesh")
                export.on_click(lambda _: self._do("export", lambda: self._export(ending.value)))
        load.on_upload(lambda event: self._do("load", lambda: session.load(event.target.value.content)))
        save.on_click(lambda _: self._do("save", lambda: self._download("face.json", session.save())))

    def _export(self, ending: str) -> None:
        self._download(f"face{ending}", self._session.export(ending))

    def _on_change(self, widget: Any, changed: Callable[[Any], None]) -> None:
        """Hear of values a person gave; those that ``refresh`` writes have no client."""
        widget.on_update(lambda event: changed(event.target.value) if event.client is not None else None)
