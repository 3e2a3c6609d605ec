"""A Prefect server that lives exactly as long as the command that needs it.

Prefect's own temporary server survives a killed parent, and every worker of a process pool starts one more. This one is
one process, shared by all workers, and ends when the pipe from its parent closes, however the parent dies.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STARTUP_SECONDS = 180.0  # a first start sets up Prefect's database: 12 s, or a minute on a busy machine
STOP_SECONDS = 5.0


@contextmanager
def temporary_server() -> Iterator[str]:
    """Start a server on a free port of 127.0.0.1, yield its API address, and stop it at the end.

    Raises RuntimeError when it does not answer within three minutes.
    """
    light = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "flows.prefect_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **light},
        start_new_session=True,  # Ctrl-C reaches the command, which then closes the pipe
    )
    try:
        yield f"http://127.0.0.1:{_announced_port(server)}/api"
    finally:
        _stop(server)


def _announced_port(server: subprocess.Popen[bytes]) -> int:
    assert server.stdout is not None
    timer = threading.Timer(STARTUP_SECONDS, server.kill)
    timer.start()
    try:
        line = server.stdout.readline()
    finally:
        timer.cancel()
    if not line.strip().isdigit():
        raise RuntimeError(
            f"the Prefect server did not start (exit status {server.wait()}); "
            "start one with `prefect server start` and set PREFECT_API_URL"
        )
    return int(line)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def serve() -> None:
    """Serve Prefect's API, print the port once it answers, and end the process when standard input closes."""
    import uvicorn
    from prefect.server.api.server import create_app

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list | None = None) -> None:
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        threading.Timer(STOP_SECONDS, os._exit, [0]).start()

    server = Announcing(uvicorn.Config(create_app(), host="127.0.0.1", port=0, log_level="critical", lifespan="on"))
    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()
    os._exit(0)


if __name__ == "__main__":
    serve()
