"""What does a differentiable deformation cost, next to libigl, Open3D and the paper's dense formulation?

python benchmarks/arap.py [--meshes sphere transition face] [--only WORD ...] [--repeats 15] [--json FILE]

One table: everyone gets the same meshes, handles and number of rotation fits. Times are the smallest of the repeats,
wall and in brackets processor time of all threads; the contenders take turns in one process, once with one thread on
one core and once with two on two. The gradient is with respect to the rest shape and the handles. Memory is the highest
resident size during factor, forward and backward above that of a process with everything loaded (Linux: VmHWM), each
in a process of its own. Below the table: ratios, next to the goals set for this package.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from arap_goals import print_goals

HERE = Path(__file__).parent
THREADS = (1, 2)
MESHES = ("sphere", "transition", "face")

Results = dict[str, dict[str, Any]]  # mesh -> "1", "2", "memory" -> what arap_measure.py printed


def start(script: str, *arguments: object, threads: int) -> str:
    """Output of a script of this folder that may use so many threads, on as many cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "IGL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"OMP_WAIT_POLICY": "PASSIVE"}
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    result = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return result.stdout


def measure(meshes: list[str], repeats: int, words: list[str]) -> Results:
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        start("arap_meshes.py", folder, threads=1)
        for mesh in meshes:
            path = Path(folder, f"{mesh}.npz")
            results[mesh] = {}
            for threads in THREADS:
                print(f"{mesh}: {threads} thread(s)", file=sys.stderr)
                results[mesh][str(threads)] = json.loads(
                    start("arap_measure.py", "times", path, repeats, *words, threads=threads)
                )
            results[mesh]["memory"] = {
                name: json.loads(start("arap_measure.py", "memory", path, name, threads=1))["peak"]
                for name in results[mesh]["1"]["costs"]
            }
    return results


def print_table(results: Results) -> None:
    heads = [f"{step}, {threads} thr" for threads in THREADS for step in ("factor", "forward", "backward")]
    print(f"{'ms: wall (processor)':36}" + "".join(f"{head:>20}" for head in heads) + f"{'peak MB':>10}")
    for mesh, measured in results.items():
        one = measured["1"]
        print(f"\n{mesh}: {one['vertices']:,} vertices, {one['handles']:,} of them handles")
        for name in one["costs"]:
            cells = [
                _cell(measured[str(threads)]["costs"][name].get(step))
                for threads in THREADS
                for step in ("factor", "forward", "backward")
            ]
            print(f"  {name:34}" + "".join(f"{cell:>20}" for cell in cells) + f"{measured['memory'][name]:10.0f}")
        for name, reason in one["refused"].items():
            print(f"  {name:34}  {reason}")
        for line in one["agreement"]:
            print(f"  ({line})")


def _cell(cost: dict[str, float] | None) -> str:
    return "-" if cost is None else f"{cost['wall']:.2f} ({cost['cpu']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", nargs="+", choices=MESHES, default=MESHES)
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", default=[], help="contenders with one of these in their name"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="keep the measurements; an existing file is printed, not measured")
    options = parser.parse_args()
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    else:
        results = measure(options.meshes, options.repeats, options.only)
    if options.json:
        options.json.write_text(json.dumps(results))
    print_table(results)
    print_goals(results)


if __name__ == "__main__":
    main()
