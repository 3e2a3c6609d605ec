"""The face in one tab's 3D scene: camera, light, and a mesh that is replaced without a flicker."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from editing.app.coloured_glb import ColouredGlb
from editing.app.colouring import SKIN
from editing.app.session import Picture

SCALE: Final = 0.01
"""Scene units per mm: the browser's lights and clipping planes are made for things some units large."""
BACKGROUND: Final = (236, 238, 240)
FIELD_OF_VIEW: Final = np.radians(22.0)
PARSE_SECONDS: Final = 0.15
"""Time that a browser gets to parse a coloured mesh before the next one may follow."""
SWAP_SECONDS: Final = 0.4
"""How long the coloured mesh before stays below the last one."""


class FaceView:
    """Shows pictures of one topology to one tab.

    Plain skin is a mesh whose vertices the browser updates in place. It has no colours per vertex, so coloured pictures
    are GLB nodes: a new one for each, and what was seen before goes when the new one must have come.
    """

    def __init__(self, client: Any, faces: NDArray[np.integer]) -> None:
        """``client``: viser's handle of the tab; ``faces (F, 3)``."""
        self._client, self._faces = client, np.ascontiguousarray(faces, np.uint32)
        self._glb: ColouredGlb | None = None
        self._skin: Any = None
        self._seen: Any = None
        self._leaving: Any = None
        self._count, self._sent = 0, -np.inf
        self._lock = threading.Lock()

    def show(self, picture: Picture) -> None:
        """Show a picture; coloured ones take at least ``PARSE_SECONDS`` each."""
        if picture.colours is None:
            with self._lock:
                self._replace(self._plain(picture.vertices))
                self._leave()
        else:
            time.sleep(max(0.0, self._sent + PARSE_SECONDS - time.monotonic()))
            with self._lock:
                self._leave()
                self._replace(self._coloured(picture.vertices, picture.colours))
                self._sent = time.monotonic()
                timer = threading.Timer(SWAP_SECONDS, self._leave_unless_moved, (self._count,))
                timer.daemon = True
                timer.start()
        self._client.flush()

    def _plain(self, vertices: NDArray[np.floating]) -> Any:
        xyz = np.asarray(vertices, np.float32)
        if self._skin is None:
            look = {"color": SKIN, "scale": SCALE, "side": "double", "cast_shadow": False, "receive_shadow": False}
            self._skin = self._client.scene.add_mesh_simple("/skin", xyz, self._faces, **look)
        self._skin.vertices = xyz
        self._skin.visible = True
        return self._skin

    def _coloured(self, vertices: NDArray[np.floating], colours: NDArray[np.uint8]) -> Any:
        if self._glb is None:
            self._glb = ColouredGlb(self._faces, len(vertices))
        self._count += 1
        content, still = self._glb.content(vertices, colours), {"cast_shadow": False, "receive_shadow": False}
        return self._client.scene.add_glb(f"/coloured_{self._count}", content, scale=SCALE, **still)

    def _replace(self, node: Any) -> None:
        if node is not self._seen:
            self._seen, self._leaving = node, self._seen

    def _leave(self) -> None:
        """Take away what was seen before."""
        if self._leaving is self._skin and self._skin is not None:
            self._skin.visible = False
        elif self._leaving is not None:
            self._leaving.remove()
        self._leaving = None

    def _leave_unless_moved(self, count: int) -> None:
        with self._lock:
            if count == self._count and self._seen is not self._skin:
                self._leave()


def arrange(server: Any, vertices: NDArray[np.floating]) -> None:
    """Background, light and first camera of all tabs: y up, the whole face ``vertices (V, 3)`` from the front."""
    low, high = vertices.min(axis=0) * SCALE, vertices.max(axis=0) * SCALE
    centre = (low + high) / 2
    reach = 1.25 * np.max((high - low)[:2]) / 2 / np.tan(FIELD_OF_VIEW / 2)
    scene = server.scene
    scene.set_up_direction("+y")
    scene.set_background_image(np.full((2, 2, 3), BACKGROUND, np.uint8))
    scene.configure_default_lights(enabled=False)
    scene.configure_environment_map("studio", environment_intensity=0.2)
    scene.add_light_directional("/light/key", color=(255, 250, 244), intensity=1.5, position=(-4.0, 6.0, 7.0))
    scene.add_light_directional("/light/fill", color=(235, 242, 255), intensity=0.35, position=(6.0, 0.0, 5.0))
    camera = server.initial_camera
    camera.position = (centre[0], centre[1], high[2] + reach)
    camera.look_at = tuple(centre)
    camera.up = (0.0, 1.0, 0.0)
    camera.fov = float(FIELD_OF_VIEW)
