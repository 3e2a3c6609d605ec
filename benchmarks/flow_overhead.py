"""What do keys, manifests, seals and Prefect cost beside the work itself?

python benchmarks/flow_overhead.py --run runs/demo [--config configs/demo.yaml] [--quick]

- A cached run: `neo3df run` on a copy of a finished run, a whole process. Goal: 5 s.
- Prefect's share: a small run with as many shards as the demo, by PlainRunner and by PrefectRunner with one worker, in
  turns, each in its own process; the difference of the shortest over the seconds that the stages of `--run` took. Goal:
  10 %. The first run of all sets up Prefect's database.
- A dry plan of 100,000 faces, a whole process: of synthetic ones, and of a folder with as many files of 100 kB. The
  files are links to a few, so their bytes come from memory: a disk adds the time it takes to read them.
- Tables against np.save and np.load, in MB of float32 per second, the best of three, read from memory. "seal" is the
  share of the time that goes into the digest by which a file proves its bytes, "unsealed" the rate without it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from flows import store
from flows.contracts import CONTRACTS, Contract, tensor
from flows.sealed import BLANK, check_parquet, seal_parquet
from flows.sources import digest_files, source_files
from flows.tables import read_table, write_table

CACHED_GOAL_S, PREFECT_GOAL = 5.0, 0.10
FILE_BYTES, LINKS_PER_FILE = 100_000, 20_000
LATENTS = Contract("latents_30", 1, {"z": tensor(30)})
SMALL = {
    "dataset": {"face_model": "synthetic-3k", "n_photos": 20, "validation_share": 0.2, "shard_size": 4},
    "segments": {"n_shapes": 400, "epochs": 1},
    "regressors": {"encoder": "small", "encoder_epochs": 2, "epochs": 2},
    "controllers": {"n_faces": 200},
    "fine_tune": {"epochs": 1},
    "fit": {"iterations": 5, "shard_size": 2, "batch_size": 2},
    "evaluate": {"n_examples": 2},
}
RUN_SMALL = """
import sys, time
from pathlib import Path
from flows import environment
environment.prepare()
from flows.config import load_config
from flows.pipeline import Pipeline, PlainRunner
from flows.stages import STAGES
if sys.argv[2] == "prefect":
    from flows.prefect_runner import PrefectRunner
    runner = PrefectRunner("thread", 1)
else:
    runner = PlainRunner()
Pipeline(STAGES, load_config(Path(sys.argv[1]), [f"run_dir={sys.argv[3]}"])).execute(runner)
"""


class Results:
    """The rows of the one table."""

    def __init__(self) -> None:
        self._table = Table("what", "measured", "goal", "met")

    def add(self, what: str, measured: str, goal: str = "", met: bool | None = None) -> None:
        """One row, also printed at once."""
        print(f"{what}: {measured}", flush=True)
        self._table.add_row(what, measured, goal, {None: "", True: "yes", False: "NO"}[met])

    def print(self) -> None:
        """The table."""
        Console(width=120).print(self._table)


def seconds(action: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def process(*arguments: object, env: dict[str, str] | None = None) -> str:
    """Standard output of a Python process. Raises RuntimeError with what it said if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **(env or {})}
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return done.stdout


def neo3df(*arguments: object) -> str:
    """Standard output of one command."""
    return process("-m", "flows.cli", *arguments)


# --------------------------------------------------------------------------------------------------- runs and plans


def measure_cached(results: Results, config: Path, run: Path, home: Path, repeats: int) -> None:
    """A run in which nothing is left to do."""
    copy = shutil.copytree(run, home / "cached")
    plan = neo3df("run", "-c", config, "--run-dir", copy, "--dry-run")
    if "would run" in plan:
        raise SystemExit(f"{run} is not finished for {config} and this version of the program:\n{plan}")
    took = [seconds(lambda: neo3df("run", "-c", config, "--run-dir", copy)) for _ in range(repeats)]
    median = float(np.median(took))
    spread = f"{median:.1f} s ({min(took):.1f} to {max(took):.1f}, {repeats} runs)"
    results.add("cached run, whole process", spread, f"< {CACHED_GOAL_S:g} s", median < CACHED_GOAL_S)


def measure_prefect(results: Results, run: Path, home: Path, repeats: int) -> None:
    """The same small run with and without Prefect."""
    config = home / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    env = {"PREFECT_HOME": str(home / "prefect")}

    def once(runner: str, name: str) -> float:
        return seconds(lambda: process("-c", RUN_SMALL, config, runner, home / name, env=env))

    once("plain", "warm")  # compiles, or loads what is compiled
    first = once("prefect", "first")
    pairs = [(once("plain", f"plain-{i}"), once("prefect", f"prefect-{i}")) for i in range(repeats)]
    plain, prefect = (min(column) for column in zip(*pairs, strict=True))
    demo = sum(took for _, took, _ in store.timings(run))
    added, share = prefect - plain, (prefect - plain) / demo
    results.add("small run, PlainRunner", f"{plain:.1f} s")
    results.add("small run, PrefectRunner", f"{prefect:.1f} s (first of all: {first:.1f} s)")
    of_demo = f"{added:.1f} s of {demo:.0f} s: {100 * share:.1f} %"
    results.add("Prefect's own time in the given run", of_demo, f"< {100 * PREFECT_GOAL:g} %", share < PREFECT_GOAL)


