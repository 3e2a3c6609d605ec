"""evaluate: part IoU and shape error of our methods on the validation faces, second references, and the pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset_builder import LandmarkEstimator
from editing import ControllerMap
from fitting import PartOverlap, part_iou

from ..comparison.evaluator_checks import mean_face_labels, registration_columns
from ..comparison.label_images import label_images
from ..comparison.method_rows import LabelImages, Method, label_columns, overlap_columns
from ..comparison.second_reference import parsed_labels
from ..comparison.shape_error import shape_error_columns, shape_errors
from ..contracts import PARTS, REGIONS
from ..errors import UserError
from ..face_editor import editor_of
from ..face_file import RunFace, named_controls, state_of, write_mesh
from ..figures import Example, Gallery
from ..methods import (
    ESTIMATED,
    FINE_TUNED,
    FITTED,
    GLOBAL_3DMM,
    GLOBAL_3DMM_WITH_MODES,
    MEAN_FACE,
    OURS,
    PRE_TRAINED,
    in_table_order,
    method_name,
)
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, validation_faces
from ..run_model import PartFace, PartFaceModel, Pose, load_controllers, load_network, load_part_face_model
from ..settings import FitConfig
from ..tables import read_table, write_table

Columns = Mapping[str, object]


def run(context: StageContext) -> None:
    """A row per face and method of our own, the parser's opinion of everybody's, the evaluator's checks, pictures."""
    inputs, settings = context.inputs, context.config.evaluate
    model = load_part_face_model(inputs)
    all_faces = load_faces(inputs["build_dataset"])
    faces = validation_faces(all_faces, context.config.fit.photos)
    masks, _ = faces.masks()
    shapes, fitted_labels = _shapes(context, model, faces)
    images = _images(model, faces, shapes) | {_fitted(context.config.fit): fitted_labels}
    rivals = _rivals(inputs, faces)
    everybody = images | rivals
    drawn = {method: everybody[method] for method in in_table_order(everybody)}
    overlaps = {method: part_iou(labels, masks) for method, labels in drawn.items()}
    own = [method for method in images if method not in rivals]
    layout = model.segments.layout
    errors = {method: shape_errors(shapes[method], faces, model.face_model, layout) for method in own}
    metrics = _summary(overlaps)

    keep = _Writer(context.out, model.face_model.topology_hash())
    keep("overlaps", overlap_columns(faces, {method: overlaps[method] for method in own}))
    keep("shape_errors", shape_error_columns(faces, errors))
    keep("drawn_labels", label_columns(faces, {method: images[method] for method in own}))
    if (parsed := parsed_labels(context, all_faces, faces)) is not None:
        against = {method: part_iou(labels, parsed) for method, labels in drawn.items()}
        keep("overlaps", overlap_columns(faces, against, settings.parser), f"-{settings.parser}")
        _add_parser(metrics, settings.parser, part_iou(parsed, masks))
    metrics.write(context.out)
    mean_face = mean_face_labels(model)
    keep("registration", registration_columns("mean face", mean_face, mean_face), "-mean-face")
    keep("registration", registration_columns("fitted faces", fitted_labels, masks), "-fitted")

    controllers, points = load_controllers(inputs, model)
    chosen = np.unique(np.linspace(0, len(faces) - 1, settings.n_examples).round().astype(int))
    crops = faces.where(np.isin(np.arange(len(faces)), chosen)).crops()
    examples = [
        Example(faces.face_id[i], crop, masks[i], {method: labels[i] for method, labels in drawn.items()})
        for i, crop in zip(chosen, crops, strict=True)
    ]
    pictures = Gallery(model, controllers, points).draw(examples, shapes[_fitted(context.config.fit)][chosen[0]])
    keep("pictures", {key: [getattr(p, key) for p in pictures] for key in ("section", "caption", "image")})
    _write_example(context, model, controllers, faces.face_id[0])


class _Writer:
    """Writes tables of one topology into one folder."""

    def __init__(self, out: Path, topology: str) -> None:
        self._out, self._topology = out, topology

    def __call__(self, table: str, columns: Columns, more: str = "") -> None:
        """``columns`` as ``<table><more>.parquet``."""
        write_table(self._out / f"{table}{more}.parquet", table, columns, topology_hash=self._topology)


def _fitted(settings: FitConfig) -> Method:
    """Model and step of what fit_photos fitted: parts, or the global face model."""
    if settings.variables != "global":
        return OURS, FITTED
    return (GLOBAL_3DMM_WITH_MODES if settings.modes else GLOBAL_3DMM), FITTED


Shapes = dict[Method, NDArray[np.float32]]


