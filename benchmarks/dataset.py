"""How fast does a folder of photographs become a dataset, in how much memory, and does killing it cost anything?

NEO3DF_ASSETS=... python benchmarks/dataset.py [--photos 64]    photos per second per stage of the work, and a plan
NEO3DF_ASSETS=... python benchmarks/dataset.py --run            the dataset stage alone over all photographs
NEO3DF_ASSETS=... python benchmarks/dataset.py --kill 3         the same, killed so many times and resumed

All read ``--config`` (configs/photos.yaml) and write into ``--out`` (runs/benchmark-dataset). Rates are per core: each
step runs in one thread and is timed in processor seconds, so that what else the machine does counts little; the better
of two passes. The plain loop is what one writes first: photo by photo, the detector on the whole photo. The plan is
computed from these rates and from the sizes of the files of ``--run``; several machines are not measured.
"""

import argparse
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dataset_builder import (
    CropTransform,
    Detection,
    FaceDetector,
    FaceEncoder,
    LandmarkDetector,
    LandmarkEstimator,
    Photo,
    PhotoFile,
    Rejected,
    align_face,
    crop_ignore,
    crop_labels,
    five_points,
    load_encoder,
    load_face_model,
    read_photo,
)
from dataset_builder.facenet import InceptionResnetV1
from flows import store
from flows.config import RunConfig, load_config
from flows.photo_plan import plan_photos
from flows.pipeline import Pipeline, PlainRunner, Stage, StageContext
from flows.sources import PhotoEntry, content_digest, source_files
from flows.stages import STAGES
from flows.stages.dataset import crop_bytes
from flows.tables import read_table, row_count, write_table

T = TypeVar("T")

PLANS = ".work-*/plan-*"
PASSES = 2
BATCH = 16
DATASET_STEPS = ("decode", "detect", "align and landmarks", "labels of the crop", "fit", "write crops and labels")
TABLES = ("faces", "crops", "masks", "rejected")
CONSOLE = Console(width=120)


# ---------------------------------------------------------------------------------------------- photos per second


def rate(work: Callable[[], Sequence[T]]) -> tuple[float, list[T]]:
    """Results per processor second of the better pass, and the results."""
    best = 0.0
    for _ in range(PASSES):
        began = time.process_time()
        found = list(work())
        best = max(best, len(found) / max(time.process_time() - began, 1e-9))
    return best, found


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of ``size`` items."""
    return (items[first : first + size] for first in range(0, len(items), size))


@dataclass(frozen=True)
class Sample:
    """Photos spread evenly over all folders, and of each its largest face: crop, landmarks, labels, ignored pixels."""

    entries: list[PhotoEntry]
    photos: list[Photo]
    faces: list[Detection]
    crops: np.ndarray
    marks: np.ndarray
    labels: list[np.ndarray]
    ignore: list[np.ndarray]


def take_sample(config: RunConfig, count: int) -> Sample:
    """Photos that can be used, among ``count`` spread over the plan."""
    entries = [entry for entry in plan_photos(config.dataset, config.seed) if isinstance(entry, PhotoEntry)]
    chosen = [entries[i] for i in np.linspace(0, len(entries) - 1, min(count, len(entries))).astype(int)]
    read = [(entry, decoded(entry)) for entry in chosen]
    detector, networks = FaceDetector(), LandmarkDetector()
    kept = [
        (entry, photo, found[0])
        for entry, photo in read
        if isinstance(photo, Photo) and (found := detector.detect(photo.image))
    ]
    aligned = [align_face(photo.image, face.five_points) for _, photo, face in kept]
    marks = [
        a.transform.to_crop(networks.detect(photo.image, face.box))
        for a, (_, photo, face) in zip(aligned, kept, strict=True)
    ]
    masks = [crop_mask(photo, a.transform) for a, (_, photo, _) in zip(aligned, kept, strict=True)]
    return Sample(
        [entry for entry, _, _ in kept],
        [photo for _, photo, _ in kept],
        [face for _, _, face in kept],
        np.stack([a.image for a in aligned]),
        np.stack(marks),
        [labels for labels, _ in masks],
        [ignore for _, ignore in masks],
    )


def decoded(entry: PhotoEntry) -> Photo | Rejected:
    """A photo and its mask."""
    return read_photo(PhotoFile(entry.name, entry.path), entry.masks)


def crop_mask(photo: Photo, transform: CropTransform) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ignored pixels of the crop; zero without a mask."""
    if photo.mask is None or photo.ignore is None:
        return np.zeros((2, 224, 224), np.uint8)
    return crop_labels(photo.mask, transform), crop_ignore(photo.ignore, transform).astype(np.uint8)


