"""How long from a slider's event to the new vertices? Against 25 ms, and against rebuilding the whole face.

python benchmarks/edit_latency.py [--models synthetic-35k synthetic] [--runs RUN ...] [--events 200] [--threads 2]

Per region: p50 and p95 of `FaceEditor.set(control, sigma)` and `vertices()`, random controls and settings, seams solved
three times; "moved" is `move_part`. A whole rebuild decodes all six regions, places and blends; what the cache
saves is the difference. "blend alone" is the part of every event that no cache can save; "libigl" blends the same area
by its ARAP with as many rotation fits, prepared for this rest ("libigl anew": for every event, as an edit of the rest
would need). Built-in models get part models at their PCA start and the blending radius of the paper, 30 mm; runs are
read as they are. "same bits": outside the edited part and the transition area no vertex differs from before, and a
rebuild from nothing gives the same face.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from arap_contenders import LibIgl, Unable
from arap_meshes import Deformation

from dataset_builder import load_face_model
from editing import PARTS, REGIONS, ControllerMap, FaceEditor, FaceState
from flows.face_editor import editor_of
from flows.run_model import PartFaceModel, load_controllers, load_part_face_model, measuring_points
from flows.stages.controllers import measure_decoded
from flows.store import find_output
from segmodel import LinearShapes, PartLayout, VaeSettings, train_offset_regressor, train_segment_vaes

GOAL_MS = 25.0
STAGES = ("build_dataset", "train_segments", "learn_modes", "fit_controllers")


@dataclass(frozen=True)
class Subject:
    """A face model with its controllers, and a face to edit."""

    name: str
    model: PartFaceModel
    controllers: ControllerMap
    face: FaceState

    def editor(self) -> FaceEditor:
        """A new editor, which remembers nothing."""
        return editor_of(self.model, self.face, self.controllers)


def built_in(name: str, n_shapes: int, n_measured: int) -> Subject:
    """A built-in face model with its true labels, part models at their PCA start."""
    face_model = load_face_model(name)
    layout = PartLayout.from_labels(face_model.labels, face_model.faces, face_model.mean)
    shapes = LinearShapes(face_model.mean, face_model.id_basis, face_model.sample(n_shapes, seed=0))
    segments, _ = train_segment_vaes(layout, shapes, VaeSettings(epochs=0))
    train_offset_regressor(segments, shapes)
    model = PartFaceModel(face_model, segments)
    latents = {region: z[:n_measured].numpy() for region, z in segments.latents_of(shapes).items()}
    controllers = ControllerMap.fit(measure_decoded(model, measuring_points(model), latents), latents, ridge=0.03)
    return Subject(name, model, controllers, FaceState.create({region: z[0] for region, z in latents.items()}))


def of_run(folder: Path) -> Subject:
    """The mean face of a finished run."""
    inputs = {stage: find_output(folder, stage) for stage in STAGES}
    model = load_part_face_model(inputs)
    controllers, _ = load_controllers(inputs, model)
    return Subject(f"run {folder.name}", model, controllers, FaceState.create(controllers.base_latents()))


def milliseconds(events: list[Callable[[], object]]) -> np.ndarray:
    """Duration of every event after the first two, which warm up."""
    durations = []
    for event in events:
        start = time.perf_counter()
        event()
        durations.append(1e3 * (time.perf_counter() - start))
    return np.array(durations[2:])


def settings_of(editor: FaceEditor, region: str, n: int, rng: np.random.Generator) -> list[Callable[[], object]]:
    """n slider events of one region, each ending with the face's vertices."""
    names = [name for name in editor.names if name.startswith(f"{region}.")]

    def event(name: str, sigma: float) -> Callable[[], object]:
        return lambda: (editor.set(name, sigma), editor.vertices())

    return [event(rng.choice(names), rng.uniform(-3, 3)) for _ in range(n + 2)]


