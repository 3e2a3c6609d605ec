"""DuckDB, Polars and pandas on every table of a run: the same rows and values as by our reader; docs/tables.md."""

import importlib
import io
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from flows.contracts import CONTRACTS
from flows.tables import read_table, row_count, table_metadata

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def by_duckdb(path):
    """Columns of a table as lists of Python values."""
    relation = importlib.import_module("duckdb").connect().read_parquet(str(path))
    return dict(zip(relation.columns, map(list, zip(*relation.fetchall(), strict=True)), strict=False))


def by_polars(path):
    table = importlib.import_module("polars").read_parquet(path)
    return {name: table[name].to_list() for name in table.columns}


def by_pandas(path):
    table = importlib.import_module("pandas").read_parquet(path)
    return {name: table[name].tolist() for name in table.columns}


@pytest.fixture(params=[by_duckdb, by_polars, by_pandas], ids=lambda read: read.__name__.removeprefix("by_"))
def read(request):
    library = request.param.__name__.removeprefix("by_")
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return request.param


def tables(run):
    return sorted(path for outcome in run.outcomes for path in outcome.folder.rglob("*.parquet"))


def decoded(kind, value):
    """One value of another reader, as docs/tables.md says it is to be read."""
    if kind == "mesh":
        return np.frombuffer(value, "<f4").reshape(-1, 3)
    if kind == "label_image":
        return np.asarray(Image.open(io.BytesIO(value)))
    return np.ravel(value) if kind == "tensor" else value


def test_every_table_has_the_same_values_by_any_reader(read, tiny_run):
    kinds = set()
    for path in tables(tiny_run):
        contract = CONTRACTS[table_metadata(path)["contract"]]
        ours, theirs, schema = read_table(path, contract), read(path), pq.read_schema(path)
        assert set(theirs) == (set(ours) if row_count(path) else set(theirs) & set(ours)), path.name
        for name, values in theirs.items():
            kind = contract.columns[name].kind
            where = f"{path.name}: {name}"
            assert len(values) == len(ours[name]) == row_count(path), where
            if b"empty_shape" in (schema.field(name).metadata or {}):
                assert not any(values), where
                continue
            kinds.add(kind)
            for value, own in zip(values, ours[name], strict=True):
                if kind in ("string", "binary"):
                    assert value == own, where
                else:
                    found = decoded(kind, value)
                    expected = own.ravel() if kind == "tensor" else own
                    np.testing.assert_array_equal(
                        found, expected, err_msg=where, strict=kind in ("mesh", "label_image")
                    )
    assert kinds == {"scalar", "tensor", "mesh", "label_image", "string", "binary"}


def test_sql_over_all_files_of_a_stage(tiny_run):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    files = tiny_run.output("fit_photos").glob("fits-*.parquet")
    fits = read_table(sorted(files), "fits")
    query = f"select avg(iou_after[3]) from read_parquet('{tiny_run.output('fit_photos')}/fits-*.parquet')"
    assert duckdb.sql(query).fetchall()[0][0] == pytest.approx(float(fits["iou_after"][:, 2].mean()), abs=1e-6)


def described(spec):
    """The kind of a column in the words of docs/tables.md."""
    if spec.kind == "tensor":
        return f"{spec.dtype} ({', '.join(map(str, spec.shape)) if spec.shape else '...'})"
    return {"scalar": spec.dtype, "string": "text", "binary": "bytes", "label_image": "label image"}.get(
        spec.kind, spec.kind
    )


def test_the_page_of_the_tables_is_that_of_the_contracts():
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {section.partition("\n")[0]: _rows(section) for section in sections}
    expected = {
        f"{contract.name}, version {contract.version}": [
            [f"({name})" if spec.optional else name, described(spec), spec.unit]
            for name, spec in contract.columns.items()
        ]
        for contract in CONTRACTS.values()
    }
    assert set(found) == set(expected)
    for title, rows in expected.items():
        assert found[title] == rows, f"docs/tables.md, {title}"


def _rows(section):
    """Column, kind and unit in the rows of a section's table."""
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.split("|")[1:4]] for line in lines]


def test_the_example_of_the_page_runs(tiny_run, tmp_path, monkeypatch):
    for library in ("duckdb", "polars", "pandas"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(tiny_run.folder)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names = {}
    exec(code, names)
    shapes = read_table(names["one"], "shapes")["vertices"]
    np.testing.assert_array_equal(names["first"], shapes[0])
