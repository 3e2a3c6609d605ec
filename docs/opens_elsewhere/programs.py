"""Other people's programs on a GLB of ours: the Khronos validator, Blender, three.js in a browser.

Each function takes where the program lies and raises RuntimeError with the program's own words where it fails.
"""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
Pose = Mapping[str, float]
CHROMIUM_FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@dataclass(frozen=True)
class Opened:
    """What a program made of a GLB: its version, morph target names in order, vertices (V, 3) in metres per pose."""

    version: str
    names: list[str]
    vertices: list[NDArray[np.floating]]


def validator_reports(paths: Sequence[Path], node_modules: Path) -> list[dict[str, Any]]:
    """The Khronos glTF validator's report of each file (npm ``gltf-validator``)."""
    environment = {**os.environ, "NEO3DF_NODE_MODULES": str(node_modules)}
    return json.loads(_said(["node", str(HERE / "gltf_validate.mjs"), *map(str, paths)], environment))


def open_in_blender(glb: Path, poses: Sequence[Pose], python: Path, out: Path, pixels: int = 0) -> Opened:
    """Blender (PyPI ``bpy``, in the interpreter ``python``) on each pose; with ``pixels`` also ``out/0.png`` ..."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "poses.json").write_text(json.dumps([dict(pose) for pose in poses]), encoding="utf-8")
    _said([str(python), str(HERE / "blender_shape_keys.py"), str(glb), str(out / "poses.json"), str(out), str(pixels)])
    told = json.loads((out / "keys.json").read_text(encoding="utf-8"))
    return Opened(told["blender"], told["keys"], [np.load(out / f"{number}.npy") for number in range(len(poses))])


def open_in_three(
    glb: Path, poses: Sequence[Pose], node_modules: Path, chromium: Path, picture: Path | None = None
) -> Opened:
    """three.js (npm ``three``) in headless Chromium, with no other network than this machine's own server."""
    from playwright.sync_api import sync_playwright

    with _served(glb, node_modules) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(chromium), args=list(CHROMIUM_FLAGS))
        try:
            page = browser.new_page(viewport={"width": 480, "height": 480})
            troubles: list[str] = []
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("console", lambda line: troubles.append(line.text) if line.type == "error" else None)
            page.goto(f"{address}/three.html")
            try:
                page.wait_for_function("window.face !== undefined", timeout=60_000)
            except Exception as error:
                raise RuntimeError(f"three.js did not open {glb}: {troubles or error}") from error
            vertices = [np.array(page.evaluate("pose => window.face.pose(pose)", dict(pose))) for pose in poses]
            if picture is not None:
                page.screenshot(path=str(picture))
            return Opened(page.evaluate("window.face.revision"), page.evaluate("window.face.names"), vertices)
        finally:
            browser.close()


@contextlib.contextmanager
def _served(glb: Path, node_modules: Path) -> Iterator[str]:
    """A server on 127.0.0.1 of the page, the GLB and the node modules; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    with TemporaryDirectory() as folder:
        for name, target in (("three.html", HERE / "three.html"), ("face.glb", glb), ("node_modules", node_modules)):
            (Path(folder) / name).symlink_to(target.resolve())
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


def _said(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
