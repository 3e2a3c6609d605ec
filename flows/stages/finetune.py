"""fine_tune: image regressors and offsets against 2D parsing, through the rasteriser (NEO-3DF eq. 2)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitting import PartRenderer, soften
from segmodel import FineTuneSettings, ImageRegressors, LinearShapes, fine_tune

from ..encodings import encode_faces, read_encodings
from ..face_fit import CAMERA
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import load_faces, masked_training_faces
from ..run_model import Pose, load_part_face_model, load_run_encoder
from ..tables import write_table
from .regressors import kept_back

Rows = NDArray[np.int64]


def run(context: StageContext) -> None:
    """Fine-tune on the clean training photos with masks; the encoder's encodings, found by key, stay as they are."""
    config = context.config.fine_tune
    model = load_part_face_model(context.inputs)
    all_faces = load_faces(context.inputs["build_dataset"])
    faces = masked_training_faces(all_faces)
    held_out = kept_back(all_faces, context.config.seed)[faces.rows]
    masks, ignore = faces.masks()
    parts = np.stack([masks == label for label in range(2, 7)], -1) & ~ignore[..., None]
    pretrained = context.inputs["train_regressors"]
    encoder = load_run_encoder(pretrained, context.config.regressors.encoder)
    encodings = torch.from_numpy(encode_faces(encoder, faces, read_encodings(pretrained)).embeddings)
    renderer = PartRenderer(model.faces, model.labels, CAMERA)
    pose, seen = faces.pose, torch.from_numpy(~ignore)

    def render_parts(vertices: Tensor, rows: Rows) -> Tensor:
        chosen = torch.from_numpy(rows)
        at = Pose(pose.expression[chosen], pose.angles[chosen], pose.translation[chosen])
        return renderer.parts(model.posed(vertices, at)) * seen[chosen][..., None]

    regressors = ImageRegressors.load(pretrained / "regressors.safetensors")
    report = fine_tune(
        model.segments,
        regressors,
        lambda rows: encodings[torch.from_numpy(rows)],
        LinearShapes(model.face_model.mean, model.face_model.id_basis, faces.identity),
        render_parts,
        parts,
        soften,
        FineTuneSettings(
            epochs=config.epochs,
            batch=config.batch,
            lr=config.lr,
            encoding_noise=config.encoding_noise,
            lambda_kl=config.lambda_kl,
            balance=config.balance,
            seed=context.config.seed,
        ),
        np.flatnonzero(held_out),
    )
    regressors.save(context.out / "regressors.safetensors")
    torch.save(model.segments.offset_regressor.state_dict(), context.out / "offsets.pt")
    metrics = MetricRows()
    validation = [entry for entry in report.history if entry["split"] == "validation"]
    for name, entry in (("before", validation[0]), ("after", validation[report.best_epoch])):
        for key in ("total", "shape", "parts", "kl"):
            metrics.add(name, "all", key, float(entry[key]), int(held_out.sum()))
    metrics.write(context.out)
    rows = [
        (f"fine_tune_{entry['split']}", int(entry["epoch"]), key, float(entry[key]))
        for entry in report.history
        for key in ("total", "shape", "parts", "kl")
    ]
    columns = dict(zip(("model", "epoch", "metric", "value"), map(list, zip(*rows, strict=True)), strict=True))
    write_table(context.out / "history.parquet", "history", columns, producer="segmodel")
