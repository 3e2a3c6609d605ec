"""Do the 30 controls do what they say, on decoded faces, and leave everything else alone?

    python benchmarks/response.py --run runs/demo --run runs/ict [--model synthetic-35k] [--random] [--quick]

For each finished run (--run), and for part models trained here on a face model whose labels are known (--model), the
controller maps are fitted anew on decoded random faces: plain least squares (NEO-3DF), with a ridge, and orthogonalised
with three limits on how far the latents may move. --random adds, for each, part VAEs trained from random weights.

"within 10 %": share of the 60 own responses (30 controls at +3 and -3 sigma on the mean face, per sigma asked) between
.90 and 1.10. "cross": mean absolute response of the other measurements of the group. "length": Mahalanobis length of
the movement per sigma, mean and largest; 1 is what a linear measurement takes. "held-out": the same share on faces that
the map has not seen. "lopsided": the largest share of a movement that is not symmetric. Locality: the largest
displacement in mm outside a part and the transition area, after blending.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_builder import FaceModel, load_face_model
from editing import ControllerMap, ResponseMatrix, latent_lengths, orthogonalised, response
from flows.contracts import PARTS, REGIONS
from flows.run_model import PartFaceModel, load_part_face_model, measuring_points
from flows.stages.controllers import faces_of, latents_of, measure_decoded, symmetric_faces_of
from flows.store import find_output
from segmodel import (
    LinearShapes,
    OffsetSettings,
    PartLayout,
    SegmentModel,
    VaeSettings,
    train_offset_regressor,
    train_segment_vaes,
)

STEP, TOLERANCE = 3.0, 0.1
LATENT_SEED, HELD_OUT_SEED = 1, 9001
PCA_EPOCHS, RANDOM_EPOCHS = 3, 12
DEFAULT = "orthogonal, length 2"
Rows = dict[str, NDArray]


@dataclass(frozen=True)
class Subject:
    """A part model, latents of random faces, and how its decoded faces are measured."""

    name: str
    model: PartFaceModel
    latents: Rows
    symmetric: Rows
    decode_and_measure: Callable[[Rows], Rows]

    @classmethod
    def create(cls, name: str, model: PartFaceModel, n: int) -> "Subject":
        points = measuring_points(model)
        identity = model.face_model.sample(n, LATENT_SEED)
        latents, symmetric = (
            latents_of(model, of(model.face_model, identity)) for of in (faces_of, symmetric_faces_of)
        )
        return cls(name, model, latents, symmetric, lambda z: measure_decoded(model, points, z))

    def held_out(self, n: int) -> Rows:
        """Latents of n faces that no map has seen."""
        face_model = self.model.face_model
        return latents_of(self.model, faces_of(face_model, face_model.sample(n, HELD_OUT_SEED)))


@dataclass(frozen=True)
class Scores:
    """Response of one map on one face at +3 and -3: own (2, 30), cross per region, the worst neighbour."""

    up: ResponseMatrix
    down: ResponseMatrix

    @property
    def own(self) -> NDArray[np.float64]:
        return np.stack([np.diag(self.up.values), np.diag(self.down.values)])

    @property
    def within(self) -> float:
        return float((np.abs(self.own - 1) <= TOLERANCE).mean())

    @property
    def worst(self) -> tuple[str, float]:
        sign, j = np.unravel_index(np.abs(self.own - 1).argmax(), self.own.shape)
        return f"{self.up.names[j]} {'+-'[sign]}3", float(self.own[sign, j])

    def cross(self, region: str) -> float:
        return (self.up.cross_response(region) + self.down.cross_response(region)) / 2

    def neighbour(self, region: str | None = None) -> tuple[str, str, float]:
        regions = (region,) if region else REGIONS
        found = [matrix.worst_leak(r) for r in regions for matrix in (self.up, self.down)]
        return max(found, key=lambda leak: abs(leak[2]))


def trained(
    face_model: FaceModel, labels: NDArray[np.int64], init: str, n_shapes: int, radius_mm: float
) -> SegmentModel:
    """Part VAEs and offset regressor trained on random faces."""
    layout = PartLayout.from_labels(labels, face_model.faces, face_model.mean)
    shapes = LinearShapes(face_model.mean, face_model.id_basis, face_model.sample(n_shapes, 0))
    epochs = PCA_EPOCHS if init == "pca" else RANDOM_EPOCHS
    segments, _ = train_segment_vaes(layout, shapes, VaeSettings(init=init, epochs=epochs))
    train_offset_regressor(segments, shapes, OffsetSettings())
    segments.radius_mm = radius_mm
    return segments


def subjects(options: argparse.Namespace) -> Iterator[Subject]:
    """The runs' part models and those trained here, one at a time."""
    n_shapes, n = (2000, 500) if options.quick else (10000, 2000)
    for run in options.run:
        inputs = {stage: find_output(run, stage) for stage in ("build_dataset", "train_segments")}
        model = load_part_face_model(inputs)
        yield Subject.create(f"run {run.name}, {model.face_model.name}", model, n)
        if options.random:
            again = trained(
                model.face_model, model.segments.layout.labels, "random", n_shapes, model.segments.radius_mm
            )
            yield Subject.create(f"{model.face_model.name}, random weights", PartFaceModel(model.face_model, again), n)
    for name in options.model:
        face_model = load_face_model(name)
        if face_model.labels is None:
            raise SystemExit(f"{name} has no labels of its own: give a finished run of it (--run)")
        for init in ("pca", "random") if options.random else ("pca",):
            segments = trained(face_model, face_model.labels, init, n_shapes, 30.0)
            title = f"{name}, {'PCA start' if init == 'pca' else 'random weights'}"
            yield Subject.create(title, PartFaceModel(face_model, segments), n)


