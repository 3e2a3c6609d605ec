"""Reading and writing the Parquet tables: arrays in, arrays out, checked against a contract on both sides.

Files are replaced as a whole, are sealed with the SHA-256 of their bytes, which every read verifies, carry page
checksums for other readers, and name their contract, its version and the topology they belong to. Vertex arrays are
stored as float32 bytes in row groups of four, everything else as columns that any Parquet reader understands.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .atomic import replacing
from .contracts import CONTRACTS, ColumnSpec, Contract
from .errors import UserError
from .sealed import PARQUET_BLANK, check_parquet, is_sealed, seal_parquet
from .versions import package_version

Columns = dict[str, Any]

MESH_ROW_GROUP = 4
EMPTY_ROW: dict[str, tuple[int, ...]] = {"mesh": (0, 3), "label_image": (0, 0), "tensor": (0,)}


def write_table(
    path: Path,
    contract: Contract | str,
    columns: Mapping[str, Any],
    *,
    topology_hash: str = "",
    producer: str = "flows",
) -> Path:
    """Write one Parquet file, whole or not at all, and return its path.

    ``columns`` maps the contract's names to one entry per row: arrays ``(N, ...)`` for scalars, tensors (cast to the
    column's dtype), meshes ``(N, V, 3)`` in mm and label images ``(N, H, W)`` uint8; sequences of ``str`` or ``bytes``
    else. N may be 0. ``topology_hash`` is the face model's, empty for a table that has nothing to do with vertices.
    Raises ValueError for a missing or unknown column, unequal lengths, an infinite number, a mesh with NaN (elsewhere
    NaN stands for "not measured"), or a value the column cannot hold.
    """
    contract = _contract(contract)
    _check_columns(contract, columns)
    fields, arrays = [], []
    for name, spec in contract.columns.items():
        if name in columns:
            array, metadata = _encode(contract, name, spec, columns[name])
            arrays.append(array)
            fields.append(pa.field(name, array.type, nullable=False, metadata=metadata))
    table = pa.Table.from_arrays(
        arrays, schema=pa.schema(fields, metadata=_file_metadata(contract, topology_hash, producer))
    )
    with replacing(path) as temporary:
        with pq.ParquetWriter(
            temporary,
            table.schema,
            compression="none" if contract.has_mesh else "zstd",
            use_dictionary=False,
            write_page_checksum=True,
        ) as writer:
            writer.write_table(table, row_group_size=MESH_ROW_GROUP if contract.has_mesh else None)
            writer.add_key_value_metadata(PARQUET_BLANK)
        seal_parquet(temporary)
    return path


def read_table(
    source: Path | Iterable[Path],
    contract: Contract | str,
    *,
    topology_hash: str | None = None,
    columns: Sequence[str] | None = None,
) -> Columns:
    """Read one file, several, or every ``*.parquet`` of a folder (in name order) as one table.

    Numbers come back as arrays ``(N, ...)``, text and bytes as lists. ``columns`` restricts what is read. With
    ``topology_hash`` every file must carry that one. Raises UserError for another contract, version or topology (naming
    both), for a damaged file, and where there is no file at all.
    """
    contract = _contract(contract)
    paths = _paths(source, contract)
    names = list(contract.columns) if columns is None else list(columns)
    if unknown := [name for name in names if name not in contract.columns]:
        raise ValueError(f"table {contract.name} has no column {unknown[0]!r}; it has {', '.join(contract.columns)}")
    pieces = [_read_file(path, contract, names, topology_hash) for path in paths]
    present = [name for name in names if all(name in piece for piece in pieces)]
    if missing := [name for name in names if name not in present and not contract.columns[name].optional]:
        raise UserError(f"{paths[0]}: table {contract.name} lacks column {missing[0]!r}; make it again with --refresh")
    return {name: _join(contract, name, [piece[name] for piece in pieces]) for name in present}


def table_metadata(path: Path) -> dict[str, str]:
    """The metadata of one file: contract, contract_version, units, topology_hash, producer, producer_version."""
    with _open(path) as file:
        return _metadata(file)


def row_count(path: Path) -> int:
    """The number of rows of one Parquet file, from its footer, which is taken as it is found."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise UserError(_damaged(path, str(error))) from error


