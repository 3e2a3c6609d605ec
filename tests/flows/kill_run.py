"""Kill a run with SIGKILL at random moments, start it again each time, and compare what comes out with a quiet run.

    python tests/flows/kill_run.py -c configs/demo.yaml --kills 20

The moments are drawn over the time line of the quiet run, so that every stage gets its share. After each kill a reader
looks at the folder: every finished stage must verify, and every finished shard must survive as the same file.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from flows.store import DONE, load_manifest, load_run, stage_folder
from flows.verify import verify_run

STARTED = re.compile(r"^(\w+): started$")


@dataclass
class Report:
    """What the kills did: where each fell, what a reader saw wrong, which finished files were written again."""

    kills: list[str] = field(default_factory=list)
    visible: list[str] = field(default_factory=list)
    redone: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def start(config: Path, run_dir: Path, overrides: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "run", "-c", str(config), "--run-dir", str(run_dir)]
    command += [part for override in overrides for part in ("--set", override)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, log = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run failed with status {process.returncode}:\n{log[-2000:]}")


def moments(run_dir: Path, kills: int, draw: random.Random) -> list[tuple[str, float]]:
    """Stage and seconds into it of each kill, in the order of the run."""
    stages = []
    for stage, key in load_run(run_dir).stages.items():
        manifest = load_manifest(stage_folder(run_dir, stage, key))
        assert manifest is not None
        stages.append((stage, manifest.seconds))
    total, chosen = sum(seconds for _, seconds in stages), []
    for moment in sorted(draw.uniform(0, total) for _ in range(kills)):
        for stage, seconds in stages:
            if moment < seconds:
                chosen.append((stage, moment))
                break
            moment -= seconds
    return chosen


def kill_in(process: subprocess.Popen[str], stage: str, seconds: float, order: list[str]) -> str:
    """SIGKILL the whole process group once ``stage`` has run for so long; says where it fell.

    Where an earlier kill came later and the stage is finished, soon after the start of the next one that is not.
    """
    assert process.stderr is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in process.stderr], daemon=True).start()
    where = ""
    while process.poll() is None and (where == "" or order.index(where) < order.index(stage)):
        try:
            found = STARTED.match(lines.get(timeout=0.1).strip())
        except queue.Empty:
            continue
        where = found.group(1) if found else where
    if where != stage:
        seconds = min(seconds, 2.0)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"{seconds:.1f} s into {where}"
    return "after the end"


def shard_files(run_dir: Path) -> dict[Path, tuple[int, int]]:
    """Files of finished shards in work folders, and of finished stages: inode and time of writing."""
    found = {}
    for work in run_dir.glob(".work-*"):
        done = {mark.name for mark in (work / DONE).glob("*")}
        for path in work.glob("*.parquet"):
            if path.stem.rpartition("-")[2] in done:
                found[work.name.removeprefix(".work-"), path.name] = path
    for folder in run_dir.glob("*-*/manifest.json"):
        for path in folder.parent.rglob("*.parquet"):
            found[folder.parent.name, path.relative_to(folder.parent).as_posix()] = path
    return {Path(*key): (path.stat().st_ino, path.stat().st_mtime_ns) for key, path in found.items()}


def look(run_dir: Path, before: dict[Path, tuple[int, int]], report: Report) -> dict[Path, tuple[int, int]]:
    """Take down what a reader sees wrong, and which finished files are no longer the same files."""
    if any(run_dir.glob("*")) and (run_dir / "run.json").exists():
        published = {run_dir / name for name in ("report.html", "face.json", "face.glb")}
        published |= set((run_dir / "report").glob("*"))
        report.visible += [f"{d.path.name}: {d.what}" for d in verify_run(run_dir) if d.path not in published]
    now = shard_files(run_dir)
    report.redone += [str(path) for path, stamp in before.items() if now.get(path) != stamp]
    return now


def differences(quiet: Path, killed: Path) -> list[str]:
    """Output files that are not the same bytes in both runs, by name."""
    wrong = []
    for stage, key in load_run(quiet).stages.items():
        manifests = [load_manifest(stage_folder(run, stage, load_run(run).stages[stage])) for run in (quiet, killed)]
        files = [{entry.name: entry.sha256 for entry in manifest.files} if manifest else {} for manifest in manifests]
        names = sorted(files[0].keys() | files[1].keys())
        wrong += [f"{stage}-{key}/{name}" for name in names if files[0].get(name) != files[1].get(name)]
    return wrong


def kill_run(config: Path, folder: Path, kills: int, seed: int, overrides: list[str]) -> Report:
    quiet, killed = folder / "quiet", folder / "killed"
    began = time.monotonic()
    if not (quiet / "run.json").exists():
        finish(start(config, quiet, overrides))
        print(f"quiet run: {time.monotonic() - began:.0f} s", flush=True)
    report, files, order = Report(), {}, list(load_run(quiet).stages)
    for stage, seconds in moments(quiet, kills, random.Random(seed)):
        report.kills.append(kill_in(start(config, killed, overrides), stage, seconds, order))
        files = look(killed, files, report)
        print(f"killed {report.kills[-1]}: {len(files)} finished tables", flush=True)
    finish(start(config, killed, overrides))
    look(killed, files, report)
    report.different += differences(quiet, killed)
    print(f"all runs: {time.monotonic() - began:.0f} s", flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the two runs go; default: a temporary folder")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill_run-"))
    report = kill_run(options.config, folder, options.kills, options.seed, options.overrides)
    for title, lines in (
        ("half-written or damaged files that a reader saw", report.visible),
        ("finished tables that were written again", report.redone),
        ("output files that differ from the quiet run", report.different),
    ):
        print(f"{title}: {len(lines)}", *lines[:10], sep="\n  ")
    sys.exit(bool(report.visible or report.redone or report.different))


if __name__ == "__main__":
    main()
