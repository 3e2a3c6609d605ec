"""fit_controllers: the linear maps from 30 named measurements to the latents (NEO-3DF section 3.4)."""

import numpy as np
import torch
from numpy.typing import NDArray

from editing import ControllerMap, MeasurementLandmarks, ResponseMatrix, measure, response

from ..contracts import REGIONS
from ..controller_table import write_controllers
from ..metrics import MetricRows
from ..pipeline import StageContext
from ..run_model import PartFaceModel, load_part_face_model, measuring_points
from ..tables import write_table

BATCH = 64


def run(context: StageContext) -> None:
    """Measure decoded random faces, fit the maps, and measure how edits respond."""
    config = context.config.controllers
    model = load_part_face_model(context.inputs)
    points = measuring_points(model)
    identity = torch.from_numpy(model.face_model.sample(config.n_faces, context.config.seed + 1))
    latents: dict[str, list[NDArray[np.float32]]] = {region: [] for region in REGIONS}
    measured: dict[str, list[NDArray[np.float64]]] = {region: [] for region in REGIONS}
    context.progress.start("measure", config.n_faces)
    for begin in range(0, config.n_faces, BATCH):
        shapes = torch.from_numpy(model.face_model.shape(identity[begin : begin + BATCH].numpy()))
        with torch.no_grad():
            z = model.segments.encode(shapes)
            values = _measure_decoded(model, points, z)
        for region in REGIONS:
            latents[region].append(z[region].numpy())
            measured[region].append(values[region])
        context.progress.advance(len(shapes))
    context.progress.finish()
    features = {region: np.concatenate(rows) for region, rows in measured.items()}
    controllers = ControllerMap.fit(
        features, {r: np.concatenate(rows) for r, rows in latents.items()}, ridge=config.ridge
    )
    matrix = response(
        controllers,
        lambda z: _measure_decoded(
            model, points, {r: torch.from_numpy(np.asarray(v, np.float32)) for r, v in z.items()}
        ),
        controllers.base_latents(),
    )
    topology = model.face_model.topology_hash()
    write_controllers(context.out, controllers, matrix, topology)
    ids = [f"sample-{i:05d}" for i in range(config.n_faces)]
    table = {"face_id": ids, **{region: values.astype(np.float32) for region, values in features.items()}}
    write_table(context.out / "measurements.parquet", "measurements", table, topology_hash=topology, producer="editing")
    _metrics(controllers, matrix, config.n_faces).write(context.out)


@torch.no_grad()
def _measure_decoded(
    model: PartFaceModel, points: MeasurementLandmarks, latents: dict[str, torch.Tensor]
) -> dict[str, NDArray[np.float64]]:
    """Measurements of the reconstruction: a latent cannot carry all of a measurement of the original."""
    return measure(model.segments.compose(latents)[0].numpy(), points)


def _metrics(controllers: ControllerMap, matrix: ResponseMatrix, n: int) -> MetricRows:
    metrics = MetricRows()
    for region, fitted in controllers.regions.items():
        metrics.add("controllers", region, "r2", fitted.r2, n)
        metrics.add("controllers", region, "collinear_pairs", len(fitted.collinear), n)
        metrics.add("controllers", region, "least_response", np.diag(matrix.block(region)).min(), n)
    return metrics
