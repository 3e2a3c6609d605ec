"""Numbers worth keeping: rows of the ``metrics`` table."""

from pathlib import Path

from .tables import write_table


class MetricRows:
    """Collects (method, part, metric, value, n) and writes them as one table."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, float, int]] = []

    def add(self, method: str, part: str, metric: str, value: float, n: int) -> None:
        """One number, and over how many faces it was taken."""
        self._rows.append((method, part, metric, float(value), int(n)))

    def write(self, folder: Path, producer: str = "flows") -> None:
        """Write ``metrics.parquet`` into ``folder``."""
        names = ("method", "part", "metric", "value", "n")
        columns = {name: [row[i] for row in self._rows] for i, name in enumerate(names)}
        write_table(folder / "metrics.parquet", "metrics", columns, producer=producer)