def moves_of(editor: FaceEditor, n: int, rng: np.random.Generator) -> list[Callable[[], object]]:
    """n moves of random parts."""

    def event(part: str, dy: float, dz: float) -> Callable[[], object]:
        return lambda: (editor.move_part(part, dy, dz), editor.vertices())

    return [event(rng.choice(PARTS), *rng.uniform(-5, 5, 2)) for _ in range(n + 2)]


def keeps_the_bits(subject: Subject, region: str, rng: np.random.Generator) -> bool:
    """Whether edits leave what they must not touch, and equal a rebuild from nothing, bit for bit."""
    editor, layout, area = subject.editor(), subject.model.segments.layout, subject.model.blender.area
    before = editor.vertices()
    still = np.ones(len(before), bool)
    still[layout.vertices(region)] = still[area.vertex_ids[area.free]] = False
    still &= region != "rest"
    for event in settings_of(editor, region, 3, rng):
        event()
    rebuilt = subject.editor().vertices(editor.state)
    return bool((editor.vertices() == rebuilt).all() and (editor.vertices() == before)[still].all())


def measure(subject: Subject, n_events: int) -> None:
    """Print the table of one subject."""
    model, rng = subject.model, np.random.default_rng(0)
    area = model.blender.area
    print(
        f"\n{subject.name}: {model.segments.layout.n_vertices} vertices, transition {area.radius_mm:g} mm: "
        f"{len(area.free)} free, {len(area.handles)} handles, {model.blender.n_solves} solves"
    )
    print(f"{'event':14s} {'p50 ms':>8s} {'p95 ms':>8s} {'max ms':>8s}  {f'p95 < {GOAL_MS:g} ms':12s} same bits")

    def row(name: str, durations: np.ndarray, bits: str = "") -> None:
        p50, p95 = np.quantile(durations, (0.5, 0.95))
        verdict = "yes" if p95 < GOAL_MS else "NO"
        print(f"{name:14s} {p50:8.2f} {p95:8.2f} {durations.max():8.2f}  {verdict:12s} {bits}", flush=True)

    editor = subject.editor()
    for region in REGIONS:
        durations = milliseconds(settings_of(editor, region, n_events, rng))
        row(region, durations, "yes" if keeps_the_bits(subject, region, rng) else "NO")
    row("moved", milliseconds(moves_of(editor, n_events, rng)))
    row("whole rebuild", milliseconds([lambda: subject.editor().vertices()] * (n_events // 4 + 2)))
    with torch.inference_mode():
        latents = {region: torch.from_numpy(z.astype(np.float32))[None] for region, z in subject.face.latents.items()}
        composed, rest = model.compose(latents, model.segments.offsets(latents["rest"]))
        row("blend alone", milliseconds([lambda: model.blender(composed, rest)] * (n_events // 4 + 2)))
    pose, targets = (points[0].numpy()[area.vertex_ids].astype(float) for points in (rest, composed))
    case = Deformation(pose, area.faces, area.handles, targets[area.handles])
    try:
        peer = LibIgl(case)
    except Unable as reason:
        print(f"libigl: {reason}")
        return
    row("libigl", milliseconds([peer.forward] * (n_events // 4 + 2)))
    row("libigl anew", milliseconds([lambda: LibIgl(case).forward()] * (n_events // 20 + 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["synthetic-35k", "synthetic"])
    parser.add_argument("--runs", nargs="*", type=Path, default=[], help="finished run folders, such as runs/ict")
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", type=int, default=1000, help="random faces behind a part model")
    parser.add_argument("--quick", action="store_true", help="20 events on the small face")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models, events = (["synthetic-3k"], 20) if options.quick else (options.models, options.events)
    print(f"{torch.get_num_threads()} threads, {events} events per row")
    for name in models:
        measure(built_in(name, options.shapes, min(300, options.shapes)), events)
    for folder in options.runs:
        measure(of_run(folder), events)


if __name__ == "__main__":
    main()
