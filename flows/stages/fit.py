"""fit_photos: every clean validation face is pulled into line with its mask (NEO-3DF section 4.3)."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ..contracts import PARTS, REGIONS
from ..face_fit import FittedFaces, Ignore, Masks, PartFitter
from ..fit_table import write_fits
from ..global_fit import GlobalFitter
from ..metrics import MetricRows
from ..part_modes import WHOLE_MODES, read_modes
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, validation_faces
from ..run_model import PartFace, PartFaceModel, load_controllers, load_network, load_part_face_model
from ..settings import Photos
from ..tables import read_table, write_table


def shards(context: StageContext) -> list[str]:
    """Names of the shards: runs of validation faces."""
    count = len(_faces(context.inputs["build_dataset"], context.config.fit.photos))
    return [f"{i:05d}" for i in range(-(-count // context.config.fit.shard_size))]


def run_shard(context: StageContext, shard: str) -> None:
    """Fit one shard in batches and write its fits, shapes and latents."""
    torch.set_num_threads(1)
    settings = context.config.fit
    model = _model(*_key(context))
    first = int(shard) * settings.shard_size
    all_faces = _faces(context.inputs["build_dataset"], context.config.fit.photos)
    rows = np.arange(len(all_faces))
    chosen = all_faces.where((rows >= first) & (rows < first + settings.shard_size))
    masks, ignore = chosen.masks()
    fit_rows = _fit_rows(context, model, chosen, masks, ignore)
    fitted = []
    context.progress.start(f"fit {shard}", len(chosen))
    for begin in range(0, len(chosen), settings.batch_size):
        batch = slice(begin, begin + settings.batch_size)
        fitted.append(fit_rows(batch))
        context.progress.advance(len(masks[batch]))
    context.progress.finish()
    _write(context, chosen, fitted, shard)


def _fit_rows(
    context: StageContext, model: PartFaceModel, faces: RunFaces, masks: Masks, ignore: Ignore
) -> Callable[[slice], FittedFaces]:
    """What fits some of the faces, with parts or with the global face model."""
    settings, pose = context.config.fit, faces.pose
    controllers, _ = load_controllers(context.inputs, model)
    if settings.variables == "global":
        n_controls = sum(len(controllers.rows(part)) for part in PARTS)
        modes = read_modes(context.inputs["learn_modes"] / WHOLE_MODES, model.face_model.topology_hash())
        whole = GlobalFitter(model, modes, n_controls, settings)
        identity = torch.from_numpy(faces.identity.copy())
        return lambda rows: whole.fit(identity[rows], pose.rows(rows), masks[rows], ignore[rows])
    parts, start = PartFitter(model, controllers, settings), start_of(context, model, faces)
    return lambda rows: parts.fit(start.rows(rows), pose.rows(rows), masks[rows], ignore[rows])


def finish(context: StageContext) -> None:
    """Realism over all fits; what they cost is in the stage's manifest, so that equal fits are equal bytes."""
    fits = read_table(sorted(context.out.glob("fits-*.parquet")), "fits")
    n = len(fits["face_id"])
    metrics = MetricRows()
    for key in ("flipped_fraction", "moved_mean", "moved_p99", "latent_rms", "latent_beyond_3"):
        metrics.add(context.config.fit.variables, "all", key, fits[key].mean(), n)
    for k, part in enumerate(PARTS):
        seen = ~np.isnan(fits["iou_before"][:, k])
        gain = fits["iou_after"][seen, k] - fits["iou_before"][seen, k]
        metrics.add(context.config.fit.variables, part, "mean_gain_iou", gain.mean(), seen.sum())
        metrics.add(context.config.fit.variables, part, "share_improved", (gain > 0).mean(), seen.sum())
    metrics.write(context.out)


@lru_cache(maxsize=2)
def _faces(folder: Path, photos: Photos) -> RunFaces:
    return validation_faces(load_faces(folder), photos)


MODEL_STAGES = ("build_dataset", "train_segments", "learn_modes")


def _key(context: StageContext) -> tuple[Path, ...]:
    return tuple(context.inputs[stage] for stage in MODEL_STAGES)


@lru_cache(maxsize=2)
def _model(*folders: Path) -> PartFaceModel:
    return load_part_face_model(dict(zip(MODEL_STAGES, folders, strict=True)))


def start_of(context: StageContext, model: PartFaceModel, faces: RunFaces) -> PartFace:
    """Where the fit begins: the fine-tuned network's face, or the landmark fit taken apart."""
    if context.config.fit.start == "network":
        network = load_network(context.inputs, context.config.regressors.encoder, fine_tuned=True)
        return network(faces.crops(), faces.five_points)
    with torch.no_grad():
        return model.encode(torch.from_numpy(model.face_model.shape(faces.identity)))


def _write(context: StageContext, faces: RunFaces, fitted: list[FittedFaces], shard: str) -> None:
    settings, topology = context.config.fit, _model(*_key(context)).face_model.topology_hash()
    write_fits(context.out / f"fits-{shard}.parquet", faces.face_id, fitted, settings, topology)
    shapes = {"face_id": faces.face_id, "vertices": np.concatenate([f.neutral.numpy() for f in fitted])}
    write_table(context.out / f"shapes-{shard}.parquet", "shapes", shapes, topology_hash=topology, producer="segmodel")
    latents = {f"z_{r}": np.concatenate([f.base.latents[r].numpy() for f in fitted]) for r in REGIONS}
    write_table(
        context.out / f"latents-{shard}.parquet",
        "latents",
        {"face_id": faces.face_id, **latents},
        topology_hash=topology,
        producer="segmodel",
    )