def measure_plans(results: Results, config: Path, home: Path, n_faces: int) -> None:
    """What it takes to say what would run."""
    common = ("run", "-c", config, "--run-dir", home / "plan", "--dry-run")
    took = seconds(lambda: neo3df(*common, "--set", f"dataset.n_photos={n_faces}"))
    results.add(f"dry plan, {n_faces:,} synthetic faces", f"{took:.1f} s", "seconds", took < 60)

    folder = linked_photos(home / "photos", n_faces)
    took = seconds(lambda: neo3df(*common, "--set", f"dataset.images={folder}"))
    results.add(f"dry plan, folder of {n_faces:,} photographs", f"{took:.1f} s", "seconds", took < 60)
    took = seconds(lambda: digest_files(source_files(folder)))
    each = f"{1e3 * took / n_faces:.2f} ms a file of {FILE_BYTES // 1000} kB"
    results.add("fingerprint of that folder", f"{took:.1f} s, {each}")


def linked_photos(folder: Path, count: int) -> Path:
    """A folder of ``count`` names for a few files of random bytes: what a plan reads of a photograph."""
    folder.mkdir()
    random, source = np.random.default_rng(0), folder
    for i in range(count):
        path = folder / f"{i:06d}.jpg"
        if i % LINKS_PER_FILE == 0:
            source = path
            source.write_bytes(random.bytes(FILE_BYTES))
        else:
            os.link(source, path)
    return folder


# ----------------------------------------------------------------------------------------------------------- tables


def measure_table(results: Results, name: str, contract: Contract, columns: dict[str, Any], home: Path) -> None:
    """Rates of one table: write_table and read_table, their seals, and NumPy's files."""
    values = next(column for column in columns.values() if isinstance(column, np.ndarray))
    path, raw, blank = (home / f"{contract.name}.{end}" for end in ("parquet", "npy", "blank"))

    def rate(action: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> float:
        best = float("inf")
        for _ in range(3):
            before()
            best = min(best, seconds(action))
        return best

    def save_durably() -> None:
        with raw.open("wb") as stream:
            np.save(stream, values)
            stream.flush()
            os.fsync(stream.fileno())

    write = rate(lambda: write_table(path, contract, columns))
    read = rate(lambda: read_table(path, contract))
    found = read_table(path, contract)
    assert all(np.array_equal(found[key], column) for key, column in columns.items())
    seal = rate(lambda: seal_parquet(blank), before=lambda: unseal(path, blank))
    check = rate(lambda: check_parquet(path.read_bytes())) - rate(path.read_bytes)
    save, durable = rate(lambda: np.save(raw, values)), rate(save_durably)
    load = rate(lambda: np.load(raw))

    def mb(took: float) -> str:
        return f"{values.nbytes / 1e6 / took:,.0f} MB/s"

    shape = " x ".join(f"{n:,}" for n in values.shape)
    label = f"{name} {shape}, {values.nbytes / 1e6:.0f} MB"
    results.add(f"{label}: write", f"{mb(write)}; unsealed {mb(write - seal)}, seal {100 * seal / write:.0f} %")
    results.add("   np.save; with fsync, as write_table", f"{mb(save)}; {mb(durable)}")
    results.add(f"{label}: read", f"{mb(read)}; unsealed {mb(read - check)}, seal {100 * check / read:.0f} %")
    results.add("   np.load", mb(load))


def unseal(path: Path, blank: Path) -> None:
    """A copy of a table as it was before it was sealed."""
    metadata = pq.read_metadata(path).metadata
    blank.write_bytes(path.read_bytes().replace(metadata[b"neo3df_file_sha256"], BLANK))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished run of --config; it is copied")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--faces", type=int, default=100_000, help="faces of the dry plan, rows of the latents")
    parser.add_argument("--repeats", type=int, default=3, help="cached runs, and pairs of small runs")
    parser.add_argument("--out", type=Path, help="folder for temporary files, on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="5,000 faces, one repeat")
    options = parser.parse_args()
    faces, repeats = (5_000, 1) if options.quick else (options.faces, options.repeats)
    config = options.config.resolve()
    threads = os.environ.get("OMP_NUM_THREADS", "as many as libraries like")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, threads here: {threads}", flush=True)
    results, random = Results(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.out) as name:
        home = Path(name)
        vertices = random.normal(0, 60, (60, 35_709, 3)).astype(np.float32)
        rows = {"face_id": [str(i) for i in range(len(vertices))], "vertices": vertices}
        measure_table(results, "meshes", CONTRACTS["shapes"], rows, home)
        latents = random.normal(size=(faces, 30)).astype(np.float32)
        measure_table(results, "latents", LATENTS, {"z": latents}, home)
        measure_cached(results, config, options.run, home, repeats)
        measure_plans(results, config, home, faces)
        measure_prefect(results, options.run, home, repeats)
    results.print()


if __name__ == "__main__":
    main()
