"""Draws docs/img/editor.jpg, the browser editor as a person sees it, with a nose being edited on a face of a run.

python docs/editor_picture.py RUN

Chromium draws it, through playwright, without a graphics card.
"""

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

from flows.edit import RunFaces, serve_face

ROOT = Path(__file__).parents[1]
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
EDITS = {"Width": "1.8", "Tip up/down": "1.2", "Bridge width": "-1"}


def invented_face(run: Path, seed: int, folder: Path) -> Path:
    """The file of a random face, somebody to begin with."""
    faces = RunFaces(run)
    editor = faces.open(None)
    editor.randomise(seed, 0.5)
    path = folder / "face.json"
    face = json.loads(faces.save(editor, None)) | {"name": "somebody"}
    path.write_text(json.dumps(face), encoding="utf-8")
    return path


def widget(page: Page, label: str) -> Locator:
    """The widget with a label in an opened folder."""
    name = page.locator("label", has_text=re.compile(f"^{label}$")).locator("visible=true").first
    return page.locator(f'[id="{name.get_attribute("for")}"]')


def edit_nose(page: Page) -> None:
    """Type some controls of the nose and look at the heat map."""
    page.get_by_text("Eyebrows", exact=True).first.click()
    page.get_by_text("Nose", exact=True).first.click()
    for label, sigma in EDITS.items():
        widget(page, label).locator("xpath=..").locator("input[type=text]").fill(sigma)
    widget(page, "Show").click()
    page.get_by_role("option", name="Heat map").click()


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run folder")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "img" / "editor.jpg")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        face = invented_face(arguments.run, arguments.seed, Path(folder))
        with serve_face(face, run_dir=arguments.run, host="127.0.0.1", port=0, open_browser=False) as server:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(server.url)
            page.get_by_text("Files", exact=True).wait_for(timeout=60_000)
            warning = page.get_by_text("Software WebGL rendering detected").locator("xpath=../..").get_by_role("button")
            warning.click()
            edit_nose(page)
            page.get_by_text("Distance from the start").wait_for()
            page.mouse.move(700, 880)
            page.wait_for_timeout(5000)
            page.screenshot(path=arguments.out, type="jpeg", quality=85)
            browser.close()
    print(arguments.out)


if __name__ == "__main__":
    main()
