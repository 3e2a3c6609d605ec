import csv
import os
from pathlib import Path

import numpy as np
import pytest

FIVE_POINTS = ("imgLeftEye", "imgRightEye", "nose", "imgLeftMouth", "imgRightMouth")


@pytest.fixture(scope="session")
def recorded_five_points():
    """Five points (5, 2) in photo pixels by file, as the manifest of the shared photographs has them."""
    if "NEO3DF_ASSETS" not in os.environ:
        pytest.skip("NEO3DF_ASSETS is not set: no photographs")
    names = [f"l5_{name}_{axis}" for name in FIVE_POINTS for axis in "xy"]
    with (Path(os.environ["NEO3DF_ASSETS"]) / "manifest.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row[names[0]]]
    return {row["file"]: np.array([float(row[name]) for name in names]).reshape(5, 2) for row in rows}
