import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.contracts import CONTRACTS, Contract, binary, label_image, mesh, scalar, string, tensor
from flows.errors import UserError
from flows.tables import read_table, row_count, table_metadata, write_table

EVERYTHING = Contract(
    "everything",
    3,
    {
        "name": string(),
        "data": binary(),
        "count": scalar("int64"),
        "value": scalar("float64"),
        "vector": tensor(),
        "ids": tensor(2, dtype="int64"),
        "vertices": mesh(),
        "labels": label_image(),
        "extra": tensor(3, unit="mm", optional=True),
    },
)
NAMES = Contract("names", 1, {"name": string()})
SHAPES = CONTRACTS["shapes"]


def example(spec, n, rng):
    """Random values of a column."""
    shape = {"scalar": (), "mesh": (7, 3), "label_image": (6, 5)}.get(spec.kind, spec.shape or (4,))
    if spec.kind == "string":
        return [f"é{i}" for i in range(n)]
    if spec.kind == "binary":
        return [bytes([i, 0, 255]) for i in range(n)]
    if np.dtype(spec.dtype).kind in "iub":
        return rng.integers(0, 2, (n, *shape)).astype(spec.dtype)
    return rng.normal(size=(n, *shape)).astype(spec.dtype)


def rows(contract, n, seed=0):
    rng = np.random.default_rng(seed)
    return {name: example(spec, n, rng) for name, spec in contract.columns.items()}


def assert_equal(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        if isinstance(values, list):
            assert found[name] == values
        else:
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("n", [0, 1, 9])
@pytest.mark.parametrize("contract", [EVERYTHING, *CONTRACTS.values()], ids=lambda contract: contract.name)
def test_every_table_reads_back_as_written(contract, n, tmp_path):
    wanted = rows(contract, n)
    path = write_table(tmp_path / "t.parquet", contract, wanted, topology_hash="t1")
    assert_equal(read_table(path, contract, topology_hash="t1"), wanted)
    assert row_count(path) == n


def test_rows_without_elements_keep_their_shape(tmp_path):
    wanted = rows(EVERYTHING, 3) | {"vector": np.empty((3, 0), np.float32)}
    path = write_table(tmp_path / "t.parquet", EVERYTHING, wanted)
    assert_equal(read_table(path, EVERYTHING), wanted)


def test_empty_lists_make_an_empty_table(tmp_path):
    path = write_table(tmp_path / "t.parquet", EVERYTHING, {name: [] for name in EVERYTHING.columns})
    found = read_table(path, EVERYTHING)
    assert found["ids"].shape == (0, 2)
    assert found["vertices"].shape == (0, 0, 3)
    assert found["name"] == []


def test_a_folder_reads_as_one_table_in_name_order(tmp_path):
    for i, n in enumerate((2, 0, 3)):
        write_table(tmp_path / f"part-{i:05d}.parquet", EVERYTHING, rows(EVERYTHING, n, seed=i))
    found = read_table(tmp_path, EVERYTHING)
    expected = np.concatenate([rows(EVERYTHING, n, seed=i)["vertices"] for i, n in enumerate((2, 0, 3))])
    np.testing.assert_array_equal(found["vertices"], expected)
    assert len(found["name"]) == 5
    newest_first = sorted(tmp_path.iterdir(), reverse=True)
    np.testing.assert_array_equal(read_table(newest_first, EVERYTHING)["count"][:3], found["count"][2:])


def test_meshes_are_stored_as_float32_bytes_in_row_groups_of_four(tmp_path):
    path = write_table(tmp_path / "t.parquet", SHAPES, rows(SHAPES, 9), topology_hash="t1", producer="segmodel")
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 1]
    field = file.schema_arrow.field("vertices")
    assert str(field.type) == "large_binary"
    assert field.metadata[b"shape"] == b"[7, 3]"
    assert field.metadata[b"unit"] == b"mm"
    assert field.metadata[b"dtype"] == b"float32"
    metadata = table_metadata(path)
    assert metadata["contract"] == "shapes"
    assert metadata["units"] == "mm"
    assert metadata["topology_hash"] == "t1"
    assert metadata["producer"] == "segmodel"
    assert metadata["producer_version"].count(".") == 2