def write_tables(sample: Sample, folder: Path, size: int) -> list[Path]:
    """The two large tables, so many faces to a file; one path per face."""
    written = []
    for rows in batches(range(len(sample.photos)), size):
        ids, crops = [str(row) for row in rows], [crop_bytes(sample.crops[row]) for row in rows]
        labels, ignore = (np.stack([images[row] for row in rows]) for images in (sample.labels, sample.ignore))
        area = np.stack([(labels == part).sum((1, 2)) for part in range(2, 7)], 1)
        masks = {"face_id": ids, "source": ids, "labels": labels, "ignore": ignore, "area": area}
        path = write_table(folder / "masks.parquet", "masks", masks)
        write_table(folder / "crops.parquet", "crops", {"face_id": ids, "image": crops})
        written += [path] * len(rows)
    return written


def throughput(config: RunConfig, count: int) -> dict[str, float]:
    """Print the table of rates; seconds of one core per photo and step, as the flows do it."""
    sample = take_sample(config, count)
    n, points = len(sample.photos), five_points(sample.marks)
    sides = sorted(max(photo.image.shape[:2]) for photo in sample.photos)
    CONSOLE.print(f"{n} photos, longer side {sides[0]} to {sides[-1]}, median {sides[n // 2]} px; one thread")
    detector, networks = FaceDetector(), LandmarkDetector()
    whole = FaceDetector(max_sides=(max(sides),))
    estimator = LandmarkEstimator(load_face_model(config.dataset.face_model))
    rows: dict[str, tuple[float | None, float, float | None]] = {}

    decode = rate(lambda: [decoded(entry) for entry in sample.entries])[0]
    rows["hash"] = (None, rate(lambda: [content_digest(entry.path) for entry in sample.entries])[0], None)
    rows["decode"] = (decode, decode, None)
    thumbnails = thumbnails_of(sample.photos)
    rows["detect"] = (
        rate(lambda: [whole.detect(photo.image) for photo in sample.photos])[0],
        rate(lambda: [detector.detect(photo.image) for photo in sample.photos])[0],
        None,
    )
    rows["  its network at 320 px"] = (
        None,
        rate(lambda: forward(detector, thumbnails, 1))[0],
        rate(lambda: forward(detector, thumbnails, BATCH))[0],
    )
    pairs = list(zip(sample.photos, sample.faces, strict=True))
    align = rate(lambda: [align_face(photo.image, face.five_points) for photo, face in pairs])[0]
    marks = rate(lambda: [networks.detect(photo.image, face.box) for photo, face in pairs])[0]
    rows["align and landmarks"] = (both := 1 / (1 / align + 1 / marks), both, None)
    transforms = [align_face(photo.image, face.five_points).transform for photo, face in pairs]
    labels = rate(lambda: [crop_mask(*pair) for pair in zip(sample.photos, transforms, strict=True)])[0]
    rows["labels of the crop"] = (labels, labels, None)
    for name, encoder in encoders():

        def encode(size: int, encoder=encoder) -> list[np.ndarray]:
            chosen = batches(range(n), size)
            return [e for rows in chosen for e in encoder.encode(sample.crops[list(rows)], points[list(rows)])]

        (one, found), (many, together) = rate(lambda e=encode: e(1)), rate(lambda e=encode: e(BATCH))
        rows[f"encode, {name}"] = (one, one, many)
        same = np.stack(found).tobytes() == np.stack(together).tobytes()
        CONSOLE.print(f"{name}: embeddings of batches of 1 and {BATCH} are {'' if same else 'not '}the same to the bit")

    def fit(size: int) -> list[np.ndarray]:
        return [row for some in batches(sample.marks, size) for row in estimator.estimate(some).identity]

    one = rate(lambda: fit(1))[0]
    rows["fit"] = (one, one, rate(lambda: fit(BATCH))[0])
    with tempfile.TemporaryDirectory() as folder:
        write = [rate(lambda size=size: write_tables(sample, Path(folder), size))[0] for size in (1, BATCH)]
    rows["write crops and labels"] = (write[0], write[0], write[1])

    table = Table("step", "plain loop", "batch 1", f"batch {BATCH}", title="photos per second of one core")
    for name, values in rows.items():
        table.add_row(name, *("" if value is None else f"{value:.0f}" for value in values))
    steps = [*DATASET_STEPS, "encode, mobilefacenet"]
    totals = [1 / sum(1 / (row[column] or row[1]) for row in (rows[step] for step in steps)) for column in range(3)]
    table.add_row("all, with mobilefacenet", *(f"{total:.1f}" for total in totals))
    CONSOLE.print(table)
    one_by_one = {step for step in rows if step.startswith("encode")}
    return {step: 1 / (one if step in one_by_one else many or one) for step, (_, one, many) in rows.items()}


