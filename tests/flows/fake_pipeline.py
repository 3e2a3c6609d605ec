"""Three small stages with the shape of the real ones, and a script that runs them: what the tests drive.

Every body appends its name to ``bodies.log`` in the run folder. Files named ``salt``, ``fail`` and ``slow`` in the run
folder change the dataset's bytes, make a shard fail once, and make shards take half a second.
"""

import sys
import time
from pathlib import Path

from flows.config import Section, parse_config
from flows.errors import UserError
from flows.pipeline import Pipeline, Stage
from flows.tables import read_table, write_table


class Numbers(Section):
    count: int = 4


class FakeConfig(Section):
    run_dir: Path
    seed: int = 0
    dataset: Numbers = Numbers()
    epochs: int = 1


def log(context, name):
    with (context.run_dir / "bodies.log").open("a") as stream:
        stream.write(name + "\n")


def bodies(run_dir):
    path = run_dir / "bodies.log"
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


def shards(context):
    return [f"{i:05d}" for i in range(context.config.dataset.count)]


def make_numbers(context, shard):
    log(context, f"shard-{shard}")
    if (context.run_dir / "slow").exists():
        time.sleep(0.5)
    if (context.run_dir / "fail").exists():
        kind = (context.run_dir / "fail").read_text()
        (context.run_dir / "fail").unlink()
        raise UserError("the photo is upside down") if kind == "user" else OSError("the disk hiccuped")
    salt = context.run_dir / "salt"
    value = 1.0 + (len(salt.read_text()) if salt.exists() else 0)
    columns = {"model": ["m"], "epoch": [int(shard)], "metric": ["number"], "value": [value]}
    write_table(context.out / f"history-{shard}.parquet", "history", columns)


def check_numbers(context):
    log(context, "build_dataset")
    found = read_table(sorted(context.out.glob("history-*.parquet")), "history")
    assert list(found["epoch"]) == list(range(context.config.dataset.count))


def label(context):
    log(context, "transfer_labels")
    (context.out / "labels.txt").write_text(f"{context.config.seed}")


def train(context):
    log(context, "train_segments")
    numbers = read_table(context.inputs["build_dataset"], "history")["value"]
    assert (context.inputs["transfer_labels"] / "labels.txt").exists()
    total = float(numbers.sum()) * context.config.epochs
    columns = {"method": ["vae"], "part": ["nose"], "metric": ["iou"], "value": [total], "n": [len(numbers)]}
    write_table(context.out / "metrics.parquet", "metrics", columns)


STAGES = (
    Stage(
        "build_dataset",
        lambda config: {"dataset": config.dataset.model_dump()},
        run=check_numbers,
        packages=("dataset_builder",),
        shards=shards,
        run_shard=make_numbers,
    ),
    Stage("transfer_labels", lambda config: {"seed": config.seed}, run=label),
    Stage(
        "train_segments",
        lambda config: {"epochs": config.epochs},
        run=train,
        needs=("build_dataset", "transfer_labels"),
        packages=("segmodel",),
    ),
)


def pipeline(run_dir, overrides=(), **selection):
    run_dir.mkdir(parents=True, exist_ok=True)
    config = parse_config({"run_dir": run_dir}, overrides, model=FakeConfig)
    return Pipeline(STAGES, config, **selection)


def main():
    outcomes = pipeline(Path(sys.argv[1]), sys.argv[2:]).execute()
    heavy = [name for name in ("torch", "prefect") if name in sys.modules]
    print(" ".join(outcome.status for outcome in outcomes), *heavy)


if __name__ == "__main__":
    main()
