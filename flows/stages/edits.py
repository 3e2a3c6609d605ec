"""compare_edits: what edits move and what they leave alone, by the part models and by their rivals (NEO-3DF 4 to 7)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from editing import ControllerMap, MeasurementLandmarks
from segmodel import LinearShapes, SegmentModel, box_centres, load_baseline

from ..comparison.edit_captions import cumulative_caption, nose_caption, reach_caption, three_controls_caption
from ..comparison.edit_figures import COLUMNS, EditPictures
from ..comparison.edit_reach import (
    SIGMA,
    Decoder,
    EditMethod,
    EditReach,
    Surroundings,
    control_maps,
    edit_reach,
    measured_faces,
)
from ..comparison.edit_sequence import EditPlan, Stillness, edited_in_steps, stillness
from ..comparison.nose_ablation import NoseEdit, nose_edits
from ..contracts import PARTS, REGIONS
from ..controller_table import read_controllers
from ..errors import UserError
from ..figures import Picture
from ..methods import OURS, RIVALS
from ..metrics import MetricRows
from ..pictures import jpeg_bytes
from ..pipeline import StageContext
from ..progress import track
from ..run_model import (
    PartFace,
    PartFaceModel,
    load_controllers,
    load_part_face_model,
    part_slices,
)
from ..tables import read_table, write_table

TIPS = {"tip_height": "tip down", "tip_depth": "tip in"}
"""The first control of figure 5, at -3 sigma, in both readings of the paper's "tip"; width and bridge go with it."""
NOSE_VIEWS = (-40.0, -75.0)
"""Degrees that figure 7's noses are turned."""
UNBLENDED = f"{OURS}, unblended"
Item = TypeVar("Item")


def run(context: StageContext) -> None:
    """Measure and draw the four figures; write their numbers, tables and pictures."""
    settings, model = context.config.edits, load_part_face_model(context.inputs)
    controllers, points = load_controllers(context.inputs, model)
    identity = model.face_model.sample(settings.n_measured, context.config.seed + 2)
    shapes = LinearShapes(model.face_model.mean, model.face_model.id_basis, identity)
    start, faces = _fitted(context, model, controllers)
    methods = _methods(context, model, points, shapes)
    surroundings = Surroundings(model.segments.layout, points, model.segments.radius_mm)
    reaches = [edit_reach(method, surroundings) for method in track(context.progress, methods, "edits", unit="methods")]
    plan = EditPlan.random(controllers, len(faces), settings.n_steps, context.config.seed)
    still = stillness(model, controllers, start, plan)
    noses = nose_edits(model, controllers, points, faces, shapes, settings.ridge)

    draw, metrics = EditPictures(model.face_model.faces, model.segments.layout.labels), MetricRows()
    few = slice(0, settings.n_shown)
    steps = edited_in_steps(model, controllers, start.rows(few), plan.rows(few))
    pictures = [
        *_reach_pictures(draw, methods, reaches, surroundings.radius_mm, settings.n_measured),
        *_three_control_pictures(draw, methods, faces[:1], surroundings, metrics),
        *_step_pictures(draw, steps, plan.rows(few), cumulative_caption(still, len(faces), settings.n_steps)),
        *(_nose_picture(draw, noses, len(faces), yaw) for yaw in NOSE_VIEWS),
    ]
    _add_numbers(metrics, still, noses, len(faces))
    _write(context, model, reaches, pictures, metrics)


def _fitted(context: StageContext, model: PartFaceModel, controllers: ControllerMap) -> tuple[PartFace, Tensor]:
    """Evenly chosen fitted faces, as what makes them and as shapes (N, V, 3) mm; UserError where no fit succeeded."""
    folder = context.inputs["fit_photos"]
    fits, latents, shapes = (
        read_table(sorted(folder.glob(f"{name}-*.parquet")), name) for name in ("fits", "latents", "shapes")
    )
    good = [i for i, reason in enumerate(fits["set_aside"]) if not reason]
    if not good:
        raise UserError("no face was fitted without being set aside: there is none to edit; change the fit settings")
    count = min(context.config.edits.n_checked, len(good))
    rows = np.array(good)[np.linspace(0, len(good) - 1, count).round().astype(int)]
    slices = part_slices({part: len(controllers.region(part).names) for part in PARTS})
    controls = {part: fits["controls"][rows][:, where] for part, where in slices.items()}
    edited = controllers.apply({region: latents[f"z_{region}"][rows] for region in REGIONS}, controls)
    made_of = model.padded({region: torch.from_numpy(z) for region, z in edited.items()})
    return PartFace(made_of, torch.from_numpy(fits["offsets"][rows])), torch.from_numpy(shapes["vertices"][rows])


def _methods(
    context: StageContext, model: PartFaceModel, points: MeasurementLandmarks, shapes: LinearShapes
) -> list[EditMethod]:
    """Ours with the run's controllers, blended and not, and every trained rival with maps fitted on its own faces."""
    segments, ridge = model.segments, context.config.edits.ridge
    own = read_controllers(context.inputs["fit_controllers"], segments.latent_dims)
    methods = [EditMethod(OURS, segments, own), EditMethod(UNBLENDED, segments, own, blend=False)]
    names = sorted(dict.fromkeys(context.config.baselines.models), key=lambda name: name != "part-pca")
    for name in names:
        rival = load_baseline(name, context.inputs["train_baselines"] / name, segments.layout.topology_hash)
        if isinstance(rival, SegmentModel):
            rival.radius_mm, rival.n_solves = segments.radius_mm, segments.n_solves
        latents = rival.latents_of(shapes)
        measured = measured_faces(rival, points, latents)
        ways = {"part-pca": {"": False}, "ld-vae": {", slice": False, ", whole latent": True}}.get(name, {"": True})
        for words, whole in ways.items():
            controls = control_maps(measured, latents, whole_latent=whole, ridge=ridge)
            methods.append(EditMethod(RIVALS[name] + words, rival, controls, whole))
    return methods


