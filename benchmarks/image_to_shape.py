"""From a photo to the shape of a face nobody trained on: millimetres and overlap, before and after fine-tuning.

    python benchmarks/image_to_shape.py --run runs/demo --run runs/ict [--faces N]

Reads finished runs. Millimetres are root mean squares over the vertices of a region, between the composed and blended
neutral face and the target, mean over the clean validation faces: "placed" where it is, "form" with the region's own
translation taken out. The target of synthetic photos is the true shape, of real ones the landmark fit, for there is no
truth. "same latents" encodes and decodes the target itself: no network can do better in these latents. Overlap is
intersection over union of the parts, unblended as in NEO-3DF's table 2, at the expression and pose of the landmark fit
(the mean face: at a pose of its own). Brackets are 95 % bootstrap intervals over faces; the last lines are paired.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset_builder import LandmarkEstimator
from fitting import PartOverlap, part_iou, render_labels
from flows.contracts import PARTS, REGIONS
from flows.face_fit import CAMERA
from flows.run_data import RunFaces, load_faces, validation_faces
from flows.run_model import PartFace, PartFaceModel, Pose, load_network, load_part_face_model
from flows.store import find_output, load_run
from flows.tables import read_table
from segmodel import LABEL_IDS

BATCH = 16
DRAWS = 2000
STAGES = ("build_dataset", "train_segments", "learn_modes", "train_regressors", "fine_tune")
BEFORE, AFTER = "network, pre-trained", "network, fine-tuned"


@dataclass(frozen=True)
class Measured:
    """One method on N faces: errors (N, 6) mm of the regions, placed and form, and overlap of the parts."""

    placed: NDArray[np.float64]
    form: NDArray[np.float64]
    overlap: PartOverlap

    @property
    def mean_iou(self) -> NDArray[np.float64]:
        """Mean (N,) over the parts that are there."""
        return self.overlap.mean_of_parts()


def region_errors(vertices: Tensor, target: Tensor, labels: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Root mean square distance (N, 6) mm of (N, V, 3) per region: as placed, and without the region's translation."""
    difference = (vertices - target).double().numpy()
    placed, form = [], []
    for region in REGIONS:
        own = difference[:, labels == LABEL_IDS[region]]
        placed.append(np.sqrt(np.square(own).sum(2).mean(1)))
        form.append(np.sqrt(np.square(own - own.mean(1, keepdims=True)).sum(2).mean(1)))
    return np.stack(placed, 1), np.stack(form, 1)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of ``values`` (N,)."""
    chosen = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


@torch.no_grad()
def measure_run(run: Path, count: int | None) -> tuple[dict[str, Measured], str]:
    """Every method on the clean validation faces of a finished run, and what the target is."""
    inputs = {stage: find_output(run, stage) for stage in STAGES}
    model = load_part_face_model(inputs)
    faces = validation_faces(load_faces(inputs["build_dataset"]))
    faces = faces.where(np.arange(len(faces)) < (count or len(faces)))
    identity, what = _truth(inputs["build_dataset"], faces)
    target = torch.from_numpy(model.face_model.shape(identity))
    mean = torch.from_numpy(model.face_model.mean).expand(len(faces), -1, -1)
    landmark_fit = torch.from_numpy(model.face_model.shape(faces.identity))
    still = LandmarkEstimator(model.face_model).estimate(faces.landmarks, fit_identity=False, fit_expression=False)
    no_expression = torch.zeros_like(faces.pose.expression)
    own_pose = Pose(no_expression, torch.from_numpy(still.angles), torch.from_numpy(still.translation))
    masks = faces.masks()[0]

    def whole(shape: Tensor, pose: Pose) -> Measured:
        return _measured(model, (shape, shape), target, pose, masks)

    def of_parts(face: PartFace) -> Measured:
        return _measured(model, _open_and_blended(model, face), target, faces.pose, masks)

    rows = {"mean face": whole(mean, own_pose), "landmark fit": whole(landmark_fit, faces.pose)}
    crops, points = faces.crops(), faces.five_points
    encoder = load_run(run).config["regressors"]["encoder"]
    for name, fine_tuned in ((BEFORE, False), (AFTER, True)):
        rows[name] = of_parts(load_network(inputs, encoder, fine_tuned=fine_tuned)(crops, points))
    rows["same latents"] = of_parts(model.encode(target))
    return rows, what


def _truth(dataset: Path, faces: RunFaces) -> tuple[NDArray[np.float32], str]:
    """Identity (N, Ni) of the target shapes, and where it is from."""
    table = read_table(sorted(dataset.glob("faces-*.parquet")), "faces")
    if "true_identity" in table:
        return np.asarray(table["true_identity"])[faces.rows], "the true shape"
    return faces.identity, "the landmark fit"


def _open_and_blended(model: PartFaceModel, face: PartFace) -> tuple[Tensor, Tensor]:
    pieces = [face.rows(slice(i, i + BATCH)) for i in range(0, len(face.offsets), BATCH)]
    composed = torch.cat([model.neutral(piece, None) for piece in pieces])
    return composed, torch.cat([model.neutral(piece, model.blender) for piece in pieces])


def _measured(
    model: PartFaceModel, shapes: tuple[Tensor, Tensor], target: Tensor, pose: Pose, masks: NDArray[np.uint8]
) -> Measured:
    composed, blended = shapes
    drawn = []
    for first in range(0, len(composed), BATCH):
        rows = slice(first, first + BATCH)
        posed = model.posed(composed[rows], pose.rows(rows))
        drawn.append(render_labels(posed, model.labels, CAMERA, model.faces).numpy())
    placed, form = region_errors(blended, target, model.segments.layout.labels)
    return Measured(placed, form, part_iou(np.concatenate(drawn), masks))


def print_run(title: str, rows: dict[str, Measured]) -> None:
    """One table of a run: millimetres placed / form per region with the mean of the six, overlap, paired changes."""
    print(f"\n{title}")
    print(f"{'mm: placed / form':24}{'mean of six [95 %]':>21}" + "".join(f"{region:>13}" for region in REGIONS))
    for name, row in rows.items():
        low, high = interval(row.placed.mean(1))
        cells = "".join(f"{p:7.2f} /{f:5.2f}" for p, f in zip(row.placed.mean(0), row.form.mean(0), strict=True))
        print(f"{name:24}{row.placed.mean():7.2f} [{low:4.2f}, {high:4.2f}]{cells}")
    print(f"{'overlap':24}{'mean of five [95 %]':>21}" + "".join(f"{part:>13}" for part in PARTS))
    for name, row in rows.items():
        low, high = interval(row.mean_iou)
        summary = row.overlap.summary()
        cells = "".join(f"{summary[part]:13.3f}" for part in PARTS)
        print(f"{name:24}{row.mean_iou.mean():6.3f} [{low:.3f}, {high:.3f}]{cells}")
    before, after = rows[BEFORE], rows[AFTER]
    for what, change in (
        ("mm, mean of six, placed", after.placed.mean(1) - before.placed.mean(1)),
        ("mm, mean of six, form", after.form.mean(1) - before.form.mean(1)),
        ("overlap, mean of five", after.mean_iou - before.mean_iou),
    ):
        low, high = interval(change)
        print(f"fine-tuning changes {what}: {change.mean():+.3f} [{low:+.3f}, {high:+.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="finished run folder; may be repeated")
    parser.add_argument("--faces", type=int, help="only the first faces")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    for run in options.run:
        rows, target = measure_run(run, options.faces)
        count = len(next(iter(rows.values())).placed)
        print_run(f"{run.name}: {count} validation faces, target: {target}", rows)


if __name__ == "__main__":
    main()
