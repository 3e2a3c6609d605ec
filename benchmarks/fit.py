"""How fast is a fit of part faces to masks, with seam blending inside the loop, and where does the time go?

    python benchmarks/fit.py [--run runs/ict | --face-model synthetic-35k] [--repeats 5]

Without a finished run the part models are trained on the spot on a procedural face. The fit has every variable: part
latents, offsets, expression and pose. Set OMP_NUM_THREADS=1 and OMP_WAIT_POLICY=PASSIVE to measure one thread. Times
are the smallest of the repeats, per face: wall and, in brackets, processor time of all threads, which suffers less
from other work on the machine. With CUDA and nvdiffrast installed the whole fit is measured there too.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from fit_faces import PartFaces, Values, load_parts, sample_faces, train_parts
from torch import Tensor

from fitting import (
    Camera,
    FitResult,
    LabelCosts,
    PartRenderer,
    Renderer,
    clip_positions,
    fit_controls,
    mask_targets,
    render_labels,
)
from fitting.flips import Orientation
from fitting.variables import Unknowns
from segmodel import SeamBlender

CAMERA = Camera.deep3d()
PAPER_SECONDS = 31 * 20


@dataclass(frozen=True)
class Cost:
    """Wall and processor seconds."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __truediv__(self, count: int) -> "Cost":
        return Cost(self.wall / count, self.cpu / count)

    def ms(self) -> str:
        return f"{1e3 * self.wall:8.2f} ({1e3 * self.cpu:.2f})"


def measure(action: Callable[[], object], repeats: int) -> Cost:
    """Smallest cost of one call after a first one."""
    action()
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        action()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return Cost(min(wall), min(cpu))


