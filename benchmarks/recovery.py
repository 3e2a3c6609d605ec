"""Are known controls, offsets and shifts of the parts found again from the masks they make?

    python benchmarks/recovery.py [--face-model synthetic] [--faces 8] [--iterations 60]

On a procedural face everything is known. Controls and offsets: random faces are edited by random controls and offsets,
rendered to masks, and both are recovered from zero, the pose being known. A mask shows no depth: each control's
sensitivity, the share of its part's pixels that one sigma changes, stands beside its error, and the error of guessing
zero beside both. Shifts: all five parts are displaced by 5 px at once and have to come back.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from fit_faces import PartFaces, Values, sample_faces, train_parts
from torch import Tensor

from dataset_builder import LABEL_IDS, PARTS, FaceModel
from editing import ControllerMap, MeasurementLandmarks, controller_names, measure
from fitting import Camera, Variable, fit_controls, project, render_labels
from segmodel import SegmentModel

CAMERA = Camera.deep3d()
N_MEASURED = 1000
SHIFT_PX = 5.0
SHIFT_ITERATIONS, SHIFT_RAMP = 100, 30


@dataclass(frozen=True)
class ControlRecovery:
    """Recovered controls and offsets of B faces; NaN where a quantity was not free.

    Attributes:
        names: of the M controls, "part: name".
        control_error: (B, M) sigma.
        control_zero: (M,) mean error of guessing zero.
        sensitivity: (M,) share of the part's pixels that one sigma of a control changes.
        offset_error: (B, 5, 2) mm in y and z. offset_zero: (5, 2) mean error of guessing zero.
        iou_before, iou_after: (B,) mean of parts.
    """

    names: list[str]
    control_error: np.ndarray
    control_zero: np.ndarray
    sensitivity: np.ndarray
    offset_error: np.ndarray
    offset_zero: np.ndarray
    iou_before: np.ndarray
    iou_after: np.ndarray


def control_directions(model: FaceModel, segments: SegmentModel, n_measured: int = N_MEASURED) -> Tensor:
    """(M, D) change of the concatenated part latents per sigma of each of the parts' controls."""
    points = MeasurementLandmarks.from_template(model.mean, segments.layout.labels, model.landmarks68)
    with torch.no_grad():
        latents = segments.encode(torch.from_numpy(model.shape(model.sample(n_measured, 7))))
        measured = measure(segments.compose(latents)[0].numpy(), points)
    fitted = ControllerMap.fit(measured, {region: z.numpy() for region, z in latents.items()})
    return torch.block_diag(*(torch.from_numpy(np.asarray(fitted.rows(part), np.float32)) for part in PARTS))


def control_names() -> list[str]:
    """Names of the parts' controls in the order of `control_directions`."""
    return [f"{part}: {name}" for part in PARTS for name in controller_names(part)]


def recover_controls(
    start: PartFaces, directions: Tensor, *, controls: bool, offsets: bool, iterations: int, seed: int = 0
) -> ControlRecovery:
    """Edit the faces by random controls (sigma 1, at most 2) and offsets (sigma 2 mm), and fit what was edited."""
    generator = torch.Generator().manual_seed(seed)
    count, n_controls = len(start.offsets), len(directions)
    truth: Values = {}
    if controls:
        truth["controls"] = torch.randn(count, n_controls, generator=generator).clamp(-2, 2)
    if offsets:
        truth["offsets"] = 2 * torch.randn(count, 2 * len(PARTS), generator=generator)
    blender = start.segments.blender

    def shape(values: Values, linear: bool = False) -> Tensor:
        chosen = {name: value for name, value in values.items() if name == "offsets"}
        if "controls" in values:
            chosen["latents"] = values["controls"] @ directions
        return start.shape_fn(blender.with_solves(1) if linear else blender)(chosen)

    with torch.no_grad():
        masks = render_labels(shape(truth), start.labels, CAMERA, start.faces)
    bounds = {"controls": 3.0, "offsets": torch.inf}
    variables = {
        name: Variable(torch.zeros_like(value), lower=-bounds[name], upper=bounds[name])
        for name, value in truth.items()
    }
    result = fit_controls(
        lambda values: shape(values, linear=True),
        variables,
        masks,
        CAMERA,
        faces=start.faces,
        labels=start.labels,
        iterations=iterations,
        binary_after=iterations // 2,
        final_shape_fn=shape,
    )
    nothing = {"controls": torch.full((count, n_controls), torch.nan), "offsets": torch.full((count, 10), torch.nan)}
    error = nothing | {name: (result.values[name] - value).abs() for name, value in truth.items()}
    zero = nothing | {name: value.abs() for name, value in truth.items()}
    return ControlRecovery(
        control_names(),
        error["controls"].numpy(),
        zero["controls"].mean(0).numpy(),
        sensitivity(start, directions),
        error["offsets"].view(-1, len(PARTS), 2).numpy(),
        zero["offsets"].view(-1, len(PARTS), 2).mean(0).numpy(),
        result.overlap_before.mean_of_parts(),
        result.overlap_after.mean_of_parts(),
    )