def _contract(contract: Contract | str) -> Contract:
    if isinstance(contract, Contract):
        return contract
    if contract not in CONTRACTS:
        raise ValueError(f"there is no table contract {contract!r}; there are {', '.join(CONTRACTS)}")
    return CONTRACTS[contract]


def _file_metadata(contract: Contract, topology_hash: str, producer: str) -> dict[str, str]:
    return {
        "contract": contract.name,
        "contract_version": str(contract.version),
        "units": "mm",
        "topology_hash": topology_hash,
        "producer": producer,
        "producer_version": package_version(producer),
    }


def _check_columns(contract: Contract, columns: Mapping[str, Any]) -> None:
    if unknown := [name for name in columns if name not in contract.columns]:
        raise ValueError(f"table {contract.name} has no column {unknown[0]!r}; it has {', '.join(contract.columns)}")
    required = (name for name, spec in contract.columns.items() if not spec.optional)
    if missing := [name for name in required if name not in columns]:
        raise ValueError(f"table {contract.name} needs column {missing[0]!r}, which was not given")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"table {contract.name}: columns have unequal lengths: {described}")


def _encode(contract: Contract, name: str, spec: ColumnSpec, values: Any) -> tuple[pa.Array, dict[str, str]]:
    """The Arrow array of one column, and its field metadata."""
    metadata = {"unit": spec.unit} if spec.unit else {}
    where = f"table {contract.name}, column {name}"
    if spec.kind in ("string", "binary"):
        wanted = str if spec.kind == "string" else bytes
        for row, value in enumerate(values):
            if not isinstance(value, wanted):
                raise ValueError(f"{where}: row {row} is {value!r}, expected {wanted.__name__}")
        return pa.array(list(values), pa.string() if wanted is str else pa.large_binary()), metadata
    data = _numeric(where, spec, values)
    if data.shape == (0,) and spec.kind != "scalar":
        data = data.reshape(0, *(spec.shape or EMPTY_ROW[spec.kind]))
    if spec.kind == "scalar":
        if data.ndim != 1:
            raise ValueError(f"{where}: expected shape (N,), got {data.shape}")
        return pa.array(data), metadata
    shape = data.shape[1:]
    if spec.kind == "tensor":
        if spec.shape is not None and shape != spec.shape:
            raise ValueError(f"{where}: expected rows of shape {spec.shape}, got {shape}")
        if data.ndim < 2:
            raise ValueError(f"{where}: expected rows that are arrays, got shape {data.shape}")
        if 0 in shape:  # Parquet has no zero-length fixed list: the row shape alone is kept
            return pa.nulls(len(data), pa.int8()).fill_null(0), metadata | {"empty_shape": str(list(shape))}
        return _tensor_array(data), metadata
    if spec.kind == "mesh":
        metadata |= {"shape": str(list(shape)), "dtype": "float32", "order": "C, little-endian"}
        return pa.array([row.astype("<f4").tobytes() for row in data], pa.large_binary()), metadata
    if data.ndim != 3:
        raise ValueError(f"{where}: expected label images (N, H, W), got {data.shape}")
    metadata |= {"shape": str(list(shape)), "dtype": "uint8", "encoding": "png"}
    return pa.array([_encode_png(row) for row in data], pa.large_binary()), metadata


def _numeric(where: str, spec: ColumnSpec, values: Any) -> np.ndarray:
    """``values`` as a contiguous array of the column's dtype; fractions are never cut off."""
    dtype = np.dtype(spec.dtype)
    data = np.asarray(values)
    to_float = dtype.kind == "f" and data.dtype.kind in "iub"
    if not to_float and not np.can_cast(data.dtype, dtype, "same_kind") and data.size:
        lossless = data.dtype.kind in "iub" and np.array_equal(data.astype(dtype), data)
        if not lossless:
            raise ValueError(f"{where}: {data.dtype} values do not fit {dtype}")
    data = np.ascontiguousarray(data, dtype=dtype)
    bad = np.isinf(data) if dtype.kind == "f" and spec.kind != "mesh" else ~np.isfinite(data)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise ValueError(f"{where}: row {row} holds {data[bad][0]}")
    return data


