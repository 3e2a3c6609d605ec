"""The editor in a real browser, with the network cut: what a person does there reaches the face, and comes back."""

import json
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pygltflib
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("viser", reason="needs viser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

expect = playwright.expect
expect.set_options(timeout=20_000)
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = re.compile(r"^(https?|wss?)://127\.0\.0\.1[:/]|^(data|blob):")


@pytest.fixture(scope="module")
def server(tiny_run):
    from flows.edit import serve_face

    with serve_face(None, run_dir=tiny_run.folder, host="127.0.0.1", port=0, open_browser=False) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Tab:
    """A page and the server's side of it."""

    page: object
    server_side: object

    @property
    def session(self):
        """The tab's face, once everything asked for is done."""
        assert self.server_side.worker.wait(20)
        return self.server_side.session

    @property
    def vertices(self):
        return self.session.editor.vertices()

    def settle(self, controls):
        """Wait until what was asked in the page has reached the face: exactly these controls are set."""
        until(self.page, lambda: dict(self.session.editor.state.controls) == pytest.approx(controls))

    def field(self, label, place=0):
        """The widget with a label in an opened folder, by the id that the label names."""
        labels = self.page.locator("label", has_text=re.compile(f"^{label}$")).locator("visible=true")
        return self.page.locator(f'[id="{labels.nth(place).get_attribute("for")}"]')

    def slider(self, label):
        """Thumb and number box of a slider."""
        slider = self.field(label)
        return slider.get_by_role("slider"), slider.locator("xpath=..").locator("input[type=text]")

    def click(self, text):
        self.page.get_by_text(text, exact=True).first.click()

    def picture(self):
        """What the middle of the scene looks like once it rests, as numbers 0 to 255."""
        before, now = None, self._shot()
        while before is None or difference(before, now) > 0:
            self.page.wait_for_timeout(500)
            before, now = now, self._shot()
        return now

    def _shot(self):
        shot = self.page.screenshot(clip={"x": 100, "y": 200, "width": 400, "height": 400})
        return np.asarray(Image.open(BytesIO(shot)).convert("RGB"), np.float64)


def difference(one, other):
    """Mean absolute difference of two pictures in grey levels."""
    return np.abs(one - other).mean()


def until(page, condition, seconds=20):
    """Wait for something to become true while the page goes on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {seconds} s")


@contextmanager
def opened(browser, server):
    """A new tab in a profile of its own; requests to other machines are refused, and fail the test."""
    before = set(server.tabs)
    page = browser.new_page(viewport={"width": 900, "height": 700}, accept_downloads=True)
    strayed = []

    def gate(route):
        if LOCAL.match(route.request.url):
            route.continue_()
        else:
            strayed.append(route.request.url)
            route.abort()

    page.route("**/*", gate)
    page.on("websocket", lambda socket: None if LOCAL.match(socket.url) else strayed.append(socket.url))
    page.goto(server.url)
    page.get_by_text("Files", exact=True).wait_for(timeout=60_000)
    (side,) = set(server.tabs) - before
    yield Tab(page, side)
    page.close()
    assert strayed == []


@pytest.fixture(scope="module")
def first_tab(browser, server):
    """A tab with the folders open that the tests use."""
    with opened(browser, server) as tab:
        tab.click("Eyebrows")
        tab.click("Nose")
        tab.click("Files")
        yield tab


@pytest.fixture
def tab(first_tab):
    """The first tab with nothing edited: a page takes seconds to load without a graphics card."""
    if first_tab.session.editor.state != first_tab.session.editor.loaded:
        first_tab.click("Reset all")
        until(first_tab.page, lambda: first_tab.session.editor.state == first_tab.session.editor.loaded)
    return first_tab


def test_a_slider_moved_by_keyboard_changes_the_face_and_undo_brings_back_the_same_vertices(tab):
    start, seen = tab.vertices.copy(), tab.picture()
    thumb, box = tab.slider("Width")
    thumb.focus()
    tab.page.keyboard.press("End")
    expect(box).to_have_value("3")
    tab.settle({"nose.width": 3.0})
    edited = tab.vertices.copy()
    assert np.abs(edited - start).max() > 0.5
    assert difference(tab.picture(), seen) > 1
    tab.click("Undo")
    expect(box).to_have_value("0")
    np.testing.assert_array_equal(tab.vertices, start)
    tab.click("Redo")
    expect(box).to_have_value("3")
    np.testing.assert_array_equal(tab.vertices, edited)


def test_a_typed_measurement_is_reached_and_one_out_of_reach_is_refused_in_one_line(tab):
    millimetres = tab.field("in mm", place=3)
    wanted = round(tab.session.editor.measurements()["nose.width"] + 1.0, 1)
    millimetres.fill(str(wanted))
    until(tab.page, lambda: abs(tab.session.editor.measurements()["nose.width"] - wanted) < 0.06)
    reached = tab.vertices.copy()
    millimetres.fill("400")
    notice = tab.page.get_by_text("nose.width cannot reach 400 mm")
    notice.wait_for(timeout=20_000)
    np.testing.assert_array_equal(tab.vertices, reached)
    expect(millimetres).to_have_value(f"{wanted:g}")


def test_the_exported_glb_has_this_face_and_its_controls_as_morph_targets(tab):
    with tab.page.expect_download(timeout=60_000) as download:
        tab.click("Export mesh")
    written = pygltflib.GLTF2.load_binary(download.value.path())
    assert download.value.suggested_filename == "face.glb"
    assert "id_nose_width" in written.meshes[0].extras["targetNames"]
    accessor = written.accessors[written.meshes[0].primitives[0].attributes.POSITION]
    assert accessor.count == len(tab.vertices)
    np.testing.assert_allclose(accessor.max, tab.vertices.max(axis=0) / 1000, atol=1e-6)


def test_a_saved_face_comes_back_through_load(tab, tmp_path):
    _, box = tab.slider("Width")
    box.fill("-0.1")
    tab.settle({"nose.width": -0.1})
    kept = tab.vertices.copy()
    with tab.page.expect_download() as download:
        tab.click("Save face.json")
    path = tmp_path / "face.json"
    download.value.save_as(path)
    assert json.loads(path.read_text())["controls"] == {"nose.width": -0.1}
    tab.click("Reset nose")
    expect(box).to_have_value("0")
    with tab.page.expect_file_chooser() as chooser:
        tab.click("Load face.json")
    chooser.value.set_files(path)
    expect(box).to_have_value("-0.1")
    np.testing.assert_array_equal(tab.vertices, kept)
    np.testing.assert_array_equal(tab.session.start, kept)


def test_the_heat_map_is_drawn_with_its_legend(tab):
    seen = tab.picture()
    tab.field("Show").click()
    tab.page.get_by_role("option", name="Heat map").click()
    tab.page.get_by_text("Distance from the start").wait_for()
    assert tab.session.view == "Heat map"
    assert difference(tab.picture(), seen) > 1


def test_every_tab_has_its_own_face_and_leaves_nothing_behind(tab, browser, server):
    kept = tab.vertices.copy()
    with opened(browser, server) as other:
        other.click("Nose")
        thumb, _ = other.slider("Width")
        thumb.focus()
        other.page.keyboard.press("ArrowRight")
        other.settle({"nose.width": 0.1})
        np.testing.assert_array_equal(tab.vertices, kept)
        gone = other.server_side
        assert len(server.tabs) == 2
    until(tab.page, lambda: server.tabs == (tab.server_side,))
    gone.worker._thread.join(10)
    assert not gone.worker._thread.is_alive()
