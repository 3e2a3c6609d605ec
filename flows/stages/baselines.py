"""train_baselines: the rivals of the part models that are named, on the faces the part models learned from."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segmodel import BaselineSettings, LinearShapes, SegmentModel, SwapSettings, train_baseline

from ..metrics import MetricRows
from ..pipeline import StageContext
from ..progress import Progress
from ..run_data import load_faces
from ..run_model import load_run_face_model
from ..tables import write_table

PERCENT = 100


def run(context: StageContext) -> None:
    """Train each model, save it, and write its history, its errors and the latents of the photos' estimated faces."""
    metrics = MetricRows()
    names = tuple(dict.fromkeys(context.config.baselines.models))
    if names:
        _train(context, names, metrics)
    metrics.write(context.out)


def _train(context: StageContext, names: Iterable[str], metrics: MetricRows) -> None:
    config, seed = context.config.baselines, context.config.seed
    face_model = load_run_face_model(context.inputs)
    segments = SegmentModel.load(context.inputs["train_segments"] / "model")
    faces = load_faces(context.inputs["build_dataset"])
    n_shapes = context.config.segments.n_shapes
    shapes = LinearShapes(face_model.mean, face_model.id_basis, face_model.sample(n_shapes, seed))
    estimated = LinearShapes(face_model.mean, face_model.id_basis, faces.identity)
    settings = BaselineSettings(
        rest_dim=segments.latent_dims["rest"],
        part_dim=segments.latent_dims["nose"],
        epochs=config.epochs,
        swap=SwapSettings(steps=config.steps),
        seed=seed,
    )
    for name in names:
        context.progress.start(name, PERCENT, "%")
        model, report = train_baseline(name, segments.layout, shapes, settings, on_progress=_Percent(context.progress))
        context.progress.finish()
        model.save(context.out / name)
        latents = {f"z_{key}": z.numpy() for key, z in model.latents_of(estimated).items()}
        write_table(
            context.out / f"latents-{name}.parquet",
            "face_latents" if list(latents) == ["z_face"] else "latents",
            {"face_id": faces.face_id, **latents},
            topology_hash=face_model.topology_hash(),
            producer="segmodel",
        )
        held_out = round(settings.validation_fraction * n_shapes)
        for region, rms in report.rms_mm.items():
            metrics.add(name, "all" if region == "face" else region, "rms", rms, held_out)
        metrics.add(name, "all", "seconds", report.seconds, n_shapes)
        if report.history:
            _write_history(context.out / f"history-{name}.parquet", name, report.history)


class _Percent:
    """Tells a progress count of hundredths how much of a training is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told = 0

    def __call__(self, share: float, loss: float) -> None:
        now = int(PERCENT * share)
        self._progress.advance(now - self._told, f"loss {loss:.3g}")
        self._told = now


def _write_history(path: Path, name: str, history: dict[str, list[float]]) -> None:
    """One row per quantity and record; ``epoch`` counts LD-VAE's steps."""
    counter = "epoch" if "epoch" in history else "step"
    quantities = [key for key in history if key != counter]
    records = len(history[counter])
    columns = {
        "model": [name] * (records * len(quantities)),
        "epoch": np.tile(np.array(history[counter], np.int64), len(quantities)),
        "metric": [key for key in quantities for _ in range(records)],
        "value": np.concatenate([np.array(history[key], np.float64) for key in quantities]),
    }
    write_table(path, "history", columns, producer="segmodel")