def _tensor_array(data: np.ndarray) -> pa.Array:
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(data.dtype), data.shape[1:])
    storage = pa.FixedSizeListArray.from_arrays(pa.array(data.reshape(-1)), type=kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, storage)


def _encode_png(labels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, format="PNG", optimize=False)
    return stream.getvalue()


def _decode_png(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _paths(source: Path | Iterable[Path], contract: Contract) -> list[Path]:
    if isinstance(source, Path):
        paths = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    else:
        paths = list(source)
    if not paths or not paths[0].exists():
        raise UserError(f"there is no {contract.name} table" + (f" at {source}" if isinstance(source, Path) else ""))
    return paths


def _open(path: Path) -> pq.ParquetFile:
    """A table of this program whose every byte is as it was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"no table at {path}") from error
    if not is_sealed(data):
        raise UserError(_damaged(path, "it carries no seal: cut off, or no table of this program"))
    if not check_parquet(data):
        raise UserError(_damaged(path, "its bytes have changed since it was written"))
    return pq.ParquetFile(pa.BufferReader(data))


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason.splitlines()[0]}); delete its folder and run the stage again"


def _metadata(file: pq.ParquetFile) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}


def _read_file(path: Path, contract: Contract, names: list[str], topology_hash: str | None) -> Columns:
    with _open(path) as file:
        found = _metadata(file)
        if found["contract"] != contract.name:
            raise UserError(f"{path} holds table {found['contract']}, expected {contract.name}")
        if found["contract_version"] != str(contract.version):
            raise UserError(
                f"{path} holds {contract.name} version {found['contract_version']}, this program reads version "
                f"{contract.version}; make it again with --refresh"
            )
        if topology_hash is not None and found["topology_hash"] != topology_hash:
            raise UserError(
                f"{path} belongs to topology {found['topology_hash'] or '(none)'}, expected {topology_hash}; "
                "it was made with another face model"
            )
        present = [name for name in names if name in file.schema_arrow.names]
        table = file.read(columns=present)
    return {name: _decode(contract.columns[name], table.schema.field(name), table.column(name)) for name in present}


def _decode(spec: ColumnSpec, field: pa.Field, column: pa.ChunkedArray) -> Any:
    if spec.kind in ("string", "binary"):
        return column.to_pylist()
    if spec.kind == "scalar":
        return column.to_numpy()
    metadata = field.metadata or {}
    if spec.kind == "tensor":
        if b"empty_shape" in metadata:
            return np.empty((len(column), *_shape(metadata[b"empty_shape"])), spec.dtype)
        flat = [chunk.storage.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        dtype = field.type.value_type.to_pandas_dtype()
        values = np.concatenate(flat) if flat else np.empty(0, dtype)
        return values.reshape(len(column), *field.type.shape)
    shape = _shape(metadata[b"shape"])
    out = np.empty((len(column), *shape), dtype=spec.dtype)
    for row, value in enumerate(column):
        data = value.as_buffer()
        out[row] = np.frombuffer(data, "<f4").reshape(shape) if spec.kind == "mesh" else _decode_png(data)
    return out


def _shape(text: bytes) -> tuple[int, ...]:
    return tuple(json.loads(text))


def _join(contract: Contract, name: str, pieces: list[Any]) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], list):
        return [value for piece in pieces for value in piece]
    filled = [piece for piece in pieces if len(piece)] or pieces[:1]
    shapes = {piece.shape[1:] for piece in filled}
    if len(shapes) > 1:
        raise UserError(f"table {contract.name}, column {name}: files disagree on the row shape: {sorted(shapes)}")
    return np.concatenate(filled)
