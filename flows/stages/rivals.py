"""compare_rivals: the rivals of the part models from the photograph to the fitted face, treated in all as ours is.

One shard is one rival: each of ``baselines.models``; the global 3DMM under the loss of our fit, with and without
learned modes; and our own parts without modes. The baselines fit their latents, also where our own fit moves controls,
for they have none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting import part_iou
from segmodel import ImageRegressors, RegressorReport, SegmentModel, load_baseline
from segmodel.baselines.whole import WholeFaceModel
from segmodel.pieces import LatentModel

from ..comparison.label_images import label_images
from ..comparison.method_rows import LabelImages, label_columns, overlap_columns
from ..comparison.rival_fit import RivalFitter
from ..comparison.shape_error import ShapeErrors, shape_error_columns, shape_errors
from ..contracts import REGIONS
from ..encodings import encode_faces, read_encodings
from ..face_fit import FittedFaces, Ignore, Masks, PartFitter
from ..global_fit import GlobalFitter
from ..methods import (
    FINE_TUNED,
    FITTED,
    GLOBAL_3DMM,
    GLOBAL_3DMM_WITH_MODES,
    OURS_WITHOUT_MODES,
    PRE_TRAINED,
    RIVALS,
    Method,
    method_name,
)
from ..metrics import MetricRows
from ..part_modes import WHOLE_MODES, read_modes, shifts_in_x
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, training_faces, validation_faces
from ..run_model import Latents, PartFace, PartFaceModel, load_controllers, load_part_face_model, load_run_encoder
from ..settings import FitConfig
from ..tables import read_table, write_table
from .finetune import Tuning, fine_tune_on_photos
from .fit import start_of
from .regressors import kept_back, pretrained_regressors

GLOBAL, GLOBAL_MODES, NO_MODES = "global-3dmm", "global-3dmm-modes", "neo3df-no-modes"
TITLES = {**RIVALS, GLOBAL: GLOBAL_3DMM, GLOBAL_MODES: GLOBAL_3DMM_WITH_MODES, NO_MODES: OURS_WITHOUT_MODES}

Rival = SegmentModel | WholeFaceModel
FitRows = Callable[[slice], FittedFaces]


@dataclass(frozen=True)
class Photos:
    """The validation faces, their masks and the pixels to ignore."""

    faces: RunFaces
    masks: Masks
    ignore: Ignore


@dataclass(frozen=True)
class Outcome:
    """What is kept of a method's faces: their label images, and how far their neutral shapes are off."""

    images: LabelImages
    errors: ShapeErrors


def shards(context: StageContext) -> list[str]:
    """Names of the rivals; none where no baseline is named."""
    models = list(dict.fromkeys(context.config.baselines.models))
    if not models:
        return []
    if not context.config.fit.modes:
        return [*models, GLOBAL]
    with_modes = [GLOBAL_MODES] if (context.inputs["learn_modes"] / WHOLE_MODES).exists() else []
    return [*models, GLOBAL, *with_modes, NO_MODES]


def run_shard(context: StageContext, shard: str) -> None:
    """Bring one rival to the validation faces and write its overlaps, shape errors and label images."""
    torch.set_num_threads(1)
    model = load_part_face_model(context.inputs)
    faces = validation_faces(load_faces(context.inputs["build_dataset"]), context.config.fit.photos)
    photos, metrics = Photos(faces, *faces.masks()), MetricRows()
    context.progress.start(TITLES[shard], len(faces) * (3 if shard in RIVALS else 1))
    if shard in RIVALS:
        outcomes = _by_network_and_fit(context, model, photos, shard, metrics)
    else:
        fit_rows = _fit_of_ours(context, model, photos, shard)
        outcomes = {FITTED: _fitted(context, model, photos, fit_rows, TITLES[shard], metrics)}
    context.progress.finish()
    _write(context, model, photos, shard, {(TITLES[shard], step): outcome for step, outcome in outcomes.items()})
    metrics.write(context.out, file=f"metrics-{shard}.parquet")