def thumbnails_of(photos: list[Photo]) -> torch.Tensor:
    """Photos squeezed to 320 x 320: what the detector's network takes, in one size."""
    from PIL import Image

    pixels = np.stack([np.asarray(Image.fromarray(photo.image).resize((320, 320))) for photo in photos])
    return torch.from_numpy(pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32))


@torch.inference_mode()
def forward(detector: FaceDetector, pixels: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The network alone, so many photos at a time."""
    return [scores for some in pixels.split(size) for scores in detector._network(some)[1]]


def encoders() -> Iterator[tuple[str, FaceEncoder]]:
    """MobileFaceNet, and FaceNet with random weights, which take the same time as trained ones."""
    yield "mobilefacenet", load_encoder("mobilefacenet")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "facenet.pt"
        torch.save(InceptionResnetV1().state_dict(), path)
        yield "facenet", load_encoder("facenet", path)


# --------------------------------------------------------------------------------------------- the stage, and kills


class MeasuredRunner(PlainRunner):
    """Runs here, and notes the peak memory after every shard."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}

    def shards(self, stage: Stage, context: StageContext, names: Sequence[str]) -> Iterator[str]:
        """One shard after the other."""
        for name in super().shards(stage, context, names):
            self.peaks[name] = peak_mib()
            yield name


def peak_mib() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_stage(config: RunConfig) -> Path:
    """The dataset stage; what it took, and what was set aside."""
    runner, before = MeasuredRunner(), peak_mib()
    wall, cpu = time.monotonic(), time.process_time()
    (outcome,) = Pipeline(STAGES, config, only=["build_dataset"]).execute(runner)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    rejected = read_table(sorted(outcome.folder.glob("rejected-*.parquet")), "rejected")
    faces = read_table(sorted(outcome.folder.glob("faces-*.parquet")), "faces", columns=["face_id"])["face_id"]
    made = f"{len(faces)} faces and {len(rejected['code'])} set aside"
    CONSOLE.print(f"{outcome.status}: {made}, {wall:.1f} s, {cpu:.1f} s of the processor")
    if runner.peaks:
        marks = np.quantile(list(runner.peaks.values()), (0, 0.25, 0.5, 0.75, 1), method="nearest")
        files = [outcome.folder / f"faces-{shard}.parquet" for shard in runner.peaks]
        now = sum(row_count(path) for path in files if path.exists())
        CONSOLE.print(f"{now} faces in this run, {now / wall:.1f} per second, {now / cpu:.1f} per processor second")
        shown = ", ".join(f"{mark:.0f}" for mark in marks)
        CONSOLE.print(
            f"peak memory: {before:.0f} MiB at the start; after the first shard and each quarter: {shown} MiB"
        )
    table = Table("code", "photos", "first of them", title="rejected")
    for code, count in Counter(rejected["code"]).most_common():
        table.add_row(code, str(count), rejected["detail"][rejected["code"].index(code)])
    CONSOLE.print(table)
    return outcome.folder


def kill_and_resume(config: RunConfig, command: list[str], kills: int) -> None:
    """Run to the end once; then kill another run at random moments, resume it, and compare."""
    whole = run_stage(config)
    broken = config.run_dir.with_name(f"{config.run_dir.name}-killed")
    shutil.rmtree(broken, ignore_errors=True)
    for _ in range(kills):
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, __file__, *command, "--run", "--out", str(broken)], stdout=subprocess.DEVNULL
        )
        while process.poll() is None and not any(path.stat().st_mtime > began for path in broken.glob(PLANS)):
            time.sleep(0.05)
        time.sleep(random.uniform(2, 20))
        process.kill()
        process.wait()
        kept = {path.name for path in broken.glob(f".work-*/{store.DONE}/*") if path.name.isdigit()}
        CONSOLE.print(f"killed with {len(kept)} shards finished")
    before = {
        path: path.stat().st_mtime_ns
        for path in broken.glob(".work-*/*-0*.parquet")
        if path.stem[-5:] in kept and not path.stem.startswith("plan")
    }
    resumed = run_stage(config.model_copy(update={"run_dir": broken}))
    touched = [path.name for path, mtime in before.items() if (resumed / path.name).stat().st_mtime_ns != mtime]
    manifests = [store.load_manifest(folder) for folder in (whole, resumed)]
    same = manifests[0] is not None and manifests[1] is not None and manifests[0].files == manifests[1].files
    CONSOLE.print(f"the same bytes: {same}; files of finished shards made again: {len(touched)} of {len(before)}")


