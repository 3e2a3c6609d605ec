"""Environment variables that must be set before a library is imported: quiet, offline, and no busy-waiting threads."""

import os

QUIET_PREFECT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
}

# One thread: networks this small train slower on two, and only one repeats to the last bit. Shards still run side by
# side. Set OMP_NUM_THREADS to have more.
PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": "1"}


def prepare(*, debug: bool = False) -> None:
    """Set what the user has not set himself. With ``debug`` Prefect speaks at INFO level."""
    for name, value in (QUIET_PREFECT | PASSIVE_THREADS).items():
        os.environ.setdefault(name, value)
    if debug:
        os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
