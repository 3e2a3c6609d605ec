"""Files that prove their own bytes: JSON and Parquet that carry the SHA-256 of everything else in them.

Parquet's page checksums leave its footer and page headers open, where one flipped bit changes a shape or a unit. A
sealed file is read as a whole or not at all, wherever it was copied to and with no list of hashes beside it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from .atomic import replacing

SEAL = "sha256"
BLANK = b"0" * 64
_MARK = b"neo3df_file_sha256"


def write_json_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as indented JSON with its digest as the last entry, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(_sealed_json(value))


def read_json_sealed(path: Path) -> dict[str, Any]:
    """What :func:`write_json_sealed` wrote. Raises OSError, or ValueError where a byte of the file has changed."""
    data = path.read_bytes()
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    value.pop(SEAL, None)
    if _sealed_json(value) != data:
        raise ValueError("its bytes have changed since it was written")
    return value


def _sealed_json(value: dict[str, Any]) -> bytes:
    """The bytes of an object and its seal."""
    seal = hashlib.sha256(_json(value)).hexdigest()
    return _json({**value, SEAL: seal})


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


PARQUET_BLANK = {_MARK.decode(): BLANK.decode()}
"""Footer metadata to give a Parquet file that will be sealed."""


def seal_parquet(path: Path) -> None:
    """Put the digest of a finished Parquet file in place of the blank that :data:`PARQUET_BLANK` left in its footer."""
    data = bytearray(path.read_bytes())
    start = _seal_start(data)
    if start is None or data[start : start + len(BLANK)] != BLANK:
        raise ValueError(f"{path} has no blank seal in its footer")
    data[start : start + len(BLANK)] = hashlib.sha256(data).hexdigest().encode()
    path.write_bytes(data)


def is_sealed(data: bytes) -> bool:
    """Whether the bytes of a Parquet file hold a seal, broken or not."""
    return _seal_start(data) is not None


def check_parquet(data: bytes) -> bool:
    """Whether the bytes of a Parquet file are those that were sealed; False for a file without a seal."""
    start = _seal_start(data)
    if start is None:
        return False
    end = start + len(BLANK)
    view, found = memoryview(data), hashlib.sha256()
    for piece in (view[:start], BLANK, view[end:]):
        found.update(piece)
    return found.hexdigest().encode() == bytes(view[start:end])


def _seal_start(data: bytes | bytearray) -> int | None:
    """Where the 64 digits of the seal begin: after their key and the two bytes of Thrift between key and value."""
    mark = data.rfind(_MARK)
    start = mark + len(_MARK) + 2
    return None if mark < 0 or start + len(BLANK) > len(data) else start
