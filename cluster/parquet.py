"""Read Parquet files that others may have written: a broken one, or one too large for memory, is a ValueError.

A few bytes of Parquet can stand for billions of rows. So the footer is asked first what would be unpacked, and refused
where that is more than any part here holds. Left out: a footer that lies about lists, which only a limit that the
operating system sets to the process catches.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.storage import config_hash

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cluster.storage import Folder

COMPUTED_BY = "computed_by"
"""Key in a part's metadata: engine with precision, and device, of the worker that computed it (JSON)."""
NUM_READERS = 16
"""Files read at once, for stores where each costs a round trip."""
MAX_VALUES = 300_000_000
"""Most values in a file's columns: more than a shard of 64 maps of 2,000 x 2,000, a gigabyte as float32."""
MAX_BYTES = 2_000_000_000
"""Most bytes in a file's columns, unpacked."""


def read_parquet(
    folder: "Folder", name: str, columns: Sequence[str] | None = None, *, read_dictionary: Sequence[str] | None = None
) -> "pa.Table":
    """Read the file `name`, all columns or some.

    Args:
        folder: where it lies.
        name: its name.
        columns: what to read; None reads all.
        read_dictionary: columns of texts that are kept once each.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken, too large, or lacks a column.
    """
    import pyarrow.parquet as pq

    with _opened(folder, name, columns) as source, readable(f"{folder.uri}/{name}"):
        file = pq.ParquetFile(source, read_dictionary=read_dictionary)
        check_size(file.metadata)
        missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table = file.read(columns=None if columns is None else list(columns))
        table.validate(full=True)  # texts that are no UTF-8, lists that reach beyond their values
        return table


@contextmanager
def _opened(folder: "Folder", name: str, columns: Sequence[str] | None) -> "Iterator[pa.NativeFile]":
    """Open a file for its columns alone, or read it at once, which is one request to a store."""
    import pyarrow as pa

    if columns is None:
        yield pa.BufferReader(folder.read_bytes(name))
    else:
        with folder.open(name) as file:
            yield file


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn what goes wrong with a Parquet file inside the block into a ValueError that names it."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        detail = " ".join(str(error).split())
        raise ValueError(
            f"{where} cannot be read as Parquet: {detail}; move it away, then give the command that wrote it again"
        ) from error


def check_size(metadata: "pq.FileMetaData") -> None:
    """Refuse a file that would not fit into memory. Raises: ValueError."""
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    columns = [group.column(k) for group in groups for k in range(group.num_columns)]
    values, size = (
        sum(column.num_values for column in columns),
        sum(column.total_uncompressed_size for column in columns),
    )
    if not 0 <= metadata.num_rows <= MAX_VALUES or not 0 <= values <= MAX_VALUES or not 0 <= size <= MAX_BYTES:
        raise ValueError(
            f"it says that it has {metadata.num_rows} rows with {values} values in {size} bytes; "
            f"allowed: {MAX_VALUES} values in {MAX_BYTES} bytes"
        )


def check_types(table: "pa.Table", schema: "pa.Schema", where: str) -> None:
    """Refuse a table whose columns are of other types than the schema's. Raises: ValueError."""
    import pyarrow as pa

    for field in table.schema:
        stored = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        wanted = schema.field(field.name).type if field.name in schema.names else None
        if stored != wanted:
            raise ValueError(f"{where} has {field.name} as {stored}; allowed: {wanted or 'no such column'}")


def parts_schema(
    columns: "pa.Schema", version: str, config: Mapping[str, Any], computed_by: Mapping[str, str] | None = None
) -> "pa.Schema":
    """Return the columns with metadata: schema version, configuration, and what computed the rows, where known."""
    metadata = {"schema_version": version, "config": json.dumps(config), "config_hash": config_hash(config)}
    return with_computed_by(columns.with_metadata(metadata), computed_by)


def with_computed_by(schema: "pa.Schema", computed_by: Mapping[str, str] | None) -> "pa.Schema":
    """Add to a schema's metadata what computed the rows, where that is known."""
    if not computed_by:
        return schema
    return schema.with_metadata({**(schema.metadata or {}), COMPUTED_BY: json.dumps(computed_by)})


def read_computed_by(folder: "Folder") -> dict[str, str]:
    """Read what the workers say that they computed a folder's parts with: engine with precision, and device.

    Several are joined by " and "; parts of before version 0.2 say nothing.
    """
    from pyarrow import parquet

    def read(name: str) -> dict[str, str]:
        with folder.open(name) as part, readable(f"{folder.uri}/{name}"), parquet.ParquetFile(part) as file:
            stored = json.loads((file.schema_arrow.metadata or {}).get(COMPUTED_BY.encode(), b"{}"))
            return {key: str(value) for key, value in stored.items()} if isinstance(stored, dict) else {}

    with ThreadPoolExecutor(NUM_READERS) as readers:
        parts = list(readers.map(read, folder.parts()))
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: " and ".join(sorted({part[key] for part in parts if key in part})) for key in keys}


def read_parts(
    folder: "Folder",
    columns: "pa.Schema",
    version: str,
    *,
    what: str,
    command: str,
    only: Sequence[str] | None = None,
) -> "pa.Table":
    """Read all parts of a job's folder, in their order.

    Args:
        folder: the job's folder.
        columns: what each part must have.
        version: of the schema.
        what: the rows' name in messages, such as "scores".
        command: the command that writes them, such as "evaluate games".
        only: read these columns alone, texts kept once each.

    Raises:
        ValueError: the folder holds no part, or a part of another schema or version.
    """
    import pyarrow as pa

    names = folder.parts()
    if not names:
        raise ValueError(f"no {what} in {folder.uri}; make them with `python -m {command} --out {folder.uri}`")
    wanted = columns.names if only is None else list(only)
    texts = [name for name in wanted if only is not None and pa.types.is_string(columns.field(name).type)]
    tables = [read_parquet(folder, name, only and wanted, read_dictionary=texts) for name in names]
    for name, table in zip(names, tables, strict=True):
        stored = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
        if stored != version or table.column_names != wanted:
            raise ValueError(
                f"{folder.uri}/{name} is not a part of {what} of schema version {version} (it has {stored}); "
                f"run `python -m {command}` again into another --out"
            )
        check_types(table, columns, f"{folder.uri}/{name}")
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
