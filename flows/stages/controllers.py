"""fit_controllers: the linear maps from 30 named measurements to the latents (NEO-3DF section 3.4)."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dataset_builder import FaceModel
from editing import (
    ControllerMap,
    MeasurementLandmarks,
    ResponseMatrix,
    latent_lengths,
    measure,
    orthogonalised,
    response,
)
from segmodel import LinearShapes

from ..controller_table import HIGH, LOW, write_controllers
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_model import PartFaceModel, load_part_face_model, measuring_points
from ..tables import write_table

BATCH = 64
Rows = dict[str, NDArray]


def run(context: StageContext) -> None:
    """Measure decoded random faces, fit the maps, and measure how edits respond."""
    config = context.config.controllers
    model = load_part_face_model(context.inputs)
    points = measuring_points(model)

    def decode_and_measure(latents: Rows) -> Rows:
        return measure_decoded(model, points, latents)

    identity = model.face_model.sample(config.n_faces, context.config.seed + 1)
    latents = latents_of(model, faces_of(model.face_model, identity))
    measured = decode_and_measure(latents)
    controllers = ControllerMap.fit(measured, latents, ridge=config.ridge)
    if config.mode == "orthogonal":
        symmetric = latents_of(model, symmetric_faces_of(model.face_model, identity))
        controllers = orthogonalised(
            controllers, decode_and_measure, latents, symmetric=symmetric, longest=config.longest
        )
    up, down = (response(controllers, decode_and_measure, controllers.base_latents(), step) for step in (HIGH, LOW))

    topology = model.face_model.topology_hash()
    write_controllers(context.out, controllers, up, topology)
    ids = [f"sample-{i:05d}" for i in range(config.n_faces)]
    table = {"face_id": ids, **{region: values.astype(np.float32) for region, values in measured.items()}}
    write_table(context.out / "measurements.parquet", "measurements", table, topology_hash=topology, producer="editing")
    _metrics(controllers, up, down, latents).write(context.out)


def faces_of(face_model: FaceModel, identity: NDArray[np.float32]) -> LinearShapes:
    """Neutral faces of identity coefficients (N, Ni)."""
    return LinearShapes(face_model.mean, face_model.id_basis, identity)


def symmetric_faces_of(face_model: FaceModel, identity: NDArray[np.float32]) -> LinearShapes:
    """The same faces averaged with their mirror images; as they are where the face model has no mirror map."""
    if (mirror := face_model.mirror) is None:
        return faces_of(face_model, identity)
    sign = np.array([-1, 1, 1], np.float32)
    mean = (face_model.mean + face_model.mean[mirror] * sign) / 2
    return LinearShapes(mean, (face_model.id_basis + face_model.id_basis[mirror] * sign[:, None]) / 2, identity)


def latents_of(model: PartFaceModel, faces: LinearShapes) -> Rows:
    """Latents {region: (N, D)} of faces."""
    return {region: z.numpy() for region, z in model.segments.latents_of(faces).items()}


@torch.no_grad()
def measure_decoded(model: PartFaceModel, points: MeasurementLandmarks, latents: Mapping[str, ArrayLike]) -> Rows:
    """Measurements {region: (B, M)} mm of decoded faces: a latent cannot carry all of a measurement of the original."""
    z = {region: torch.from_numpy(np.asarray(rows, np.float32)) for region, rows in latents.items()}
    parts = [
        measure(model.segments.compose({r: rows[b : b + BATCH] for r, rows in z.items()})[0].numpy(), points)
        for b in range(0, len(z["rest"]), BATCH)
    ]
    return {region: np.concatenate([part[region] for part in parts]) for region in parts[0]}


def _metrics(controllers: ControllerMap, up: ResponseMatrix, down: ResponseMatrix, latents: Rows) -> MetricRows:
    metrics, n = MetricRows(), len(latents["rest"])
    lengths = latent_lengths(controllers, latents)
    for region, fitted in controllers.regions.items():
        own = np.stack([np.diag(matrix.block(region)) for matrix in (up, down)])
        metrics.add("controllers", region, "r2", fitted.r2, n)
        metrics.add("controllers", region, "collinear_pairs", len(fitted.collinear), n)
        metrics.add("controllers", region, "least_response", own.min(), n)
        metrics.add("controllers", region, "greatest_response", own.max(), n)
        metrics.add(
            "controllers", region, "cross_response", (up.cross_response(region) + down.cross_response(region)) / 2, n
        )
        metrics.add("controllers", region, "longest", lengths[region].max(), n)
        for name, plus, minus in zip(fitted.names, *own, strict=True):
            metrics.add("controllers", region, f"response_up.{name}", plus, n)
            metrics.add("controllers", region, f"response_down.{name}", minus, n)
    return metrics
