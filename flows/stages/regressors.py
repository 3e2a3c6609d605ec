"""train_regressors: encodings of the photos, and the image regressors F_i from encoding to latents (NEO-3DF 3.3)."""

import numpy as np

from dataset_builder import FaceEncoder, SmallEncoderSettings, load_encoder, train_small_encoder
from segmodel import LinearShapes, RegressorSettings, train_image_regressors

from ..contracts import REGIONS
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, training_faces
from ..run_model import load_part_face_model
from ..tables import write_table


def run(context: StageContext) -> None:
    """Encode every photo, train on the training photos, keep encoder and regressors."""
    config = context.config.regressors
    model = load_part_face_model(context.inputs)
    faces = load_faces(context.inputs["build_dataset"])
    trained_on = training_faces(faces)
    encoder = _encoder(context, trained_on)
    encodings = encoder.encode(faces.crops(), faces.five_points)
    table = {"face_id": faces.face_id, "encoder": [config.encoder] * len(faces), "embedding": encodings}
    write_table(context.out / "encodings.parquet", "encodings", table, producer="dataset_builder")

    face_model = model.face_model
    shapes = LinearShapes(face_model.mean, face_model.id_basis, trained_on.identity)
    regressors, report = train_image_regressors(
        model.segments,
        encodings[trained_on.rows],
        shapes,
        RegressorSettings(
            epochs=config.epochs,
            batch=config.batch,
            lr=config.lr,
            lambda_kl=config.lambda_kl,
            weight_decay=config.weight_decay,
            dropout=config.dropout,
            seed=context.config.seed,
        ),
    )
    regressors.save(context.out / "regressors.safetensors")
    metrics = MetricRows()
    for region in REGIONS:
        quality = report.regions[region]
        metrics.add("F", region, "rms_mm", quality.rms_mm, len(trained_on))
        metrics.add("mean face", region, "rms_mm", quality.mean_face_rms_mm, len(trained_on))
    metrics.write(context.out)


def _encoder(context: StageContext, faces: RunFaces) -> FaceEncoder:
    """The named encoder; the small one is trained here, to tell the identity coefficients that matter most."""
    config = context.config.regressors
    if config.encoder != "small":
        return load_encoder(config.encoder)
    targets = faces.identity[:, : config.encoder_targets]
    spread = targets.std(0).clip(1e-6)
    context.progress.start("small encoder", config.encoder_epochs, "epochs")
    encoder = train_small_encoder(
        faces.crops(),
        (targets - targets.mean(0)) / spread,
        SmallEncoderSettings(epochs=config.encoder_epochs, seed=context.config.seed),
        lambda epoch, epochs, loss, r2: context.progress.advance(1, f"R2 {r2:.2f}"),
    )
    context.progress.finish()
    encoder.save(context.out / "encoder.pt")
    assert np.isfinite(encoder.validation_r2.numpy()).all()
    return encoder