def maps(subject: Subject) -> Iterator[tuple[str, ControllerMap, float]]:
    """Every way to make the map, and the seconds it took."""
    measured = subject.decode_and_measure(subject.latents)
    for ridge in (0.0, 0.02):
        begin = time.perf_counter()
        fitted = ControllerMap.fit(measured, subject.latents, ridge=ridge)
        yield f"least squares, ridge {ridge:g}", fitted, time.perf_counter() - begin
    start = ControllerMap.fit(measured, subject.latents)
    for longest in (1.0, 2.0, 3.0):
        begin = time.perf_counter()
        found = orthogonalised(
            start, subject.decode_and_measure, subject.latents, symmetric=subject.symmetric, longest=longest
        )
        yield f"orthogonal, length {longest:g}", found, time.perf_counter() - begin


def scores(subject: Subject, controllers: ControllerMap, base: Rows) -> Scores:
    up, down = (response(controllers, subject.decode_and_measure, base, step) for step in (STEP, -STEP))
    return Scores(up, down)


def on_held_out(subject: Subject, controllers: ControllerMap, n_faces: int) -> list[Scores]:
    faces = subject.held_out(n_faces)
    return [scores(subject, controllers, {r: z[i] for r, z in faces.items()}) for i in range(n_faces)]


@torch.no_grad()
def outside(subject: Subject, controllers: ControllerMap, n_faces: int) -> tuple[float, float]:
    """Largest displacement, mm, by any control of the five parts at +-3 on the mean and on held-out faces.

    Outside the part and the transition area; and inside them, to show that something moved.
    """
    segments = subject.model.segments
    area = segments.layout.transition(segments.radius_mm)
    held_out = subject.held_out(n_faces)
    faces = {r: np.concatenate([z[None], held_out[r]]) for r, z in controllers.base_latents().items()}
    still, moving = 0.0, 0.0
    for i in range(1 + n_faces):
        face = {r: z[i : i + 1] for r, z in faces.items()}  # one face per call: a batch rounds its rows differently
        before = segments.decode(_tensors(face))
        for part in PARTS:
            inside = np.zeros(segments.layout.n_vertices, dtype=bool)
            inside[segments.layout.vertices(part)] = inside[area.vertex_ids[area.free]] = True
            for control in STEP * np.concatenate([np.eye(n := len(controllers.rows(part))), -np.eye(n)]):
                after = segments.decode(_tensors(controllers.apply(face, {part: control})))
                moved = (after - before)[0].norm(dim=1).numpy()
                still, moving = max(still, moved[~inside].max()), max(moving, moved[inside].max())
    return still, moving


@torch.no_grad()
def lopsided(subject: Subject, controllers: ControllerMap) -> float:
    """Largest share of a control's movement at +3 on the mean face that its mirror image does not make; NaN unknown."""
    mirror, segments = subject.model.face_model.mirror, subject.model.segments
    if mirror is None:
        return float("nan")
    base, shares = {r: z[None] for r, z in controllers.base_latents().items()}, []
    before = segments.compose(_tensors(base))[0]
    for region in REGIONS:
        for control in STEP * np.eye(len(controllers.rows(region))):
            after = segments.compose(_tensors(controllers.apply(base, {region: control})))[0]
            moved = (after - before)[0].numpy()
            odd = (moved - moved[mirror] * (-1, 1, 1)) / 2
            shares.append(np.linalg.norm(odd) / np.linalg.norm(moved))
    return float(max(shares))


def _tensors(latents: Rows) -> dict[str, torch.Tensor]:
    return {region: torch.from_numpy(np.asarray(z, np.float32)) for region, z in latents.items()}


