"""evaluate: part IoU of every method on the validation faces, and the report's pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset_builder import LandmarkEstimator
from editing import ControllerMap
from fitting import PartOverlap, part_iou, render_labels

from ..contracts import PARTS, REGIONS
from ..errors import UserError
from ..face_editor import editor_of
from ..face_file import RunFace, named_controls, state_of, write_mesh
from ..face_fit import CAMERA
from ..figures import Gallery
from ..methods import (
    ESTIMATED,
    FINE_TUNED,
    FITTED,
    GLOBAL_3DMM,
    MASK,
    MEAN_FACE,
    OURS,
    PRE_TRAINED,
    method_name,
)
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, validation_faces
from ..run_model import PartFace, PartFaceModel, Pose, load_controllers, load_network, load_part_face_model
from ..tables import read_table, write_table

LabelImages = NDArray[np.uint8]
Method = tuple[str, str]
BATCH = 16


def run(context: StageContext) -> None:
    """Render every method's faces, measure them against the masks, keep a row per face and method, draw pictures."""
    inputs = context.inputs
    model = load_part_face_model(inputs)
    faces = validation_faces(load_faces(inputs["build_dataset"]), context.config.fit.photos)
    masks, _ = faces.masks()
    rendered = _renders(context, model, faces)
    overlaps = {method: part_iou(images, masks) for method, images in rendered.items()}
    topology = model.face_model.topology_hash()
    write_table(context.out / "overlaps.parquet", "overlaps", _overlap_columns(faces, overlaps), topology_hash=topology)
    named = {method_name(*method): overlap for method, overlap in overlaps.items()}
    _summary(named).write(context.out)
    controllers, points = load_controllers(inputs, model)
    gallery = Gallery(model, controllers, points)
    pictures = gallery.draw(
        faces,
        masks,
        {method_name(*method): images for method, images in rendered.items()},
        _fitted_shapes(context),
        context.config.evaluate.n_examples,
    )
    _write_example(context, model, controllers, faces.face_id[0])
    write_table(
        context.out / "pictures.parquet",
        "pictures",
        {key: [getattr(p, key) for p in pictures] for key in ("section", "caption", "image")},
        topology_hash=topology,
    )


def _renders(context: StageContext, model: PartFaceModel, faces: RunFaces) -> dict[Method, LabelImages]:
    """Label images (N, 224, 224) of each method, in the order of the tables."""
    inputs = context.inputs
    mean_pose = LandmarkEstimator(model.face_model).estimate(faces.landmarks, fit_identity=False, fit_expression=False)
    no_expression = np.zeros_like(faces.expression)
    posed_mean = Pose(*(torch.from_numpy(x) for x in (no_expression, mean_pose.angles, mean_pose.translation)))
    mean = torch.from_numpy(model.face_model.mean)
    landmark_shapes = torch.from_numpy(model.face_model.shape(faces.identity))
    fits = read_table(sorted(inputs["fit_photos"].glob("fits-*.parquet")), "fits")
    renders = {
        (MEAN_FACE, ESTIMATED): _label_images(model, mean.expand(len(faces), -1, -1), posed_mean),
        (GLOBAL_3DMM, ESTIMATED): _label_images(model, landmark_shapes, faces.pose),
    }
    crops, five_points = faces.crops(), faces.five_points
    for step, fine_tuned in ((PRE_TRAINED, False), (FINE_TUNED, True)):
        network = load_network(inputs, context.config.regressors.encoder, fine_tuned=fine_tuned)
        renders[OURS, step] = _label_images(model, _composed(model, network(crops, five_points)), faces.pose)
    if fits["face_id"] != faces.face_id:
        raise UserError("the fits are not of this run's validation faces; make them again with --refresh fit_photos")
    renders[OURS, FITTED] = np.asarray(fits["labels_after"])
    return renders


@torch.no_grad()
def _label_images(model: PartFaceModel, neutral: Tensor, pose: Pose) -> LabelImages:
    images = []
    for first in range(0, len(neutral), BATCH):
        rows = slice(first, first + BATCH)
        posed = model.posed(neutral[rows], pose.rows(rows))
        images.append(render_labels(posed, model.labels, CAMERA, model.faces).numpy())
    return np.concatenate(images)


@torch.no_grad()
def _composed(model: PartFaceModel, face: PartFace) -> Tensor:
    """Unblended network output, as in the paper's table 2."""
    return model.neutral(face, None)


def _fitted_shapes(context: StageContext) -> NDArray[np.float32]:
    return read_table(sorted(context.inputs["fit_photos"].glob("shapes-*.parquet")), "shapes")["vertices"]


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


def _overlap_columns(faces: RunFaces, overlaps: Mapping[Method, PartOverlap]) -> dict[str, object]:
    columns: dict[str, object] = {
        "face_id": [face for _ in overlaps for face in faces.face_id],
        "person": [person for _ in overlaps for person in faces.person],
        "model": [model for model, _ in overlaps for _ in faces.face_id],
        "step": [step for _, step in overlaps for _ in faces.face_id],
        "reference": [MASK for _ in overlaps for _ in faces.face_id],
    }
    for key in ("intersection", "union", "predicted_area", "target_area"):
        columns[key] = np.concatenate([getattr(o, key) for o in overlaps.values()])
    return columns


def _summary(overlaps: Mapping[str, PartOverlap]) -> MetricRows:
    metrics = MetricRows()
    for method, overlap in overlaps.items():
        summary = overlap.summary()
        for part in PARTS:
            metrics.add(method, part, "iou", summary[part], int(summary[f"n_{part}"]))
        n = int(summary["n_photos"])
        metrics.add(method, "all", "mean_of_five", summary["mean_of_parts"], n)
        for key in ("frequency_weighted", "micro", "binary_union"):
            metrics.add(method, "all", key, summary[key], n)
        metrics.add(method, "all", "faces", n, n)
    return metrics
