"""train_regressors: encodings of the photos, and the image regressors F_i from encoding to latents (NEO-3DF 3.3)."""

import shutil

import numpy as np
from numpy.typing import NDArray

from dataset_builder import FaceEncoder, FaceModel, SmallEncoderSettings, load_encoder, train_small_encoder
from segmodel import ImageRegressors, LinearShapes, RegressorReport, RegressorSettings, train_image_regressors
from segmodel.pieces import LatentModel

from ..contracts import REGIONS
from ..encodings import encode_faces, finished_encodings, write_encodings
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_data import RunFaces, load_faces, training_faces
from ..run_model import load_part_face_model

KEPT_BACK = 0.1


def run(context: StageContext) -> None:
    """Encode every photo that no earlier run of this folder has, train on the training photos, keep what was made."""
    config = context.config.regressors
    model = load_part_face_model(context.inputs)
    faces = load_faces(context.inputs["build_dataset"])
    trained_on = training_faces(faces)
    validation_rows = np.flatnonzero(kept_back(trained_on, context.config.seed))
    encoder = _encoder(context, trained_on, validation_rows)
    encodings = encode_faces(encoder, faces, finished_encodings(context.run_dir))
    write_encodings(context.out, faces, config.encoder, encodings)

    chosen = encodings.embeddings[trained_on.rows]
    regressors, report = pretrained_regressors(context, model.segments, model.face_model, trained_on, chosen)
    regressors.save(context.out / "regressors.safetensors")
    metrics = MetricRows()
    for region in REGIONS:
        quality = report.regions[region]
        metrics.add("F", region, "rms_mm", quality.rms_mm, len(validation_rows))
        metrics.add("mean face", region, "rms_mm", quality.mean_face_rms_mm, len(validation_rows))
        r_squared = 1 - (quality.rms_mm / quality.mean_face_rms_mm) ** 2
        metrics.add("F", region, "r_squared", r_squared, len(validation_rows))
    metrics.write(context.out)


def pretrained_regressors(
    context: StageContext,
    decoder: LatentModel,
    face_model: FaceModel,
    faces: RunFaces,
    embeddings: NDArray[np.float32],
) -> tuple[ImageRegressors, RegressorReport]:
    """Regressors from the embeddings (N, E) of training faces to the latents of ``decoder``, with the run's settings.

    They learn from all but the `kept_back` faces, which stop them.
    """
    config, seed = context.config.regressors, context.config.seed
    return train_image_regressors(
        decoder,
        embeddings,
        LinearShapes(face_model.mean, face_model.id_basis, faces.identity),
        RegressorSettings(
            epochs=config.epochs,
            batch=config.batch,
            lr=config.lr,
            lambda_kl=config.lambda_kl,
            weight_decay=config.weight_decay,
            dropout=config.dropout,
            seed=seed,
        ),
        np.flatnonzero(kept_back(faces, seed)),
    )


def kept_back(faces: RunFaces, seed: int) -> NDArray[np.bool_]:
    """Training faces (N,) that stop encoder, regressors and fine-tuning, and that none of them learns from.

    A tenth of those that fine-tuning can use, clean and with a mask, and a tenth of the others; at least one of each.
    """
    random = np.random.default_rng(seed)
    training, usable = faces.split == "train", faces.clean & faces.has_mask
    groups = [random.permutation(faces.rows[training & group]) for group in (usable, ~usable)]
    chosen = [rows[: max(1, round(KEPT_BACK * len(rows)))] for rows in groups]
    return np.isin(faces.rows, np.concatenate(chosen))


def _encoder(context: StageContext, faces: RunFaces, validation_rows: NDArray[np.int64]) -> FaceEncoder:
    """The named encoder; the small one is trained here, to find the landmarks. Weights that are no asset are kept."""
    config, given = context.config.regressors, context.config.regressors.encoder_weights
    if config.encoder != "small":
        if given is not None:
            shutil.copyfile(given, context.out / f"encoder{given.suffix}")
        return load_encoder(config.encoder, given)
    context.progress.start("small encoder", config.encoder_epochs, "epochs")
    encoder = train_small_encoder(
        faces.crops(),
        faces.landmarks,
        SmallEncoderSettings(epochs=config.encoder_epochs, seed=context.config.seed),
        validation_rows,
        lambda epoch, epochs, loss, error: context.progress.advance(1, f"{error:.1f} px"),
    )
    context.progress.finish()
    encoder.save(context.out / "encoder.pt")
    return encoder
