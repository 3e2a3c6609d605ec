"""Serving the editor: one viser server, and for every tab its own face, worker and widgets."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import webbrowser
from typing import Any

from editing.app.faces import EditableFaces
from editing.app.panel import Panel
from editing.app.session import EditSession
from editing.app.view import FaceView, arrange
from editing.app.worker import Worker


class Tab:
    """One browser tab: a face that is its own, gone when the tab is closed."""

    def __init__(self, client: Any, faces: EditableFaces) -> None:
        """Open a face and show it with its widgets; ``client``: viser's handle of the tab."""
        self._client = client
        self.session = EditSession(faces)
        self._view = FaceView(client, faces.faces)
        self.worker = Worker(self._show, self.notify)
        formats = faces.formats if faces.export is not None else ()
        self._panel = Panel(client.gui, self.session, self.worker.submit, self._download, formats)
        self.worker.submit("open", lambda: None)

    def notify(self, error: Exception) -> None:
        """Show an error as one line in the page."""
        text = " ".join(str(error).split()) or type(error).__name__
        self._client.add_notification("Not done", text, color="red", auto_close_seconds=10.0)

    def _show(self) -> None:
        picture = self.session.picture()
        self._view.show(picture)
        self._panel.refresh(picture)
        self._client.flush()

    def _download(self, name: str, content: bytes) -> None:
        self._client.send_file_download(name, content, save_immediately=True)


class EditorServer:
    """A running editor. Leave it with :meth:`stop`, or use it in a ``with`` statement."""

    def __init__(self, server: Any, faces: EditableFaces) -> None:
        """Take over a viser server; use ``serve_editor``."""
        self._server, self._faces = server, faces
        self._tabs: dict[int, Tab] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        arrange(server, faces.open(None).vertices())
        server.gui.configure_theme(control_width="large", show_logo=False, show_share_button=False)
        server.gui.set_panel_label(faces.title)
        server.gui.main_panel.dock_right()
        server.on_client_connect(self._open)
        server.on_client_disconnect(self._close)

    @property
    def port(self) -> int:
        """The port it listens on: the next free one where the wanted one was taken."""
        return int(self._server.get_port())

    @property
    def url(self) -> str:
        """Address of the page."""
        host = self._server.get_host()
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}"

    @property
    def tabs(self) -> tuple[Tab, ...]:
        """The tabs that are open, in the order of their opening."""
        with self._lock:
            return tuple(self._tabs.values())

    def wait(self) -> None:
        """Serve until :meth:`stop` is called, or until KeyboardInterrupt."""
        while not self._stopped.wait(1.0):
            pass

    def stop(self) -> None:
        """Close all tabs and free the port."""
        self._stopped.set()
        for tab in self.tabs:
            tab.worker.close()
        with contextlib.redirect_stdout(io.StringIO()):  # viser says so
            self._server.stop()

    def __enter__(self) -> EditorServer:
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _open(self, client: Any) -> None:
        try:
            tab = Tab(client, self._faces)
        except Exception as error:  # the page says why it is empty; other tabs go on
            client.add_notification("The face cannot be opened", " ".join(str(error).split()), color="red")
            return
        with self._lock:
            self._tabs[client.client_id] = tab

    def _close(self, client: Any) -> None:
        with self._lock:
            tab = self._tabs.pop(client.client_id, None)
        if tab is not None:
            tab.worker.close()


def serve_editor(
    faces: EditableFaces, *, host: str = "127.0.0.1", port: int = 8080, open_browser: bool = False
) -> EditorServer:
    """Serve the editor to browsers on this machine. Every tab has its own face. Returns at once.

    Nothing is fetched from the network, there is no share tunnel, and other web pages are refused: faces are personal
    data.

    Args:
        faces: what is edited.
        host: address to listen on. Any other than this machine's own lets others in, and a warning says so.
        port: port to listen on, or the next free one.
        open_browser: open the page in the system's browser.

    Returns:
        The running server: ``.url``, ``.wait()``, ``.stop()``.

    Raises:
        ImportError: viser is not installed.
        ValueError: the face cannot be opened.
    """
    try:
        from editing.app.private_server import LOCAL, PrivateServer
    except ModuleNotFoundError as error:
        if error.name != "viser":
            raise
        raise ImportError("the browser editor needs viser: pip install 'neo3df-editing[app]'") from None
    if host not in LOCAL:
        print(f"warning: the editor listens on {host}: whoever reaches this machine can see its faces", file=sys.stderr)
    with contextlib.redirect_stdout(io.StringIO()):  # viser prints a banner
        server = PrivateServer(host, port, faces.title)
    try:
        editor = EditorServer(server, faces)
    except Exception:
        server.stop()
        raise
    if open_browser:
        webbrowser.open(editor.url)
    return editor
