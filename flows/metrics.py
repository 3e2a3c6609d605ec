"""Numbers worth keeping: rows of the ``metrics`` table."""

from pathlib import Path

from .tables import Columns, write_table

NAMES = ("method", "part", "metric", "value", "n")


class MetricRows:
    """Collects (method, part, metric, value, n) and writes them as one table."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str, float, int]] = []

    def add(self, method: str, part: str, metric: str, value: float, n: int) -> None:
        """One number, and over how many faces it was taken."""
        self._rows.append((method, part, metric, float(value), int(n)))

    def extend(self, table: Columns) -> None:
        """The rows of a ``metrics`` table that was read."""
        columns = (table[name] for name in NAMES)
        self._rows += zip(*columns, strict=True)

    def write(self, folder: Path, producer: str = "flows", file: str = "metrics.parquet") -> None:
        """Write ``file`` into ``folder``."""
        columns = {name: [row[i] for row in self._rows] for i, name in enumerate(NAMES)}
        write_table(folder / file, "metrics", columns, producer=producer)
