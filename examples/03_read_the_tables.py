"""Read a run's tables with DuckDB: no neo3df needed.

Usage: python examples/03_read_the_tables.py [RUN], by default runs/demo.
"""

import json
import sys
from pathlib import Path

import duckdb

run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
stages = json.loads((run / "run.json").read_text())["stages"]
folder = {stage: run / f"{stage}-{key}" for stage, key in stages.items()}

print("mean IoU per method and part")
print(
    duckdb.sql(f"""
        PIVOT (SELECT method, part, round(value, 3) AS iou
               FROM '{folder["evaluate"]}/metrics.parquet' WHERE metric = 'iou')
        ON part USING first(iou) ORDER BY nose
    """)
)
print("the faces whose fit moved most")
print(
    duckdb.sql(f"""
        SELECT face_id, round(moved_mean, 2) AS moved_mm, round(largest_control, 2) AS largest_control
        FROM '{folder["fit_photos"]}/fits-*.parquet' ORDER BY moved_mean DESC LIMIT 5
    """)
)
