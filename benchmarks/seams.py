"""How visible are the seams between the parts and the skin, before and after blending?

    python benchmarks/seams.py --run runs/demo --run runs/ict [--faces 200] [--quick] [--picture docs/img/seams.jpg]

Random faces of each run's face model are encoded and put together from their parts; edited faces have, besides, every
control of every part at random within 3 standard deviations. Stretch is of the edges that join a part with the rest,
against the rest decoder's own skin; creases are degrees of dihedral angle beyond those of the true face, that is the
one that was encoded, at every edge of the joining triangles: "two faces" is how much two true faces differ there.
Flipped triangles are per face. What blending moved in parts and outside the transition area has to be exactly 0.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from dataset_builder import vertex_normals
from editing import ControllerMap
from fitting import Camera, Renderer, clip_positions
from flows.contracts import PARTS
from flows.pictures import Rgb, jpeg_bytes, montage
from flows.run_model import Latents, PartFaceModel, load_controllers, load_part_face_model
from flows.store import find_output
from segmodel import SeamMeasures, SeamReport, seam_report

BATCH = 20
SIGMA = 3.0
COLUMNS = ("mean", "p95", "max")
STAGES = ("build_dataset", "train_segments", "fit_controllers")
TILE, FIELD_MM = 230, 46.0
RAKING, FILL = ((-0.75, 0.55, 0.45), 0.85), ((0.8, -0.1, 0.6), 0.32)
LANDMARKS = {"nose wing": 35, "mouth corner": 54, "brow": 24, "eye": 45}


def load_run(run: Path) -> tuple[PartFaceModel, ControllerMap]:
    """Models and controls of a finished run folder."""
    inputs = {stage: find_output(run, stage) for stage in STAGES}
    model = load_part_face_model(inputs)
    return model, load_controllers(inputs, model)[0]


def random_edit(latents: Latents, controllers: ControllerMap, seed: int) -> Latents:
    """Latents with every control of every part at random, uniform within 3 standard deviations."""
    random = np.random.default_rng(seed)
    count = len(latents["rest"])
    controls = {part: random.uniform(-SIGMA, SIGMA, (count, len(controllers.rows(part)))) for part in PARTS}
    edited = controllers.apply({part: z.numpy() for part, z in latents.items()}, controls)
    return {region: torch.from_numpy(z) for region, z in edited.items()}


@torch.no_grad()
def measured(model: PartFaceModel, truth: Tensor, latents: Latents) -> SeamReport:
    """Seams of the faces of some latents, whose natural creases are those of ``truth``."""
    reports = []
    for first in range(0, len(truth), BATCH):
        rows = slice(first, first + BATCH)
        composed, rest = model.segments.compose({region: z[rows] for region, z in latents.items()})
        blended = model.blender(composed, rest)
        layout, area = model.segments.layout, model.blender.area
        reports.append(seam_report(layout, area, composed, blended, rest, truth[rows]))
    return together(reports)


def together(reports: Sequence[SeamReport]) -> SeamReport:
    """Reports of batches as one."""

    def joined(measures: Sequence[SeamMeasures]) -> SeamMeasures:
        return SeamMeasures(*(torch.cat(values) for values in zip(*(vars(m).values() for m in measures), strict=True)))

    return SeamReport(
        joined([report.before for report in reports]),
        joined([report.after for report in reports]),
        torch.cat([report.moved_in_parts_mm for report in reports]),
        torch.cat([report.moved_outside_mm for report in reports]),
    )


def two_faces(model: PartFaceModel, truth: Tensor) -> np.ndarray:
    """Mean, p95 and maximum of the crease between one true face and the next, degrees."""
    layout, area = model.segments.layout, model.blender.area
    few = truth[: 2 * BATCH]
    crease = seam_report(layout, area, few, few, few, few.roll(1, 0)).before.crease_deg.numpy()
    return np.array([crease.mean(), np.percentile(crease, 95), crease.max()])


def print_report(title: str, report: SeamReport) -> None:
    """Two lines: before and after."""
    summary = report.summary()
    for when in ("before", "after"):
        cells = []
        for name, scale, digits in (("stretch", 100, 1), ("stretch_mm", 1, 2), ("crease_deg", 1, 1)):
            cells += [f"{scale * summary[f'{name}_{column}_{when}']:8.{digits}f}" for column in COLUMNS]
        print(f"{title:16} {when:7}" + "".join(cells) + f"{summary[f'flipped_{when}']:9.2f}", flush=True)
    print(f"{'':16} moved in parts {summary['moved_in_parts_mm']:g} mm, outside {summary['moved_outside_mm']:g} mm")


class CloseUp:
    """Draws a face from near, lit from the side, so that the smallest crease throws a shadow."""

    def __init__(self, faces: np.ndarray, size: int = TILE) -> None:
        self.faces, self.size = faces, size
        self.camera = Camera.deep3d(4 * size)
        self._renderer = Renderer(torch.from_numpy(faces), (4 * size, 4 * size), backend="cpu", antialias=False)

    def draw(self, vertices: np.ndarray, centre: np.ndarray, yaw: float) -> Rgb:
        """Picture (size, size, 3) of ``vertices (V, 3)`` mm, 46 mm wide about ``centre``, turned by yaw degrees."""
        c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        turned = (vertices - centre) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
        zoom = 224 / 1015 * self.camera.distance / FIELD_MM
        near = (
            zoom * turned * np.array([1.0, 1.0, 0.05])
        )  # flattened after lighting: depth only decides what hides what
        normals = vertex_normals(turned, self.faces).astype(np.float32)
        positions = clip_positions(torch.from_numpy(near.astype(np.float32))[None], self.camera)
        image, raster = self._renderer(positions, torch.from_numpy(normals))
        normal = image[0].numpy()
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True).clip(1e-6)
        light = 0.1 + sum(k * (normal @ (np.array(d) / np.linalg.norm(d))).clip(0) for d, k in (RAKING, FILL))
        grey = np.where(raster[0, ..., 3].numpy() > 0, light.clip(0, 1), 1.0)
        small = grey.reshape(self.size, 4, self.size, 4).mean((1, 3))
        return (small[..., None] * np.array([255, 244, 235])).round().astype(np.uint8)


@torch.no_grad()
def close_ups(model: PartFaceModel, controllers: ControllerMap, seed: int) -> list[list[Rgb]]:
    """Two rows of close-ups, before and after, of one edited face: the median of 20 by its creases before."""
    truth = torch.from_numpy(model.face_model.shape(model.face_model.sample(BATCH, seed)))
    composed, rest = model.segments.compose(random_edit(model.segments.encode(truth), controllers, seed))
    blended = model.blender(composed, rest)
    report = seam_report(model.segments.layout, model.blender.area, composed, blended, rest, truth)
    chosen = int(report.before.crease_deg.mean(1).median(0).indices)
    camera = CloseUp(model.face_model.faces)
    spots = model.face_model.landmarks68[list(LANDMARKS.values())]
    rows = []
    for shape in (composed[chosen].numpy(), blended[chosen].numpy()):
        rows.append([camera.draw(shape, blended[chosen].numpy()[spot], -20.0) for spot in spots])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", required=True, help="finished run folder; may be repeated")
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="20 faces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="write close-ups of one edited face of each run")
    options = parser.parse_args()
    count = BATCH if options.quick else options.faces
    rows, titles = [], []
    print(f"{count} faces, {torch.get_num_threads()} threads")
    for run in options.run:
        model, controllers = load_run(run)
        area = model.blender.area
        truth = torch.from_numpy(model.face_model.shape(model.face_model.sample(count, options.seed)))
        with torch.no_grad():
            latents = model.segments.encode(truth)
        print(
            f"\n{run.name}: {model.face_model.name}, {truth.shape[1]} vertices, {len(area.free)} free within "
            f"{area.radius_mm:g} mm, {model.blender.n_solves} solves"
        )
        print(f"{'':24}{'stretch %':>24}{'stretch mm':>24}{'crease degrees':>24}{'flipped':>9}")
        print(f"{'':24}" + 3 * "".join(f"{column:>8}" for column in COLUMNS))
        print_report("random faces", measured(model, truth, latents))
        print_report("random edits", measured(model, truth, random_edit(latents, controllers, options.seed)))
        print(f"{'two faces':72}" + "".join(f"{value:8.1f}" for value in two_faces(model, truth)))
        if options.picture:
            rows += close_ups(model, controllers, options.seed)
            titles += [f"{model.face_model.name.split('-')[0]}, {when}" for when in ("composed", "blended")]
    if options.picture:
        options.picture.write_bytes(jpeg_bytes(montage(rows, titles=tuple(LANDMARKS), row_titles=titles)))
        print(options.picture)


if __name__ == "__main__":
    main()
