"""viser's server without its share tunnel, and for its own page only. The only module that imports viser."""

from __future__ import annotations

import http
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import viser
import websockets.asyncio.server

LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_patching = threading.Lock()


class PrivateServer(viser.ViserServer):
    """A server that no page can ask to be shared with the internet, and that no page but its own can talk to.

    A browser lets every web page open a connection to this machine; viser would answer it. Here a connection must come
    from the address it goes to and, on a server for this machine, that address must be this machine's: a page of
    another origin, or one whose name was made to point here, gets 403.
    """

    def __init__(self, host: str, port: int, label: str) -> None:
        """Listen on ``host`` and ``port``, or the next free one; ``label`` heads the panel."""
        with _guarded(only_local=host in LOCAL):
            super().__init__(host=host, port=port, label=label, verbose=False)

    def request_share_url(self, verbose: bool = True) -> None:
        """No tunnel, whoever asks."""


def is_welcome(host: str, origin: str | None, *, only_local: bool) -> bool:
    """Whether a request may be answered, by its ``Host`` and ``Origin`` headers; programs send no origin."""
    return (origin is None or urlsplit(origin).netloc == host) and (
        not only_local or urlsplit(f"//{host}").hostname in LOCAL
    )


@contextmanager
def _guarded(*, only_local: bool) -> Iterator[None]:
    """Servers that viser starts meanwhile ask ``is_welcome`` first; viser has no way to say so."""
    serve = websockets.asyncio.server.serve

    def guarded_serve(*args: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            headers = request.headers
            if not is_welcome(headers.get("Host", ""), headers.get("Origin"), only_local=only_local):
                return connection.respond(http.HTTPStatus.FORBIDDEN, "This page may not talk to the editor.\n")
            return process_request(connection, request)

        return serve(*args, process_request=process, **options)

    with _patching:
        websockets.asyncio.server.serve = guarded_serve  # type: ignore[assignment, misc]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve  # type: ignore[misc]
