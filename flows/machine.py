"""What kind of machine this is: what times can be compared by. Nothing that names it."""

import os
import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux says what its processors are; elsewhere Python knows."""


@cache
def this_machine() -> str:
    """System, architecture, processor, number of cores and GPUs, in a few words."""
    return ", ".join(
        [f"{platform.system()} {platform.machine()}", _processor(), f"{os.cpu_count()} cores", *_accelerators()]
    )


def _processor() -> str:
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown processor"


def _accelerators() -> list[str]:
    import torch  # here, since what only reads a run's record should not wait for it

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