@torch.no_grad()
def sensitivity(faces: PartFaces, directions: Tensor) -> np.ndarray:
    """(M,) share of a part's pixels that one sigma of each control changes, from -1/2 to 1/2, mean over the faces."""
    shape = faces.shape_fn(faces.segments.blender.with_solves(1))
    owners = [LABEL_IDS[name.split(":")[0]] for name in control_names()]
    shares = []
    for direction, label in zip(directions, owners, strict=True):
        low, high = (
            render_labels(
                shape({"latents": sign * direction.expand(len(faces.offsets), -1)}), faces.labels, CAMERA, faces.faces
            )
            for sign in (-0.5, 0.5)
        )
        changed, area = ((low == label) ^ (high == label)).sum(), (low == label).sum()
        shares.append(float(changed / area))
    return np.array(shares)


def recover_shifts(
    faces: PartFaces, *, blend: bool, iterations: int = SHIFT_ITERATIONS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Displace all parts of the faces by 5 px at once, each in its own direction, and pull them back onto the masks.

    Returns:
        (B, 5) mean distance in px of the parts' vertices from their true image positions, before and after.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(faces.offsets)
    loop, final = ((faces.segments.blender.with_solves(n) if blend else None) for n in (1, 3))
    turn = 2 * torch.pi * torch.rand(count, len(PARTS), generator=generator)
    in_image = (
        torch.stack([turn.cos(), turn.sin(), torch.zeros_like(turn)], -1) * SHIFT_PX * CAMERA.distance / CAMERA.fx
    )
    # the shift in the frame of the face that is this shift in the image
    still = faces.pose(torch.eye(3).expand(count, -1, -1), {}) - faces.pose(torch.zeros(count, 3, 3), {})
    start = (in_image @ still.mT).flatten(1)
    shape, final_shape = faces.shape_fn(loop), faces.shape_fn(final)
    true = final_shape({"offsets": torch.zeros_like(start)})
    result = fit_controls(
        shape,
        {"offsets": Variable(start)},
        render_labels(true, faces.labels, CAMERA, faces.faces),
        CAMERA,
        faces=faces.faces,
        labels=faces.labels,
        iterations=iterations,
        learning_rate=0.2,
        prior=0.0,
        ramp_px=10.0,
        binary_after=SHIFT_RAMP,
        final_shape_fn=final_shape,
    )

    def distances(vertices: Tensor) -> np.ndarray:
        off = (project(vertices, CAMERA)[0] - project(true, CAMERA)[0]).norm(dim=-1)
        return np.stack([off[:, faces.labels == LABEL_IDS[part]].mean(1).numpy() for part in PARTS], 1)

    return distances(final_shape({"offsets": start})), distances(result.vertices)


def print_controls(found: ControlRecovery) -> None:
    """One line per control, and the offsets."""
    print(f"  mean IoU {found.iou_before.mean():.3f} -> {found.iou_after.mean():.3f}")
    if not np.isnan(found.control_error).all():
        print(f"  {'control':34s}{'error, sigma':>13s}{'guessing 0':>12s}{'pixels changed by 1 sigma':>27s}")
        rows = zip(found.names, found.control_error.mean(0), found.control_zero, found.sensitivity, strict=True)
        for name, error, zero, seen in rows:
            print(f"  {name:34s}{error:13.2f}{zero:12.2f}{100 * seen:26.0f}%")
        print(f"  {'mean':34s}{found.control_error.mean():13.2f}{found.control_zero.mean():12.2f}")
    if not np.isnan(found.offset_error).all():
        print(f"  {'offsets, mm':34s}{'error y':>13s}{'guessing 0':>12s}{'error z':>13s}{'guessing 0':>12s}")
        for k, part in enumerate(PARTS):
            cells = np.stack([found.offset_error.mean(0)[k], found.offset_zero[k]], 1).ravel()
            print(f"  {part:34s}{cells[0]:13.2f}{cells[1]:12.2f}{cells[2]:13.2f}{cells[3]:12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face-model", default="synthetic", choices=["synthetic-3k", "synthetic", "synthetic-35k"])
    parser.add_argument("--faces", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, segments = train_parts(options.face_model)
    directions = control_directions(model, segments)
    print(f"{model.name}: {model.n_vertices} vertices; {options.faces} random faces, {options.iterations} iterations")
    for yaw in (0.0, 35.0):
        start = sample_faces(model, segments, options.faces, 11, yaw=np.deg2rad(yaw))
        for controls, offsets in ((True, False), (False, True), (True, True)):
            what = " and ".join(name for name, free in (("controls", controls), ("offsets", offsets)) if free)
            print(f"\n{what}, yaw {yaw:.0f} degrees")
            print_controls(
                recover_controls(start, directions, controls=controls, offsets=offsets, iterations=options.iterations)
            )
    print(
        f"\nall parts displaced by {SHIFT_PX:g} px: mean distance of a part's vertices from the truth, px: mean (worst)"
    )
    print(f"{'':26s}" + "".join(f"{part:>16s}" for part in PARTS))
    for yaw in (0.0, 35.0):
        faces = sample_faces(model, segments, options.faces, 11, yaw=np.deg2rad(yaw))
        for blend in (False, True):
            before, after = recover_shifts(faces, blend=blend)
            for when, distance in (("before", before), ("after", after)):
                cells = "".join(f"{f'{d.mean():.2f} ({d.max():.2f})':>16s}" for d in distance.T)
                print(f"yaw {yaw:2.0f}, {'blended' if blend else 'open'}, {when:12s}{cells}")


if __name__ == "__main__":
    main()