def _shapes(context: StageContext, model: PartFaceModel, faces: RunFaces) -> tuple[Shapes, LabelImages]:
    """Neutral shapes (N, V, 3) of each method, and the label images of the last one, which were drawn by its fits.

    Network output is unblended, as in the paper's table 2.
    """
    inputs = context.inputs
    shapes: Shapes = {
        (MEAN_FACE, ESTIMATED): np.repeat(model.face_model.mean[None], len(faces), 0),
        (GLOBAL_3DMM, ESTIMATED): model.face_model.shape(faces.identity),
    }
    crops, five_points = faces.crops(), faces.five_points
    for step, fine_tuned in ((PRE_TRAINED, False), (FINE_TUNED, True)):
        network = load_network(inputs, context.config.regressors.encoder, fine_tuned=fine_tuned)
        shapes[OURS, step] = _composed(model, network(crops, five_points)).numpy()
    fits = read_table(sorted(inputs["fit_photos"].glob("fits-*.parquet")), "fits", columns=["face_id", "labels_after"])
    if fits["face_id"] != faces.face_id:
        raise UserError("the fits are not of this run's validation faces; make them again with --refresh fit_photos")
    stored = read_table(sorted(inputs["fit_photos"].glob("shapes-*.parquet")), "shapes")
    shapes[_fitted(context.config.fit)] = stored["vertices"]
    return shapes, np.asarray(fits["labels_after"])


def _images(model: PartFaceModel, faces: RunFaces, shapes: Shapes) -> dict[Method, LabelImages]:
    """Label images of every method but the fitted one, the mean face in the pose that suits it best."""
    mean_pose = LandmarkEstimator(model.face_model).estimate(faces.landmarks, fit_identity=False, fit_expression=False)
    still = np.zeros_like(faces.expression)
    posed_mean = Pose(*(torch.from_numpy(x) for x in (still, mean_pose.angles, mean_pose.translation)))
    return {
        (name, step): label_images(model, torch.from_numpy(found), posed_mean if name == MEAN_FACE else faces.pose)
        for (name, step), found in shapes.items()
        if step != FITTED
    }


def _rivals(inputs: Mapping[str, Path], faces: RunFaces) -> dict[Method, LabelImages]:
    """Label images that compare_rivals drew, in the order of the faces; none where it had nothing to do."""
    files = sorted(inputs["compare_rivals"].glob("drawn_labels-*.parquet")) if "compare_rivals" in inputs else []
    if not files:
        return {}
    table = read_table(files, "drawn_labels")
    rows = {key: row for row, key in enumerate(zip(table["model"], table["step"], table["face_id"], strict=True))}
    methods = dict.fromkeys(zip(table["model"], table["step"], strict=True))
    return {method: table["labels"][[rows[*method, face] for face in faces.face_id]] for method in methods}


@torch.no_grad()
def _composed(model: PartFaceModel, face: PartFace) -> Tensor:
    return model.neutral(face, None)


def _write_example(context: StageContext, model: PartFaceModel, controllers: ControllerMap, face_id: str) -> None:
    """The first fitted face as ``face.json``, to edit, and as ``face.glb``, to open elsewhere."""
    folder = context.inputs["fit_photos"]
    fits = read_table(sorted(folder.glob("fits-*.parquet"))[0], "fits")
    latents = read_table(sorted(folder.glob("latents-*.parquet"))[0], "latents")
    base = {region: torch.from_numpy(latents[f"z_{region}"][:1]) for region in REGIONS}
    face = PartFace(base, torch.from_numpy(fits["offsets"][:1]))
    state = state_of(face, named_controls(controllers, fits["controls"][0]))
    pose = Pose(*(torch.from_numpy(fits[key][:1]) for key in ("expression", "angles", "translation")))
    topology = model.face_model.topology_hash()
    RunFace(face_id, Path(".."), topology, state, pose).write(context.out / "face.json")
    write_mesh(model, editor_of(model, state, controllers), context.out / "face.glb")


def _summary(overlaps: Mapping[Method, PartOverlap]) -> MetricRows:
    metrics = MetricRows()
    for (name, step), overlap in overlaps.items():
        method, summary = method_name(name, step), overlap.summary()
        for part in PARTS:
            metrics.add(method, part, "iou", summary[part], int(summary[f"n_{part}"]))
        n = int(summary["n_photos"])
        metrics.add(method, "all", "mean_of_five", summary["mean_of_parts"], n)
        for key in ("frequency_weighted", "micro", "binary_union"):
            metrics.add(method, "all", key, summary[key], n)
        metrics.add(method, "all", "faces", n, n)
    return metrics


def _add_parser(metrics: MetricRows, parser: str, overlap: PartOverlap) -> None:
    """How far the parser itself is from the masks."""
    summary = overlap.summary()
    for part in PARTS:
        metrics.add(parser, part, "parser_iou", summary[part], int(summary[f"n_{part}"]))
    metrics.add(parser, "all", "parser_iou", summary["mean_of_parts"], int(summary["n_photos"]))
