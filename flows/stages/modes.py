"""learn_modes: what the part models lack to cover the masks of the training faces, as linear modes of each part."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fitting import learn_global_modes, learn_part_modes, register_free_form, rotation_matrix
from fitting.modes import WHOLE

from ..contracts import PARTS
from ..face_fit import CAMERA, FittedFaces, Ignore, Masks, PartFitter
from ..global_fit import GlobalFitter
from ..metrics import MetricRows
from ..part_modes import PART_MODES, WHOLE_MODES, shifts_in_x
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, masked_training_faces
from ..run_model import PartFaceModel, load_part_face_model
from ..settings import FitConfig
from ..tables import read_table, write_table

PARTS_RESIDUAL, WHOLE_RESIDUAL = "part_residual", "whole_residual"


def shards(context: StageContext) -> list[str]:
    """Names of the shards: runs of clean training faces; none where no modes are asked for."""
    config = context.config.modes
    if not config.n_modes:
        return []
    count = len(_faces(context.inputs["build_dataset"]))
    return [f"{i:05d}" for i in range(-(-count // config.shard_size))]


def run_shard(context: StageContext, shard: str) -> None:
    """Fit one shard as far as the models go, then move it freely onto its masks, and keep that motion."""
    torch.set_num_threads(1)
    config = context.config.modes
    model = _model(context.inputs["build_dataset"], context.inputs["train_segments"])
    faces = _faces(context.inputs["build_dataset"])
    rows = np.arange(len(faces))
    first = int(shard) * config.shard_size
    chosen = faces.where((rows >= first) & (rows < first + config.shard_size))
    masks, ignore = chosen.masks()
    settings = FitConfig(
        variables="latents",
        offsets="xyz",
        expression=True,
        pose=True,
        iterations=config.iterations,
        prior=config.prior,
        ramp_px=config.ramp_px,
    )
    parts = PartFitter(model, None, settings)
    with torch.no_grad():
        start = model.encode(torch.from_numpy(model.face_model.shape(chosen.identity)))
    whole = GlobalFitter(model, None, 0, settings.model_copy(update={"variables": "global", "blend": False}))
    identity = torch.from_numpy(np.array(chosen.identity))
    residuals: dict[str, list[NDArray[np.float32]]] = {PARTS_RESIDUAL: [], WHOLE_RESIDUAL: []}
    context.progress.start(f"modes {shard}", len(chosen))
    for begin in range(0, len(chosen), config.batch_size):
        batch = slice(begin, begin + config.batch_size)
        fitted = parts.fit(start.rows(batch), chosen.pose.rows(batch), masks[batch], ignore[batch])
        residuals[PARTS_RESIDUAL].append(_residual(context, model, fitted, masks[batch], ignore[batch]))
        if config.global_modes:
            fitted = whole.fit(identity[batch], chosen.pose.rows(batch), masks[batch], ignore[batch])
            residuals[WHOLE_RESIDUAL].append(_residual(context, model, fitted, masks[batch], ignore[batch]))
        context.progress.advance(len(masks[batch]))
    context.progress.finish()
    for name, moves in residuals.items():
        if moves:
            columns = {"face_id": chosen.face_id, "vertices": np.concatenate(moves)}
            topology = model.face_model.topology_hash()
            write_table(context.out / f"{name}-{shard}.parquet", "shapes", columns, topology_hash=topology)


@torch.no_grad()
def _neutral_frame(displacement: torch.Tensor, angles: torch.Tensor) -> NDArray[np.float32]:
    """Displacements (B, V, 3) of the camera frame in the frame of the neutral face."""
    return (displacement @ rotation_matrix(angles)).numpy()


def _residual(
    context: StageContext, model: PartFaceModel, fitted: FittedFaces, masks: Masks, ignore: Ignore
) -> NDArray[np.float32]:
    """How fitted faces still have to move, (B, V, 3) mm in the frame of the neutral face."""
    free = register_free_form(
        fitted.result.vertices,
        masks,
        CAMERA,
        faces=model.faces,
        labels=model.labels,
        ignore=ignore,
        iterations=context.config.modes.free_form_iterations,
    )
    return _neutral_frame(free.displacement, fitted.pose.angles)


def finish(context: StageContext) -> None:
    """Learn the modes from all shards; without any, the parts get their shift in x and nothing else."""
    config = context.config.modes
    model = _model(context.inputs["build_dataset"], context.inputs["train_segments"])
    layout, mirror = model.segments.layout, model.face_model.mirror
    topology, metrics = model.face_model.topology_hash(), MetricRows()
    if config.n_modes:
        moves = _read(context.out, PARTS_RESIDUAL)
        modes = learn_part_modes(moves, layout.labels, n_modes=config.n_modes, mirror=mirror)
        modes.save(context.out / PART_MODES, topology)
        for part, share in modes.energy.items():
            metrics.add("part modes", part, "energy", share, len(moves))
    if config.n_modes and config.global_modes:
        moves = _read(context.out, WHOLE_RESIDUAL)
        modes = learn_global_modes(moves, n_modes=len(PARTS) * config.n_modes, mirror=mirror)
        modes.save(context.out / WHOLE_MODES, topology)
        metrics.add("global modes", "all", "energy", modes.energy[WHOLE], len(moves))
    metrics.write(context.out)


def _read(folder: Path, name: str) -> NDArray[np.float32]:
    return read_table(sorted(folder.glob(f"{name}-*.parquet")), "shapes")["vertices"]


@lru_cache(maxsize=2)
def _faces(folder: Path) -> RunFaces:
    return masked_training_faces(load_faces(folder))


@lru_cache(maxsize=2)
def _model(dataset: Path, segments: Path) -> PartFaceModel:
    model = load_part_face_model({"build_dataset": dataset, "train_segments": segments})
    return PartFaceModel(model.face_model, model.segments, shifts_in_x(model.segments.layout))