def finish(context: StageContext) -> None:
    """The numbers of all rivals in one table."""
    metrics = MetricRows()
    for shard in shards(context):
        metrics.extend(read_table(context.out / f"metrics-{shard}.parquet", "metrics"))
    metrics.write(context.out)


def _by_network_and_fit(
    context: StageContext, model: PartFaceModel, photos: Photos, name: str, metrics: MetricRows
) -> dict[str, Outcome]:
    """A rival's faces by its network before and after fine-tuning, and fitted."""
    faces, folder = photos.faces, context.inputs["train_regressors"]
    rival = load_baseline(name, context.inputs["train_baselines"] / name, model.face_model.topology_hash())
    encoder = load_run_encoder(folder, context.config.regressors.encoder)
    known, trained_on = read_encodings(folder), training_faces(load_faces(context.inputs["build_dataset"]))
    learned_from = encode_faces(encoder, trained_on, known).embeddings
    regressors, report = pretrained_regressors(context, rival, model.face_model, trained_on, learned_from)
    regressors.save(context.out / f"regressors-{name}-{PRE_TRAINED}.safetensors")
    embeddings = encode_faces(encoder, faces, known).embeddings
    outcomes = {PRE_TRAINED: _predicted(model, photos, rival, _latents(regressors, embeddings))}
    context.progress.advance(len(faces), PRE_TRAINED)
    _note_training(metrics, TITLES[name], report, kept_back(trained_on, context.config.seed).sum())

    tuning = fine_tune_on_photos(context, model, rival, regressors, encoder)
    regressors.save(context.out / f"regressors-{name}-{FINE_TUNED}.safetensors")
    if tuning.encoder_trained:
        embeddings = encode_faces(encoder, faces, {}).embeddings
    latents = _latents(regressors, embeddings)
    outcomes[FINE_TUNED] = _predicted(model, photos, rival, latents)
    context.progress.advance(len(faces), FINE_TUNED)
    _note_tuning(metrics, TITLES[name], tuning)

    fit_rows = _fit_of_rival(context.config.fit, model, photos, rival, latents)
    outcomes[FITTED] = _fitted(context, model, photos, fit_rows, TITLES[name], metrics)
    return outcomes


@torch.no_grad()
def _latents(regressors: ImageRegressors, embeddings: NDArray[np.float32]) -> Latents:
    return regressors(torch.from_numpy(embeddings))


@torch.no_grad()
def _predicted(model: PartFaceModel, photos: Photos, rival: LatentModel, latents: Latents) -> Outcome:
    """Faces as a network answers them: unblended, with the estimated expression and pose."""
    neutral = rival.compose(latents)[0]
    return Outcome(label_images(model, neutral, photos.faces.pose), _errors(model, photos, neutral))


def _fit_of_rival(
    settings: FitConfig, model: PartFaceModel, photos: Photos, rival: Rival, predicted: Latents
) -> FitRows:
    """What fits some of the faces with a rival: with parts like our own if it has any, else as one."""
    pose, masks, ignore = photos.faces.pose, photos.masks, photos.ignore
    settings = settings.model_copy(update={"variables": "latents", "modes": False})
    estimated = torch.from_numpy(model.face_model.shape(photos.faces.identity))
    from_network = settings.start == "network"
    if isinstance(rival, SegmentModel):
        parts = replace(model, segments=rival, directions=shifts_in_x(rival.layout))
        with torch.no_grad():
            offsets = rival.offsets(predicted["rest"])
            start = PartFace(predicted, offsets) if from_network else parts.encode(estimated)
        fitter = PartFitter(parts, None, settings)
        return lambda rows: fitter.fit(start.rows(rows), pose.rows(rows), masks[rows], ignore[rows])
    whole = RivalFitter(model, rival, settings)
    with torch.no_grad():
        latents = predicted if from_network else rival.encode(estimated)
    return lambda rows: whole.fit(
        {name: z[rows] for name, z in latents.items()}, pose.rows(rows), masks[rows], ignore[rows]
    )


