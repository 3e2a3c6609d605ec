"""How well can the parts be laid on hand-made masks of real photographs, by people the models never saw?

NEO3DF_ASSETS=... python benchmarks/real_photos.py [--folds 4] [--only FIRST_WORDS ...] [--out runs/folds]

Every clean face of `configs/ict.yaml` is fitted once, with labels, part models and part modes learned from the other
people. Each row of the printed table is one setting of `fit_photos`; its fits are Parquet tables in the run folders,
so an interrupted call goes on where it was and a finished one only prints. Intersection over union is over pixels
that are not ignored; intervals are 95 % bootstrap intervals over people; `448` is the same shape rendered and the
mask resampled at 448 pixels, which shows what is fitting to the pixel grid. Table 3 of NEO-3DF (Yan et al. 2022) are
the rows named c and z.
"""

import argparse
import csv
import itertools
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_builder import CropTransform, crop_labels, read_photos
from fitting import Camera, PartOverlap, part_iou, render_labels
from fitting.targets import MIN_AREA
from flows.config import RunConfig, load_config
from flows.contracts import PARTS
from flows.pipeline import Pipeline, PlainRunner
from flows.report.confidence import interval
from flows.run_data import load_faces, validation_faces
from flows.run_model import Pose, load_part_face_model
from flows.sources import distinct_names, list_photos
from flows.stages import STAGES
from flows.store import parse_manifest
from flows.tables import read_table

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "ict.yaml"
FINE = 448
N_MODES = 20
POSE = ("expression", "angles", "translation")
FULL = {"variables": "latents", "offsets": "xyz", "expression": True, "pose": True}
TUNED = {"ramp_px": 5.0, "prior": 3e-4, "flip_penalty": 1e-3}
GLOBAL = {"variables": "global", "offsets": "none", "expression": True, "pose": True, "blend": False}