def print_maps(subject: Subject, n_held_out: int) -> ControllerMap:
    """One line per map; returns the default one."""
    print(
        f"{'map':24s}{'within':>8s}{'worst own':>39s}{'cross':>8s}{'length':>14s}"
        f"{'held-out':>10s}{'cross':>7s}{'lopsided':>10s}{'s':>7s}"
    )
    chosen = None
    for name, controllers, seconds in maps(subject):
        found = scores(subject, controllers, controllers.base_latents())
        others = on_held_out(subject, controllers, n_held_out)
        lengths = np.concatenate(list(latent_lengths(controllers, subject.latents).values()))
        who, how = found.worst
        print(
            f"{name:24s}{100 * found.within:7.0f}%{f'{who} {how:.2f}':>39s}"
            f"{np.mean([found.cross(r) for r in REGIONS]):8.3f}{f'{lengths.mean():.2f} ({lengths.max():.2f})':>14s}"
            f"{100 * np.mean([o.within for o in others]):9.0f}%"
            f"{np.mean([o.cross(r) for o in others for r in REGIONS]):7.3f}"
            f"{100 * lopsided(subject, controllers):9.0f}%{seconds:7.1f}"
        )
        chosen = controllers if name == DEFAULT else chosen
    assert chosen is not None
    return chosen


def print_regions(subject: Subject, controllers: ControllerMap) -> None:
    """One line per region of the default map, and the collinear pairs."""
    found = scores(subject, controllers, controllers.base_latents())
    print(f"\n{DEFAULT}:\n{'region':12s}{'R2':>6s}{'own +3':>14s}{'own -3':>14s}{'cross':>7s}   worst neighbour")
    for region in REGIONS:
        own = [np.diag(matrix.block(region)) for matrix in (found.up, found.down)]
        asked, measured, leak = found.neighbour(region)
        cells = "".join(f"{f'{o.min():.2f} .. {o.max():.2f}':>14s}" for o in own)
        r2, cross = controllers.regions[region].r2, found.cross(region)
        print(f"{region:12s}{r2:6.2f}{cells}{cross:7.3f}   {asked} moves {measured.partition('.')[2]} by {leak:+.2f}")
    for region, fitted in controllers.regions.items():
        for a, b, correlation in fitted.collinear:
            print(f"collinear in {region}: {a} and {b}, correlation {correlation:+.3f}")


def print_controls(subject: Subject, controllers: ControllerMap) -> None:
    """One line per control of a map."""
    found, lengths = (
        scores(subject, controllers, controllers.base_latents()),
        latent_lengths(controllers, subject.latents),
    )
    print(
        f"\n{'control':36s}{'mean mm':>9s}{'sigma mm':>10s}{'own +3':>8s}{'own -3':>8s}{'length':>8s}"
        f"{'worst neighbour':>34s}"
    )
    for j, key in enumerate(found.up.names):
        region, _, name = key.partition(".")
        i, fitted = controllers.position(region, name), controllers.region(region)
        row = np.where(np.arange(len(found.up.names)) == j, 0.0, found.up.values[j])
        inside = np.where([n.startswith(f"{region}.") for n in found.up.names], np.abs(row), -1)
        k = int(inside.argmax())
        neighbour = found.up.names[k].partition(".")[2]
        print(
            f"{key:36s}{fitted.mean_measurement[i]:9.2f}{fitted.sigma[i]:10.2f}{found.own[0, j]:8.2f}"
            f"{found.own[1, j]:8.2f}{lengths[region][i]:8.2f}{f'{neighbour} {row[k]:+.2f}':>34s}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", default=[], help="folder of a finished run; repeatable")
    parser.add_argument("--model", action="append", default=[], help="face model with known labels; repeatable")
    parser.add_argument("--random", action="store_true", help="part VAEs from random weights too")
    parser.add_argument("--faces", type=int, default=20, help="held-out faces")
    parser.add_argument("--details", action="store_true", help="one line per control")
    parser.add_argument("--quick", action="store_true", help="fewer training shapes and faces")
    options = parser.parse_args()
    if not (options.run or options.model):
        options.model = ["synthetic"]
    print(f"{torch.get_num_threads()} threads; responses per sigma asked, at +-{STEP:g} sigma")
    for subject in subjects(options):
        n_faces = min(options.faces, 3) if options.quick else options.faces
        print(f"\n== {subject.name}: {subject.model.face_model.n_vertices} vertices, {n_faces} held-out faces")
        controllers = print_maps(subject, n_faces)
        print_regions(subject, controllers)
        if options.details:
            print_controls(subject, controllers)
        still, moving = outside(subject, controllers, n_faces)
        print(f"locality: {still:g} mm outside part and transition area, {moving:.1f} mm inside, {1 + n_faces} faces")


if __name__ == "__main__":
    main()
