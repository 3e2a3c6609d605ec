"""One set of measurements, printed as JSON, in a process whose thread counts were set before anything was imported.

python benchmarks/arap_measure.py times MESH.npz REPEATS [WORD ...]   the contenders with a WORD in their name, in turns
python benchmarks/arap_measure.py memory MESH.npz CONTENDER           peak of one contender
"""

import contextlib
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arap_contenders import CONTENDERS, LibIgl, Open3D, Ours, Unable
from arap_meshes import Deformation, bumpy_sphere

SLOW_SECONDS = 3.0  # a factor slower than that is measured once
PATIENCE_SECONDS = 10.0  # a contender that has used that much sits out the remaining rounds
CONVERGED_BELOW = 5_000  # vertices, of meshes on which the peers are also compared where they end up


@dataclass
class Cost:
    """Smallest wall time and smallest processor time (all threads) seen, in ms."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def time(self, action: Callable[[], Any]) -> Any:
        start, start_cpu = time.perf_counter(), time.process_time()
        result = action()
        self.cpu = min(self.cpu, 1e3 * (time.process_time() - start_cpu))
        self.wall = min(self.wall, 1e3 * (time.perf_counter() - start))
        return result


def times(mesh: Path, repeats: int, words: list[str]) -> dict[str, Any]:
    """Costs of the contenders with one of the words in their name, or of all.

    The repeats go round the contenders, so that a busy moment spares none.
    """
    case = Deformation.load(mesh)
    contenders: dict[str, Any] = {}
    costs: dict[str, dict[str, Cost]] = {}
    refused = {}
    for name, make in CONTENDERS.items():
        if words and not any(word in name for word in words):
            continue
        factor = Cost()
        try:
            make(bumpy_sphere(300)).forward()  # compiles, or loads what is compiled
            contenders[name] = factor.time(lambda make=make: make(case))
        except Unable as reason:
            refused[name] = str(reason)
            continue
        for _ in range(2 if factor.wall < 1e3 * SLOW_SECONDS else 0):
            factor.time(lambda make=make: make(case))
        run(contenders[name])  # warms up
        costs[name] = {"factor": factor}
    spent = dict.fromkeys(contenders, 0.0)
    for _ in range(repeats):
        for name, contender in contenders.items():
            if spent[name] > PATIENCE_SECONDS:
                continue
            start = time.perf_counter()
            deformed = costs[name].setdefault("forward", Cost()).time(contender.forward)
            if hasattr(contender, "backward"):
                costs[name].setdefault("backward", Cost()).time(lambda c=contender, x=deformed: c.backward(x))
            spent[name] += time.perf_counter() - start
    measured = {name: {step: asdict(cost) for step, cost in steps.items()} for name, steps in costs.items()}
    return {
        "vertices": len(case.rest),
        "handles": len(case.handles),
        "costs": measured,
        "refused": refused,
        "agreement": agreement(case, contenders),
    }


def agreement(case: Deformation, contenders: dict[str, Any]) -> list[str]:
    """How far the peers are from ours, in words."""
    lines = []
    for name in ("dense twin f32", "dense twin f64"):
        if {name, "numba bilaplacian"} <= contenders.keys():
            (x, x_gradient), (y, y_gradient) = (evaluated(contenders[key]) for key in ("numba bilaplacian", name))
            off, gradient = float((y - x).abs().max()), float((y_gradient - x_gradient).abs().max())
            lines.append(f"{name} is {off:.0e} mm from ours, its handle gradient {gradient:.0e} of the largest entry")
    if len(case.rest) < CONVERGED_BELOW:
        x = Ours(case, energy="edges", weights="cotangent", fits=300).forward()[0].detach().numpy()
        for name, peer in (("libigl", LibIgl), ("Open3D", Open3D)):
            with contextlib.suppress(Unable):
                off = np.abs(peer(case, fits=300).forward() - x).max()
                lines.append(f"after 300 rotation fits {name} is {off:.0e} mm from ours")
    return lines


def evaluated(contender: Any) -> tuple[torch.Tensor, torch.Tensor]:
    deformed = contender.forward()
    gradient = contender.backward(deformed)[1]
    return deformed.detach(), gradient / gradient.abs().max()


def memory(mesh: Path, name: str) -> dict[str, float]:
    """MB that factor, forward and backward add at their highest to a process which has all its code loaded."""
    make, case = CONTENDERS[name], Deformation.load(mesh)
    run(make(bumpy_sphere(300)))
    before = resident_now()
    run(make(case))
    return {"peak": highest_resident() - before}


def run(contender: Any) -> None:
    deformed = contender.forward()
    if hasattr(contender, "backward"):
        contender.backward(deformed)


def resident_now() -> float:
    """MB of memory of this process, after giving back what is free; forgets the highest so far. Linux with glibc."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return highest_resident()


def highest_resident() -> float:
    """MB of memory of this process at its highest since `resident_now`."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    what, mesh, argument, *words = sys.argv[1:]
    json.dump(times(Path(mesh), int(argument), words) if what == "times" else memory(Path(mesh), argument), sys.stdout)