def _table_3(more: str, settings: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The eight cells of NEO-3DF's table 3, with some more settings and words for them."""
    cells = {}
    for name, variables in (("c", "controls"), ("z", "latents")):
        for offsets in ("none", "yz"):
            for blend in (False, True):
                row = f"{name}{' + dy,dz' if offsets == 'yz' else ''}, {'blend' if blend else 'no blend'}, 20{more}"
                cells[row] = {"variables": variables, "offsets": offsets, "blend": blend, **settings}
    return cells


def _beyond() -> dict[str, dict[str, object]]:
    cells: dict[str, dict[str, object]] = {}
    for iterations in (20, 60):
        many = {"iterations": iterations}
        cells |= {
            f"z + d + e + p, {iterations}": FULL | many,
            f"z + d + e + p, ramp 5, {iterations}": FULL | TUNED | many,
            f"z + d + e + p + modes, ramp 5, {iterations}": FULL | TUNED | many | {"modes": True},
            f"global + e + p, {iterations}": GLOBAL | many,
            f"global + e + p, ramp 5, {iterations}": GLOBAL | TUNED | many,
            f"global + e + p + modes, ramp 5, {iterations}": GLOBAL | TUNED | many | {"modes": True},
        }
    return cells


LITERAL = {"learning_rate": 1e-3, "prior": 0.0, "loss": "frobenius"}
MODES = FULL | TUNED | {"modes": True}
CELLS = (
    _beyond()
    | {"z + d + e + p, ramp 5, binary from 30, 60": FULL | TUNED | {"iterations": 60, "binary_after": 30}}
    | {"z + d + e + p + modes, ramp 5, binary from 30, 60": MODES | {"iterations": 60, "binary_after": 30}}
    | {"all photos, z + d + e + p + modes, ramp 5, 20": MODES | {"photos": "all"}}
    | _table_3("", {})
    | _table_3(", literal 1e-3", LITERAL)
)


@dataclass(frozen=True)
class Row:
    """One setting over all folds: counts per photo, people, yaw in degrees, and one value of each cost per photo."""

    start: PartOverlap
    overlap: PartOverlap
    unmasked: PartOverlap
    fine: PartOverlap
    people: NDArray[np.str_]
    yaw: NDArray[np.float64]
    costs: Mapping[str, NDArray[np.float64]]


COSTS = {
    "latent_rms": "z rms",
    "latent_beyond_3": "|z|>3",
    "moved_offset_rms": "d mm",
    "parts_rms": "mm rms",
    "parts_p99": "p99",
    "flipped_fraction": "flipped",
    "seconds": "s",
}


def fold_config(folds: int, fold: int, out: Path, cell: Mapping[str, object]) -> RunConfig:
    """The ICT run of one fold with one setting of its fits."""
    settings = {"modes.n_modes": N_MODES, "modes.global_modes": True} if cell.get("modes") else {}
    settings |= {"dataset.n_folds": folds, "dataset.fold": fold, "run_dir": str(out / f"fold-{fold}")}
    settings |= {f"fit.{key}": value for key, value in cell.items()}
    return load_config(CONFIG, [f"{key}={value}" for key, value in settings.items()])


def measured_fold(folds: int, fold: int, out: Path, names: Sequence[str]) -> dict[str, Row]:
    """Every setting on one fold, its stages made where they are not there yet."""
    torch.set_num_threads(1)
    rows = {}
    for name in names:
        config = fold_config(folds, fold, out, CELLS[name])
        outcomes = Pipeline(STAGES, config, only=["fit_photos"]).execute(PlainRunner())
        rows[name] = fold_row(config, {outcome.name: outcome.folder.resolve() for outcome in outcomes})
        print(f"fold {fold}: {name}: {outcomes[-1].status}, {outcomes[-1].seconds:.0f} s", flush=True)
    return rows


def fold_row(config: RunConfig, folders: Mapping[str, Path]) -> Row:
    """What one fold says of one setting."""
    fits = read_table(sorted(folders["fit_photos"].glob("fits-*.parquet")), "fits")
    faces = load_faces(folders["build_dataset"])
    faces = faces.where(np.isin(faces.face_id, fits["face_id"]))
    if faces.face_id != fits["face_id"]:
        raise RuntimeError("fits and faces are in another order")
    masks, ignore = faces.masks()
    people = _people(config.dataset.images, config.dataset.manifest)
    manifest = parse_manifest(folders["fit_photos"])
    seconds = np.full(len(faces), manifest.seconds / len(faces))
    return Row(
        start=part_iou(fits["labels_before"], masks),
        overlap=part_iou(fits["labels_after"], masks),
        unmasked=part_iou(fits["labels_after"], masks, ignore),
        fine=_fine_overlap(config, folders, fits),
        people=np.array([people[face] for face in faces.face_id]),
        yaw=np.degrees(faces.angles[:, 1]),
        costs={key: np.asarray(fits[key], float) for key in COSTS if key != "seconds"} | {"seconds": seconds},
    )


@torch.no_grad()
def _fine_overlap(config: RunConfig, folders: Mapping[str, Path], fits: Mapping[str, NDArray]) -> PartOverlap:
    """The fitted shapes at 448 pixels against masks resampled at 448 pixels."""
    model = load_part_face_model(folders)
    neutral = read_table(sorted(folders["fit_photos"].glob("shapes-*.parquet")), "shapes")["vertices"]
    targets = _fine_masks(config.dataset.images, config.dataset.masks, folders["build_dataset"])
    drawn = []
    for i in range(len(neutral)):
        pose = Pose(*(torch.from_numpy(np.array(fits[key][i : i + 1])) for key in POSE))
        posed = model.posed(torch.from_numpy(np.array(neutral[i : i + 1])), pose)
        drawn.append(render_labels(posed, model.labels, Camera.deep3d(FINE), model.faces).numpy())
    wanted = np.stack([targets[face] for face in fits["face_id"]])
    return part_iou(np.concatenate(drawn), wanted, min_area=4 * MIN_AREA)


@cache
def _fine_masks(images: Path, masks: Path, dataset: Path) -> dict[str, NDArray[np.uint8]]:
    """Masks (448, 448) of a dataset's validation faces by name."""
    table = read_table(sorted(dataset.glob("faces-*.parquet")), "faces")
    wanted = set(validation_faces(load_faces(dataset), "all").face_id)
    paths = list_photos(images)
    photos = dict(zip(distinct_names(paths), paths, strict=True))
    found = {}
    for face, scale, offset in zip(table["face_id"], table["crop_scale"], table["crop_offset"], strict=True):
        if face in wanted:
            (photo,) = read_photos(photos[face], masks)
            transform = CropTransform(tuple(scale), tuple(offset), *photo.image.shape[:2])
            found[face] = crop_labels(photo.mask, transform, FINE)
    return found


@cache
def _people(images: Path, manifest: Path) -> dict[str, str]:
    """The person's group of every photo by name."""
    paths = list_photos(images)
    with manifest.open(newline="") as lines:
        groups = {Path(row["file"]).name: row["person_group"] or row["file"] for row in csv.DictReader(lines)}
    return {name: groups[path.name] for name, path in zip(distinct_names(paths), paths, strict=True)}


def together(rows: Sequence[Row]) -> Row:
    """The folds of one setting as one row."""
    return Row(
        *(
            PartOverlap.concatenate([getattr(row, key) for row in rows])
            for key in ("start", "overlap", "unmasked", "fine")
        ),
        *(np.concatenate([getattr(row, key) for row in rows]) for key in ("people", "yaw")),
        {key: np.concatenate([row.costs[key] for row in rows]) for key in COSTS},
    )


def head(name: str, overlap: PartOverlap, people: NDArray[np.str_]) -> str:
    """A row of the table as far as it is about intersection over union at 224 pixels."""
    summary = overlap.summary()
    low, high = interval(overlap.mean_of_parts(), people)
    parts = " ".join(f"{summary[part]:.3f}" for part in PARTS)
    mean, weighted = summary["mean_of_parts"], summary["frequency_weighted"]
    return f"{name:54}{mean:6.3f} [{low:.3f} {high:.3f}]{weighted:7.3f}  {parts}"


def line(name: str, row: Row) -> str:
    """A row of the table."""
    fine, unmasked = row.fine.summary(), row.unmasked.summary()
    costs = " ".join(f"{np.nanmean(values):7.3f}" for values in row.costs.values())
    sharp = f"{fine['mean_of_parts']:8.3f}{fine['frequency_weighted']:7.3f}{unmasked['mean_of_parts']:8.3f}"
    return f"{head(name, row.overlap, row.people)}{sharp}  {costs}"


def by_yaw(name: str, row: Row) -> str:
    """Mean of five parts in bins of yaw."""
    edges = (0, 10, 20, 30, 90)
    cells = []
    for low, high in itertools.pairwise(edges):
        inside = (np.abs(row.yaw) >= low) & (np.abs(row.yaw) < high)
        mean = np.nanmean(row.overlap.mean_of_parts()[inside]) if inside.any() else np.nan
        cells.append(f"{low}-{high} deg: {mean:.3f} (n={inside.sum()})")
    return f"{name:54}" + "   ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/folds"))
    parser.add_argument("--only", nargs="+", default=[""], help="settings whose name begins with one of these")
    parser.add_argument("--fold", type=int, nargs="+", help="some of the folds only")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    names = [name for name in CELLS if any(name.startswith(start) for start in options.only)]
    jobs = [(options.folds, fold, options.out, names) for fold in options.fold or range(options.folds)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        rows = pool.starmap(measured_fold, jobs, chunksize=1)
    table = {name: together([fold[name] for fold in rows]) for name in names}
    print(f"\n{'':54}mean of five [95 %]    freq.  brow  eyes  nose  ulip  llip     448  freq. no ignore  ", end="")
    print(" ".join(f"{title:>7}" for title in COSTS.values()))
    if started := next((row for name, row in table.items() if name.startswith("global")), None):
        print(head("landmark fit (global 3DMM), where the global rows start", started.start, started.people))
    for name, row in table.items():
        print(line(name, row))
    print("\nmean of five by yaw")
    for name, row in table.items():
        print(by_yaw(name, row))


if __name__ == "__main__":
    main()
