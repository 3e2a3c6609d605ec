"""How do the costs of a deformation grow with the mesh, and where does its memory go?

python benchmarks/arap_scaling.py [--sizes 5000 10000 ... 300000] [--repeats 3] [--energies edges bilaplacian]

A curved sheet of n vertices, its border and a patch in its middle held; four solves, gradient with respect to rest
shape and handles, one thread, every size in a process of its own. Times are processor times, the smallest of the
repeats. Peaks are resident sizes above the one before (Linux: VmHWM), of the factorisation and of forward and backward
passes. The other columns are arrays alive after a forward pass with gradient: the factor, the edges, index lists and
sparse matrices, the workspaces that are used again, and the tape of the backward pass.
The last lines fit cost = c n^exponent.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from arap import start
from arap_contenders import Ours
from arap_measure import Cost, highest_resident, resident_now, run
from arap_meshes import MOVE, Deformation

SIZES = (5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000)
TIMES, PEAKS = ("factor s", "forward s", "backward s"), ("peak factor MB", "peak solve MB")
HELD = ("factor MB", "matrices MB", "workspaces MB", "tape MB")


def sheet(n: int) -> Deformation:
    """Curved grid of about n vertices, its border and a central patch held, the patch moved by 5 mm."""
    rows = round(n**0.5)
    x, y = np.meshgrid(np.linspace(-80, 80, rows), np.linspace(-80, 80, rows))
    z = 60 * np.cos(x / 90) * np.cos(y / 90) + np.sin(x / 5) * np.cos(y / 7)
    rest = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    ids = np.arange(rows * rows).reshape(rows, rows)
    a, b, c, d = (part.ravel() for part in (ids[:-1, :-1], ids[:-1, 1:], ids[1:, :-1], ids[1:, 1:]))
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])
    middle = slice(2 * rows // 5, 3 * rows // 5)
    patch = ids[middle, middle].ravel()
    handles = np.unique(np.concatenate([patch, ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    return Deformation(rest, faces, handles, rest[handles] + np.isin(handles, patch)[:, None] * MOVE)


def measure(n: int, energy: str, repeats: int) -> dict[str, float]:
    """The row of one size; runs in a fresh process."""
    run(Ours(sheet(12_000), energy=energy))  # compiles, or loads what is compiled
    case, row, (factor, forward, backward) = sheet(n), {}, (Cost(), Cost(), Cost())
    before = resident_now()
    contender = factor.time(lambda: Ours(case, energy=energy))
    row["peak factor MB"] = highest_resident() - before
    before = resident_now()
    for repeat in range(repeats):
        deformed = forward.time(contender.forward)
        if repeat == 0:
            row |= held_arrays(contender.solver, deformed)
        backward.time(lambda x=deformed: contender.backward(x))
    row["peak solve MB"] = highest_resident() - before
    row |= {name: cost.cpu / 1e3 for name, cost in zip(TIMES, (factor, forward, backward), strict=True)}
    return {"vertices": len(case.rest), "handles": len(case.handles), **row}


def held_arrays(solver: Any, deformed: Any) -> dict[str, float]:
    """MB of the arrays that a prepared solver and the graph of a result keep alive, by what they are for."""
    kept, seen = dict.fromkeys(HELD, 0.0), set()
    for owner, roots in (("", [solver]), ("tape", list(graph_nodes(deformed.grad_fn)))):
        for path, array in arrays_in(roots, owner, seen):
            kind = next((kind for kind in ("tape", "workspace", "factor") if kind in path), "matrices")
            kept[next(name for name in HELD if name.startswith(kind))] += array.nbytes / 1e6
    return kept


def graph_nodes(node: Any) -> Iterator[Any]:
    """What every step of an autograd graph has saved."""
    yield getattr(node, "saved_tensors", ())
    yield vars(node) if hasattr(node, "__dict__") else {}
    for parent, _ in node.next_functions:
        if parent is not None:
            yield from graph_nodes(parent)


def arrays_in(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Arrays and tensors reachable from an object, each once, with the names of the attributes that lead to them."""
    if isinstance(thing, (np.ndarray, torch.Tensor)):
        owner = thing
        while isinstance(owner, np.ndarray) and isinstance(owner.base, np.ndarray):
            owner = owner.base
        address = owner.ctypes.data if isinstance(owner, np.ndarray) else owner.untyped_storage().data_ptr()
        if address not in seen:
            seen.add(address)
            yield path, owner
    elif isinstance(thing, dict):
        for name, value in thing.items():
            yield from arrays_in(value, f"{path}.{name}", seen)
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from arrays_in(value, path, seen)
    elif type(thing).__module__.startswith(("arap_diff", "scipy.sparse", "_thread")) and id(thing) not in seen:
        seen.add(id(thing))
        yield from arrays_in(getattr(thing, "__dict__", ()), path, seen)


def print_rows(energy: str, rows: list[dict[str, float]]) -> None:
    names = (*TIMES, *PEAKS, *HELD)
    print(f"\n{energy}\n{'vertices':>10}" + "".join(f"{name:>16}" for name in names))
    for row in rows:
        print(f"{row['vertices']:>10,.0f}" + "".join(f"{row[name]:>16.4g}" for name in names))
    if len(rows) > 1:
        sizes = np.log([row["vertices"] for row in rows])
        exponents = [np.polyfit(sizes, np.log([max(row[name], 1e-9) for row in rows]), 1)[0] for name in names]
        print(f"{'exponent':>10}" + "".join(f"{exponent:>16.2f}" for exponent in exponents))
    print(
        f"{'per vertex':>10}" + "".join(f"{1e6 * rows[-1][name] / rows[-1]['vertices']:>16.4g}" for name in names),
        end="",
    )
    print(f"   (us and bytes, at {rows[-1]['vertices']:,.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--energies", nargs="+", choices=("edges", "bilaplacian"), default=("edges", "bilaplacian"))
    parser.add_argument("--json", action="store_true", help="one size and energy, measured in this process")
    options = parser.parse_args()
    if options.json:
        json.dump(measure(options.sizes[0], options.energies[0], options.repeats), sys.stdout)
        return
    for energy in options.energies:
        arguments = ("--json", "--energies", energy, "--repeats", options.repeats, "--sizes")
        print_rows(energy, [json.loads(start("arap_scaling.py", *arguments, n, threads=1)) for n in options.sizes])


if __name__ == "__main__":
    main()
