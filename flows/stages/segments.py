"""train_segments: part layout, six part VAEs and the offset regressor on random faces of the face model."""

import numpy as np

from segmodel import (
    LinearShapes,
    OffsetSettings,
    PartLayout,
    SegmentModel,
    VaeReport,
    VaeSettings,
    train_offset_regressor,
    train_segment_vaes,
)

from ..contracts import PARTS, REGIONS
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import load_faces
from ..run_model import load_run_face_model
from ..tables import read_table, write_table

CHECKPOINT = "training.pt"


def run(context: StageContext) -> None:
    """Train, save the model, and write the latents and offsets of the photos' estimated faces."""
    config, seed = context.config.segments, context.config.seed
    face_model = load_run_face_model(context.inputs)
    topology = face_model.topology_hash()
    labels = read_table(context.inputs["transfer_labels"] / "topology_vertices.parquet", "topology_vertices")["label"]
    layout = PartLayout.from_labels(labels, face_model.faces, face_model.mean)
    faces = load_faces(context.inputs["build_dataset"])
    samples = face_model.sample(config.n_shapes, seed)
    shapes = LinearShapes(face_model.mean, face_model.id_basis, samples)

    model, report = _train(context, layout, shapes)
    offsets = train_offset_regressor(model, shapes, OffsetSettings(seed=seed))
    model.radius_mm, model.n_solves = config.radius_mm, config.n_solves
    model.save(context.out / "model")

    estimated = LinearShapes(face_model.mean, face_model.id_basis, faces.identity)
    latents = {f"z_{region}": z.numpy() for region, z in model.latents_of(estimated).items()}
    rows = {"topology_hash": topology, "producer": "segmodel"}
    write_table(context.out / "latents.parquet", "latents", {"face_id": faces.face_id, **latents}, **rows)
    centres = model.box_centres_of(estimated).numpy()
    write_table(context.out / "offsets.parquet", "offsets", {"face_id": faces.face_id, "offset": centres}, **rows)

    metrics = MetricRows()
    for region in REGIONS:
        quality = report.regions[region]
        metrics.add("vae", region, "latent_size", model.latent_dims[region], config.n_shapes)
        metrics.add("vae", region, "vae_rms", quality.rms_mm, config.n_shapes)
        metrics.add("vae", region, "pca_rms", quality.pca_rms_mm, config.n_shapes)
        metrics.add("vae", region, "ratio", quality.ratio, config.n_shapes)
        metrics.add("vae", region, "active_dimensions", quality.active_dims, config.n_shapes)
        metrics.add("vae", region, "kl", quality.kl, config.n_shapes)
        metrics.add("vae", region, "kl_linear", quality.kl_linear, config.n_shapes)
        metrics.add("vae", region, "kept_epoch", quality.epoch, config.n_shapes)
        metrics.add("vae", region, "started_at_pca", report.init == "pca", config.n_shapes)
    for k, part in enumerate(PARTS):
        for axis, name in enumerate("yz"):
            metrics.add("offsets", part, f"r2_{name}", offsets.r2[k, axis], config.n_shapes)
            metrics.add("offsets", part, f"rmse_mm_{name}", offsets.rmse_mm[k, axis], config.n_shapes)
    area = layout.transition(config.radius_mm)
    metrics.add("layout", "all", "transition_vertices", len(area.vertex_ids), 1)
    metrics.add("layout", "all", "free_vertices", len(area.free), 1)
    metrics.write(context.out)
    _history(context, report)
    (context.out / CHECKPOINT).unlink(missing_ok=True)


def _train(context: StageContext, layout: PartLayout, shapes: LinearShapes) -> tuple[SegmentModel, VaeReport]:
    """Train the part VAEs; what an interrupted run of this stage has trained is not trained again."""
    config = context.config.segments
    settings = VaeSettings(
        init=config.init,
        rest_dim=config.rest_dim,
        part_dim=config.part_dim,
        epochs=config.epochs,
        batch=config.batch,
        lr=config.lr,
        lambda_kl=config.lambda_kl,
        lambda_smooth=config.lambda_smooth,
        smoothness=config.smoothness,
        patience=config.patience,
        seed=context.config.seed,
    )
    done = 0

    def on_epoch(epoch: int, loss: float) -> None:
        nonlocal done
        context.progress.advance(epoch - done, f"loss {loss:.1f}")
        done = epoch

    context.progress.start("part VAEs", settings.n_epochs, "epochs")
    trained = train_segment_vaes(layout, shapes, settings, on_epoch=on_epoch, checkpoint=context.out / CHECKPOINT)
    context.progress.finish()
    return trained


def _history(context: StageContext, report: VaeReport) -> None:
    """The training loss and, where it was measured, the held-out error of each epoch."""
    curves = {"loss": report.history, **{f"held_out_mm_{r}": curve for r, curve in report.held_out_mm.items()}}
    rows = [(epoch, name, value) for name, curve in curves.items() for epoch, value in enumerate(curve, 1)]
    write_table(
        context.out / "history.parquet",
        "history",
        {
            "model": ["vae"] * len(rows),
            "epoch": np.array([epoch for epoch, _, _ in rows], np.int64),
            "metric": [name for _, name, _ in rows],
            "value": np.array([value for _, _, value in rows], np.float64),
        },
        producer="segmodel",
    )