# ----------------------------------------------------------------------------------------------------------- plan


def plan(config: RunConfig, seconds: dict[str, float], faces: int, cores: int) -> None:
    """Hours and bytes for so many photographs."""
    folder = store.find_output(config.run_dir, "build_dataset")
    made = read_table(sorted(folder.glob("faces-*.parquet")), "faces", columns=["face_id"])["face_id"]
    sizes = {name: sum(path.stat().st_size for path in folder.glob(f"{name}-*.parquet")) / len(made) for name in TABLES}
    read = [path.stat().st_size for images, _ in config.dataset.folders for path in source_files(images)]
    sizes["photographs"] = sum(read) / len(read)
    dataset = seconds["hash"] + sum(seconds[step] for step in DATASET_STEPS)
    table = Table(
        "what",
        "per photo",
        "1 core",
        f"1 machine, {cores} cores",
        f"8 machines, {cores} cores",
        title=f"{faces:,} photos",
    )
    for name, each in (
        ("dataset stage", dataset),
        ("hashes for the keys, one process", seconds["hash"]),
        ("encode, mobilefacenet, one process", seconds["encode, mobilefacenet"]),
        ("encode, facenet, one process", seconds["encode, facenet"]),
    ):
        workers = (1, 1, 1) if "one process" in name else (1, cores, 8 * cores)
        hours = [f"{each * faces / 60 / count:.1f} min" for count in workers]
        table.add_row(name, f"{each * 1000:.1f} ms", *hours)
    for name, size in sizes.items():
        table.add_row(f"disk, {name}", f"{size / 1000:.1f} kB", f"{size * faces / 1e9:.2f} GB", "", "")
    CONSOLE.print(table)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "configs" / "photos.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-dataset"))
    parser.add_argument("--photos", type=int, default=64, help="how many photos are timed")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    parser.add_argument("--run", action="store_true", help="the dataset stage alone")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="kill it N times and resume it")
    parser.add_argument("--faces", type=int, default=100_000, help="of the plan")
    parser.add_argument("--cores", type=int, default=16, help="of a machine of the plan")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(given.config, [*given.set, f"run_dir={given.out}"])
    if given.kill:
        command = ["--config", str(given.config), *(word for text in given.set for word in ("--set", text))]
        kill_and_resume(config, command, given.kill)
    elif given.run:
        run_stage(config)
    else:
        seconds = throughput(config, given.photos)
        run_stage(config)
        plan(config, seconds, given.faces, given.cores)


if __name__ == "__main__":
    main()
