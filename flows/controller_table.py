"""The controller map as rows of the ``controllers`` table, and back."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from editing import ControllerMap, ResponseMatrix

from .tables import read_table, write_table

LOW, HIGH = -3.0, 3.0


def write_controllers(folder: Path, controllers: ControllerMap, matrix: ResponseMatrix, topology_hash: str) -> Path:
    """One row per controller; latent rows are padded with zeros, ``latent_size`` says how many numbers count."""
    longest = max(len(fitted.mean_latent) for fitted in controllers.regions.values())
    diagonal = np.diag(matrix.values)
    others = np.abs(matrix.values - np.diag(diagonal)).max(1)
    columns: dict[str, list[object]] = {key: [] for key in _COLUMNS}
    for region, fitted in controllers.regions.items():
        for j, name in enumerate(fitted.names):
            where = matrix.names.index(f"{region}.{name}")
            pairs = [f"{b}={r:.4f}" for a, b, r in fitted.collinear if a == name]
            row = (
                region,
                name,
                "mm",
                fitted.mean_measurement[j],
                fitted.sigma[j],
                diagonal[where],
                others[where],
                fitted.r2,
                ";".join(pairs),
                LOW,
                HIGH,
                len(fitted.mean_latent),
                _padded(fitted.matrix[j], longest),
                _padded(fitted.mean_latent, longest),
            )
            for key, value in zip(_COLUMNS, row, strict=True):
                columns[key].append(value)
    return write_table(
        folder / "controllers.parquet", "controllers", columns, topology_hash=topology_hash, producer="editing"
    )


_COLUMNS = (
    *("part", "name", "unit", "mean", "sigma", "response", "leak", "r2", "collinear", "low", "high"),
    *("latent_size", "mapping", "mean_latent"),
)


def read_controllers(folder: Path, latent_dims: Mapping[str, int]) -> ControllerMap:
    """The map that :func:`write_controllers` stored, for latents of these sizes; what they have more does not move."""
    table = read_table(folder / "controllers.parquet", "controllers")
    stored = {}
    for region in dict.fromkeys(table["part"]):
        rows = [i for i, part in enumerate(table["part"]) if part == region]
        size = int(table["latent_size"][rows[0]])
        names = [table["name"][i] for i in rows]
        pairs = [
            (table["name"][i], *text.split("="))
            for i in rows
            for text in filter(None, table["collinear"][i].split(";"))
        ]
        stored[region] = {
            "names": names,
            "matrix": np.pad(table["mapping"][rows, :size], ((0, 0), (0, latent_dims[region] - size))),
            "sigma": table["sigma"][rows],
            "mean_measurement": table["mean"][rows],
            "mean_latent": _padded(table["mean_latent"][rows[0], :size], latent_dims[region]),
            "r2": table["r2"][rows[0]],
            "collinear": [(a, b, float(r)) for a, b, r in pairs],
        }
    return ControllerMap.from_dict(stored)


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(np.asarray(values, np.float64), (0, length - len(values)))
