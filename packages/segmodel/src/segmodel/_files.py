"""Files that a reader sees whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` by way of a temporary file beside it: synced to disk, then renamed over ``path``.

    The mode is 0644 less the umask. Nothing is left behind when writing fails.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON by :func:`write_whole`."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())
