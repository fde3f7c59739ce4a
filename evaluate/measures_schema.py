"""The Parquet schema of measures: one row per image, method and measure, readable by any Parquet reader."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from cluster.storage import Folder

SCHEMA_VERSION = "1"

# value is null exactly where `error` says why.
COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path relative to the data set
        pa.field("method", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),  # of the maps' configuration
        pa.field("measure", pa.string(), nullable=False),  # a name in evaluate.measures.ROWS
        pa.field("protocol_hash", pa.string(), nullable=False),  # of the measure's settings
        pa.field("value", pa.float64()),
        pa.field("target", pa.int32()),
        pa.field("teacher_queries", pa.float32(), nullable=False),  # forward passes, shared ones divided by the maps
        pa.field("seconds", pa.float32(), nullable=False),  # shared work divided likewise
        pa.field("error", pa.string()),
    ]
)


def measures_schema(config: dict[str, Any], config_hash: str) -> pa.Schema:
    """Build the schema of one job's measures: the columns, with version and configuration as metadata."""
    metadata = {"schema_version": SCHEMA_VERSION, "config": json.dumps(config), "config_hash": config_hash}
    return COLUMNS.with_metadata(metadata)


def read_measures(folder: "Folder", columns: Sequence[str] | None = None) -> pa.Table:
    """Read all parts of a measures folder, in the order of the parts: all columns, or some with texts kept once each.

    Raises:
        ValueError: the folder holds no part, or a part of another schema or version.
    """
    names = [name for name in folder.names() if name.startswith("part-") and name.endswith(".parquet")]
    if not names:
        raise ValueError(
            f"no measures in {folder.uri}; make them with `python -m evaluate measures --out {folder.uri}`"
        )
    wanted = None if columns is None else list(columns)
    texts = [field.name for field in COLUMNS if field.name in (columns or ()) and pa.types.is_string(field.type)]
    tables = [
        pq.read_table(pa.BufferReader(folder.read_bytes(name)), columns=wanted, read_dictionary=texts) for name in names
    ]
    for name, table in zip(names, tables, strict=True):
        found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
        if found != SCHEMA_VERSION or "measure" not in table.column_names:
            raise ValueError(
                f"{folder.uri}/{name} is not a part of measures of schema version {SCHEMA_VERSION} (it has {found}); "
                "measure again into another --out"
            )
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