def _fit_of_ours(context: StageContext, model: PartFaceModel, photos: Photos, shard: str) -> FitRows:
    """What fits some of the faces with the global 3DMM, or with our parts and no modes."""
    settings, pose, masks, ignore = context.config.fit, photos.faces.pose, photos.masks, photos.ignore
    if shard == NO_MODES:
        variables = "latents" if settings.variables == "global" else settings.variables
        settings = settings.model_copy(update={"variables": variables, "modes": False})
        parts = PartFitter(model, load_controllers(context.inputs, model)[0], settings)
        start = start_of(context, model, photos.faces)
        return lambda rows: parts.fit(start.rows(rows), pose.rows(rows), masks[rows], ignore[rows])
    settings = settings.model_copy(update={"variables": "global", "modes": shard == GLOBAL_MODES})
    modes = read_modes(context.inputs["learn_modes"] / WHOLE_MODES, model.face_model.topology_hash())
    whole, identity = GlobalFitter(model, modes, 0, settings), torch.from_numpy(photos.faces.identity.copy())
    return lambda rows: whole.fit(identity[rows], pose.rows(rows), masks[rows], ignore[rows])


def _fitted(
    context: StageContext, model: PartFaceModel, photos: Photos, fit_rows: FitRows, title: str, metrics: MetricRows
) -> Outcome:
    """Fit all faces in batches; note what the fit cost in realism."""
    size, count = context.config.fit.batch_size, len(photos.faces)
    images, neutral, numbers = [], [], []
    for first in range(0, count, size):
        fitted = fit_rows(slice(first, first + size))
        images.append(fitted.result.labels_after)
        neutral.append(fitted.neutral)
        numbers.append(_realism(fitted))
        context.progress.advance(len(fitted.neutral), FITTED)
    for key in numbers[0]:
        metrics.add(title, "all", key, np.concatenate([batch[key] for batch in numbers]).mean(), count)
    return Outcome(np.concatenate(images), _errors(model, photos, torch.cat(neutral)))


def _realism(fitted: FittedFaces) -> dict[str, NDArray[np.generic]]:
    """What the overlap of B faces cost: see the ``fits`` table."""
    return {
        "flipped_fraction": fitted.result.flipped,
        "moved_mean": fitted.result.moved_mean,
        "latent_rms": fitted.sigma.square().mean(1).sqrt().numpy(),
        "set_aside": fitted.result.failed.astype(float),
    }


def _errors(model: PartFaceModel, photos: Photos, neutral: Tensor) -> ShapeErrors:
    return shape_errors(neutral.numpy(), photos.faces, model.face_model, model.segments.layout)


def _note_training(metrics: MetricRows, title: str, report: RegressorReport, n_held_out: int) -> None:
    """Validation error of what the regressors were trained on: each region, or the whole face."""
    for piece, quality in report.regions.items():
        part = piece if piece in REGIONS else "all"
        metrics.add(method_name(title, PRE_TRAINED), part, "rms_mm", quality.rms_mm, n_held_out)


def _note_tuning(metrics: MetricRows, title: str, tuning: Tuning) -> None:
    """Validation losses before and after fine-tuning."""
    validation = [entry for entry in tuning.report.history if entry["split"] == "validation"]
    for step, entry in ((PRE_TRAINED, validation[0]), (FINE_TUNED, validation[tuning.report.best_epoch])):
        for key in ("total", "shape", "parts", "kl"):
            metrics.add(method_name(title, step), "all", key, float(entry[key]), tuning.n_held_out)


def _write(
    context: StageContext, model: PartFaceModel, photos: Photos, shard: str, outcomes: dict[Method, Outcome]
) -> None:
    images = {method: outcome.images for method, outcome in outcomes.items()}
    overlaps = {method: part_iou(drawn, photos.masks) for method, drawn in images.items()}
    tables = {
        "overlaps": overlap_columns(photos.faces, overlaps),
        "shape_errors": shape_error_columns(photos.faces, {m: outcome.errors for m, outcome in outcomes.items()}),
        "drawn_labels": label_columns(photos.faces, images),
    }
    topology = model.face_model.topology_hash()
    for table, columns in tables.items():
        write_table(context.out / f"{table}-{shard}.parquet", table, columns, topology_hash=topology)