def backward(make: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """A call that evaluates and differentiates."""

    def run() -> object:
        result = make()
        return torch.autograd.grad(result, inputs, torch.ones_like(result), allow_unused=True)

    return run


def step_parts(faces: PartFaces, masks: Tensor, repeats: int) -> dict[str, Cost]:
    """What one step of a blended fit is made of."""
    count = len(faces.offsets)
    values = {name: variable.initial.clone().requires_grad_() for name, variable in faces.variables().items()}
    blender = faces.segments.blender.with_solves(1)
    with torch.no_grad():
        composed, rest = faces.compose(values)
        neutral = blender(composed, rest)
        posed = faces.pose(neutral, values)
    composed, neutral, posed = (tensor.requires_grad_() for tensor in (composed, neutral, posed))
    shape_inputs = [values["latents"], values["offsets"]]
    pose_inputs = [neutral, *(values[name] for name in ("expression", "angles", "translation") if name in values)]
    targets = mask_targets(masks)
    costs = LabelCosts.from_targets(targets)
    renderer = PartRenderer(faces.faces, faces.labels, CAMERA, backend="cpu")
    plain = Renderer(faces.faces, CAMERA.height, "cpu")
    clip = clip_positions(posed.detach(), CAMERA)
    orientation = Orientation(posed, faces.faces)
    unknowns = Unknowns(faces.variables(), 1e-3)
    optimiser = torch.optim.Adam([unknowns.steps], lr=0.1)
    unknowns.steps.grad = torch.zeros_like(unknowns.steps)

    def update() -> None:
        unknowns.values()
        torch.autograd.grad(unknowns.prior().sum(), unknowns.steps)
        optimiser.step()
        unknowns.clamp()

    found = {
        "decode and place the parts": measure(backward(lambda: faces.compose(values)[0], shape_inputs), repeats),
        "ARAP forward, 1 linear solve": measure(lambda: blender(composed.detach(), rest), repeats),
        "ARAP forward + backward": measure(backward(lambda: blender(composed, rest), [composed]), repeats),
        "expression and pose": measure(backward(lambda: faces.pose(neutral, values), pose_inputs), repeats),
        "raster": measure(lambda: plain.rasterise(clip), repeats),
        "raster + loss + force": measure(
            backward(lambda: renderer.region_loss(posed, targets, costs), [posed]), repeats
        ),
        "Adam, prior, bounds": measure(update, repeats),
        "flip penalty (off by default)": measure(backward(lambda: orientation.penalty(posed), [posed]), repeats),
    }
    found = {name: cost / count for name, cost in found.items()}
    found["ARAP backward"] = found.pop("ARAP forward + backward") - found["ARAP forward, 1 linear solve"]
    found["label-edge loss and force"] = found.pop("raster + loss + force") - found["raster"]
    return found


def fitted(faces: PartFaces, masks: Tensor, loop: SeamBlender | None, iterations: int) -> FitResult:
    """A whole fit; label maps and overlaps are reported with all solves wherever the loop blends."""
    return fit_controls(
        faces.shape_fn(loop),
        faces.variables(),
        masks,
        CAMERA,
        faces=faces.faces,
        labels=faces.labels,
        iterations=iterations,
        final_shape_fn=faces.shape_fn(None if loop is None else faces.segments.blender),
    )


def loops(faces: PartFaces) -> dict[str, SeamBlender | None]:
    """What may stand in the loop."""
    return {
        "blended, 1 linear solve in the loop": faces.segments.blender.with_solves(1),
        "blended, 3 solves in the loop": faces.segments.blender,
        "not blended": None,
    }


def report_fits(faces: PartFaces, masks: Tensor, repeats: int, what: str) -> dict[str, Cost]:
    """Print step, set-up and whole fits per face; the cost of a step by name."""
    count, steps = len(faces.offsets), {}
    print(f"\n{what}: per face; IoU is the mean of five parts, before -> after 20 / 60")
    print(f"{'':38s}{'ms a step':>18s}{'ms without steps':>19s}{'s, 20 steps':>13s}{'s, 60 steps':>13s}   IoU")
    for name, blender in loops(faces).items():
        fits = {n: partial(fitted, faces, masks, blender, n) for n in (0, 20, 60)}
        cost = {n: measure(fit, repeats) / count for n, fit in fits.items()}
        steps[name] = (cost[60] - cost[20]) / 40
        last20, last60 = fits[20](), fits[60]()
        scores = [last20.overlap_before, last20.overlap_after, last60.overlap_after]
        before, after20, after60 = (overlap.summary()["mean_of_parts"] for overlap in scores)
        print(
            f"{name:38s}{steps[name].ms():>18s}{cost[0].ms():>19s}{cost[20].wall:13.3f}{cost[60].wall:13.3f}"
            f"   {before:.3f} -> {after20:.3f} / {after60:.3f}"
        )
    return steps


def report_parts(parts: dict[str, Cost], step: Cost) -> None:
    """Print where a blended step goes."""
    inside = [cost for name, cost in parts.items() if "off by default" not in name]
    total = sum(inside[1:], inside[0])
    for name, cost in parts.items():
        print(f"    {name:38s}{cost.ms():>18s}")
    print(f"    {'the rest (checks, best iterate)':38s}{(step - total).ms():>18s}")


def masks_of(faces: PartFaces) -> Tensor:
    """(B, 224, 224) label maps of the blended faces."""
    values: Values = {name: variable.initial for name, variable in faces.variables().items()}
    with torch.no_grad():
        shape = faces.shape_fn(faces.segments.blender)(values)
    return render_labels(shape, faces.labels, CAMERA, faces.faces, backend="cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="a run folder with finished build_dataset and train_segments stages")
    source.add_argument("--face-model", default="synthetic-35k", choices=["synthetic", "synthetic-35k"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, segments = load_parts(options.run) if options.run else train_parts(options.face_model)
    area = segments.blender.area
    print(
        f"{model.name}: {model.n_vertices} vertices, {len(model.faces)} triangles; blending moves {len(area.free)} "
        f"vertices between {len(area.handles)} handles; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    faces, truth = (sample_faces(model, segments, options.batch, seed) for seed in (1, 2))
    masks = masks_of(truth)
    for count in (1, options.batch):
        chosen = faces.rows(slice(0, count))
        steps = report_fits(chosen, masks[:count], options.repeats, f"{count} photo{'s' * (count > 1)}, CPU")
        print("  where a blended step goes, ms")
        report_parts(step_parts(chosen, masks[:count], 3 * options.repeats), next(iter(steps.values())))
    if torch.cuda.is_available() and importlib.util.find_spec("nvdiffrast"):
        segments.to("cuda")
        for count in (1, options.batch):
            chosen = faces.rows(slice(0, count)).to("cuda")
            report_fits(chosen, masks[:count], options.repeats, f"{count} photo{'s' * (count > 1)}, CUDA")
    else:
        print("\nno CUDA rows: they need a CUDA device and nvdiffrast")
    print(
        f"\nNEO-3DF reports 31 s an iteration on a V100, {PAPER_SECONDS} s for 20 iterations of one face: another "
        "machine, another code (a dense pseudo-inverse in every solve), 35,709 vertices, fewer variables; not a race."
    )


if __name__ == "__main__":
    main()