def _chunks(items: Sequence[Item]) -> list[list[Item]]:
    """Items in groups of at most COLUMNS, as even as can be."""
    groups = np.array_split(np.arange(len(items)), -(-len(items) // COLUMNS))
    return [[items[i] for i in group] for group in groups]


def _reach_pictures(
    draw: EditPictures, methods: Sequence[EditMethod], reaches: Sequence[Sequence[EditReach]], radius: float, n: int
) -> Iterator[Picture]:
    for group in _chunks(list(zip(methods, reaches, strict=True))):
        caption = reach_caption([rows for _, rows in group], radius, n)
        for few in (slice(0, 3), slice(3, 6)):
            columns = [(method.base.numpy(), rows[few]) for method, rows in group]
            yield Picture("figure-4", caption, jpeg_bytes(draw.reach(columns)))


def _three_control_pictures(
    draw: EditPictures, methods: Sequence[EditMethod], face: Tensor, surroundings: Surroundings, metrics: MetricRows
) -> Iterator[Picture]:
    inside = surroundings.inside("nose")
    columns = []
    for method in methods:
        made = method.edited("nose", _three_controls(method.controls), *_taken_apart(method.decoder, face))
        moved = (made - made[:1]).norm(dim=-1).numpy()
        texts = ["before"]
        for way, (tip, words) in zip(moved[1:], TIPS.items(), strict=True):
            texts.append(f"{words}:\nnose {way[inside].mean():.1f} mm\nelse {way[~inside].mean():.2f} mm")
            for where, mask in (("inside", inside), ("outside", ~inside)):
                metrics.add(method.title, "nose", f"three_controls.{tip}.{where}", way[mask].mean(), 1)
        columns.append((method.title, list(made.numpy()), texts))
    for group in _chunks(columns):
        yield Picture("figure-5", three_controls_caption(), jpeg_bytes(draw.edits(group)))


def _three_controls(controls: ControllerMap) -> np.ndarray:
    """(3, M) sigma of the nose: none; and for both tips the tip -3, width +3 and bridge width -3."""
    control = np.zeros((1 + len(TIPS), len(controls.region("nose").names)))
    for row, tip in zip(control[1:], TIPS, strict=True):
        for name, sigma in ((tip, -SIGMA), ("width", SIGMA), ("bridge_width", -SIGMA)):
            row[controls.position("nose", name)] = sigma
    return control


@torch.no_grad()
def _taken_apart(decoder: Decoder, face: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
    """Latents of a face (1, V, 3), and for each of figure 5's faces the true places of its parts if it has any."""
    if not isinstance(decoder, SegmentModel):
        return decoder.encode(face), None
    centres = [box_centres(face[:, decoder.layout.vertices(part)]) for part in PARTS]
    return decoder.encode(face), torch.stack(centres, 1).expand(1 + len(TIPS), -1, -1)


def _step_pictures(draw: EditPictures, steps: Iterable[Tensor], plan: EditPlan, caption: str) -> Iterator[Picture]:
    shapes = [shape.numpy() for shape in steps]
    for row, regions in enumerate(plan.regions):
        picture = draw.steps([shape[row] for shape in shapes], [REGIONS[number] for number in regions])
        yield Picture("figure-6", caption, jpeg_bytes(picture))


def _nose_picture(draw: EditPictures, noses: Sequence[NoseEdit], n_faces: int, yaw: float) -> Picture:
    return Picture("figure-7", nose_caption(noses, n_faces, yaw), jpeg_bytes(draw.noses(noses, yaw)))


def _add_numbers(metrics: MetricRows, still: Stillness, noses: Sequence[NoseEdit], n_faces: int) -> None:
    metrics.add(OURS, "all", "share_bit_identical", still.share, n_faces)
    metrics.add(OURS, "all", "largest_unwanted_motion", still.largest_mm, n_faces)
    for edit in noses:
        for key in ("translation", "drift", "lift", "gap"):
            metrics.add(edit.name, "nose", f"mean_{key}", getattr(edit, key).mean(), n_faces)
        metrics.add(edit.name, "nose", "largest_gap", edit.gap.max(), n_faces)


def _write(
    context: StageContext,
    model: PartFaceModel,
    reaches: Sequence[Sequence[EditReach]],
    pictures: Sequence[Picture],
    metrics: MetricRows,
) -> None:
    topology, rows = model.face_model.topology_hash(), [row for group in reaches for row in group]
    same = ("region", "inside", "outside", "beyond", "max_outside", "max_beyond", "max_elsewhere", "reach")
    columns = {
        "model": [row.method for row in rows],
        **{key: [getattr(row, key) for row in rows] for key in same},
        **{f"response_{key}": [getattr(row.responses, key)() for row in rows] for key in ("mean", "min", "max")},
    }
    write_table(context.out / "edit_reach.parquet", "edit_reach", columns, topology_hash=topology)
    shown = {key: [getattr(picture, key) for picture in pictures] for key in ("section", "caption", "image")}
    write_table(context.out / "pictures.parquet", "pictures", shown, topology_hash=topology)
    metrics.write(context.out)
