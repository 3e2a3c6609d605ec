"""The Dask scheduler that shards are handed to, and what its workers must be able to do.

A worker is any machine that has the same packages, sees the run folder at the same path, and reaches Prefect's API.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from .errors import UserError

SCHEDULER = "NEO3DF_DASK_SCHEDULER"
ANSWER_SECONDS = 5.0


def require_dask() -> None:
    """Raise UserError where prefect-dask is not installed; make Dask silent: its errors come back as ours."""
    try:
        import distributed
        import prefect_dask  # noqa: F401
    except ImportError as error:
        raise UserError("--runner dask needs prefect-dask: pip install prefect-dask") from error
    logging.getLogger(distributed.__name__).setLevel(logging.CRITICAL)


def configured_scheduler() -> str | None:
    """The address in the environment variable NEO3DF_DASK_SCHEDULER."""
    return os.environ.get(SCHEDULER) or None


def require_scheduler(address: str) -> None:
    """Raise UserError unless a scheduler answers at ``address`` (``tcp://host:port``) within five seconds."""
    with _client(address):
        pass


def require_workers(address: str, api_url: str | None) -> None:
    """Raise UserError where a worker lacks neo3df or does not reach Prefect's API at ``api_url``.

    Workers that join later are not asked. Without any, say so on standard error: shards wait for the first one.
    """
    with _client(address) as client:
        answers = client.run(_reaches, api_url, on_error="return")
    if not answers:
        print(f"dask: {address} has no workers yet; shards wait for one", file=sys.stderr, flush=True)
    for worker, answer in answers.items():
        if isinstance(answer, BaseException):
            raise UserError(f"Dask worker {worker} cannot work: {answer}; install the same neo3df there")
        if not answer:
            raise UserError(
                f"Dask worker {worker} does not reach the Prefect API {api_url or '(none set)'}; "
                "start `prefect server start --host 0.0.0.0` and set PREFECT_API_URL to an address all workers reach"
            )


def explained(error: BaseException) -> BaseException:
    """The error of a shard, in the user's terms where Dask gave the shard up."""
    from distributed import CancelledError, KilledWorker

    if isinstance(error, KilledWorker):
        return UserError(
            f"a shard was given up: {error.allowed_failures + 1} Dask workers died while making it; "
            "see their logs (out of memory?) and run again"
        )
    if isinstance(error, CancelledError):
        return UserError("the Dask scheduler went away; start it and run again, finished shards are kept")
    return error


def _reaches(url: str | None) -> bool:
    """Whether this process reaches an HTTP address, whatever its answer."""
    if url is None:
        return False
    try:
        with urlopen(f"{url}/health", timeout=ANSWER_SECONDS):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def _client(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler` and workers with `dask worker`"
        ) from error
    with client:
        yield client