def test_number_columns_are_readable_in_sql(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    wanted = rows(EVERYTHING, 4)
    path = write_table(tmp_path / "t.parquet", EVERYTHING, wanted)
    with duckdb.connect() as connection:
        found = connection.execute("select vector[2] from read_parquet(?)", [str(path)]).fetchall()
    np.testing.assert_array_equal(np.array(found, np.float32)[:, 0], wanted["vector"][:, 1])


def test_equal_content_makes_equal_bytes(tmp_path):
    paths = [write_table(tmp_path / f"{i}.parquet", EVERYTHING, rows(EVERYTHING, 5)) for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("contract", [SHAPES, CONTRACTS["measurements"]], ids=["uncompressed", "zstd"])
def test_a_flipped_byte_in_a_page_is_found(contract, tmp_path):
    path = write_table(tmp_path / "t.parquet", contract, rows(contract, 40))
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"t\.parquet is damaged \(.*\); delete its folder and run the stage again"):
        read_table(path, contract)


def test_a_cut_or_foreign_file_is_refused(tmp_path):
    path = write_table(tmp_path / "t.parquet", SHAPES, rows(SHAPES, 4))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged"):
        read_table(path, SHAPES)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(UserError, match="cut off, or no table of this program"):
        read_table(tmp_path / "foreign.parquet", SHAPES)


def test_absent_tables_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no shapes table at .*x\.parquet"):
        read_table(tmp_path / "x.parquet", "shapes")
    with pytest.raises(UserError, match="there is no shapes table at"):
        read_table(tmp_path, "shapes")
    with pytest.raises(UserError, match="there is no shapes table"):
        read_table([], "shapes")
    with pytest.raises(ValueError, match=r"no table contract 'shape'; there are .*shapes"):
        read_table(tmp_path, "shape")


def test_another_table_version_or_topology_is_refused_naming_both(tmp_path):
    path = write_table(tmp_path / "t.parquet", NAMES, {"name": ["a"]}, topology_hash="t1")
    with pytest.raises(UserError, match="holds table names, expected shapes"):
        read_table(path, "shapes")
    with pytest.raises(UserError, match="holds names version 1, this program reads version 2"):
        read_table(path, Contract("names", 2, NAMES.columns))
    with pytest.raises(UserError, match="belongs to topology t1, expected t2"):
        read_table(path, NAMES, topology_hash="t2")
    other = write_table(tmp_path / "u.parquet", NAMES, {"name": ["b"]}, topology_hash="t2")
    with pytest.raises(UserError, match=r"u\.parquet belongs to topology t2, expected t1"):
        read_table([path, other], NAMES, topology_hash="t1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nme": ["a"] * 3}, "has no column 'nme'; it has name, data"),
        ({"name": None}, "needs column 'name'"),
        ({"name": ["a"]}, "unequal lengths: name 1, data 3"),
        ({"name": ["a", 1, "c"]}, "column name: row 1 is 1, expected str"),
        ({"count": np.array([1.0, 2.5, 3.0])}, "column count: float64 values do not fit int64"),
        ({"count": np.zeros((3, 2), np.int64)}, r"column count: expected shape \(N,\), got \(3, 2\)"),
        ({"ids": np.zeros((3, 3), np.int64)}, r"column ids: expected rows of shape \(2,\), got \(3,\)"),
        ({"vector": np.zeros(3)}, "column vector: expected rows that are arrays"),
        ({"vector": np.array([[1.0], [np.inf], [2.0]])}, "column vector: row 1 holds inf"),
        ({"vertices": np.full((3, 7, 3), np.nan)}, "column vertices: row 0 holds nan"),
        ({"labels": np.full((3, 6, 5), 300)}, "column labels: int64 values do not fit uint8"),
        ({"labels": np.zeros((3, 5), np.uint8)}, r"column labels: expected label images \(N, H, W\)"),
    ],
)
def test_values_a_table_cannot_hold_are_refused(change, message, tmp_path):
    columns = {name: values for name, values in (rows(EVERYTHING, 3) | change).items() if values is not None}
    with pytest.raises(ValueError, match=message):
        write_table(tmp_path / "t.parquet", EVERYTHING, columns)
    assert list(tmp_path.iterdir()) == []


def test_wider_integers_that_fit_and_nan_numbers_are_fine(tmp_path):
    columns = rows(EVERYTHING, 2) | {"labels": np.full((2, 6, 5), 6), "value": np.array([np.nan, 1])}
    found = read_table(write_table(tmp_path / "t.parquet", EVERYTHING, columns), EVERYTHING)
    assert np.array_equal(found["labels"], np.full((2, 6, 5), 6, np.uint8))
    assert np.isnan(found["value"][0])


def test_an_optional_column_may_be_left_out_and_columns_chosen(tmp_path):
    columns = rows(EVERYTHING, 2)
    del columns["extra"]
    path = write_table(tmp_path / "t.parquet", EVERYTHING, columns)
    assert "extra" not in read_table(path, EVERYTHING)
    assert list(read_table(path, EVERYTHING, columns=["count", "name"])) == ["count", "name"]
    with pytest.raises(ValueError, match="table everything has no column 'x'"):
        read_table(path, EVERYTHING, columns=["x"])


def test_a_required_column_added_later_is_missed(tmp_path):
    path = write_table(tmp_path / "t.parquet", NAMES, {"name": ["a"]})
    longer = Contract("names", 1, {"name": string(), "age": scalar("int64")})
    with pytest.raises(UserError, match="table names lacks column 'age'"):
        read_table(path, longer)


def test_files_that_disagree_on_a_row_shape_are_refused(tmp_path):
    for i, width in enumerate((4, 5)):
        columns = rows(EVERYTHING, 2) | {"vector": np.zeros((2, width))}
        write_table(tmp_path / f"{i}.parquet", EVERYTHING, columns)
    with pytest.raises(UserError, match="column vector: files disagree on the row shape"):
        read_table(tmp_path, EVERYTHING)


def test_a_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = write_table(tmp_path / "t.parquet", NAMES, {"name": ["old"]})

    def full(*args, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="no space left"):
        write_table(path, NAMES, {"name": ["new"]})
    assert read_table(path, NAMES)["name"] == ["old"]
    assert [found.name for found in tmp_path.iterdir()] == ["t.parquet"]
