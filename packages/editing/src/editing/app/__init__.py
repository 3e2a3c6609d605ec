"""The editor in a browser: every tab is one person with one face. Needs viser, the extra ``[app]``, when it is served.

Data flows one way: a widget asks (``panel``), the tab's worker does it (``worker``) to the face (``session``), and the
scene (``view``) and the widgets show what the face has become.
"""

from editing.app.faces import EditableFaces
from editing.app.server import EditorServer, serve_editor

__all__ = ["EditableFaces", "EditorServer", "serve_editor"]
