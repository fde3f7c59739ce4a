"""Parquet parts of this package's jobs: their schema with what made them, and reading them back."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.parquet import check_types, read_parquet
from cluster.storage import PART_SUFFIX

if TYPE_CHECKING:
    from cluster.storage import Folder


def parts_schema(columns: pa.Schema, version: str, config: dict[str, Any], config_hash: str) -> pa.Schema:
    """Return the columns with schema version and configuration as metadata."""
    return columns.with_metadata({"schema_version": version, "config": json.dumps(config), "config_hash": config_hash})


def read_parts(
    folder: "Folder",
    columns: pa.Schema,
    version: str,
    *,
    what: str,
    command: str,
    only: Sequence[str] | None = None,
) -> pa.Table:
    """Read all parts of a job's folder, in their order.

    Args:
        folder: the job's folder.
        columns: what each part must have.
        version: of the schema.
        what: the rows' name in messages, such as "scores".
        command: the subcommand of `python -m evaluate` that writes them.
        only: read these columns alone, texts kept once each.

    Raises:
        ValueError: the folder holds no part, or a part of another schema or version.
    """
    names = [name for name in folder.names() if name.startswith("part-") and name.endswith(PART_SUFFIX)]
    if not names:
        raise ValueError(f"no {what} in {folder.uri}; make them with `python -m evaluate {command} --out {folder.uri}`")
    wanted = columns.names if only is None else list(only)
    texts = [name for name in wanted if only is not None and pa.types.is_string(columns.field(name).type)]
    tables = [read_parquet(folder, name, only and wanted, read_dictionary=texts) for name in names]
    for name, table in zip(names, tables, strict=True):
        found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
        if found != version or table.column_names != wanted:
            raise ValueError(
                f"{folder.uri}/{name} is not a part of {what} of schema version {version} (it has {found}); "
                f"run `python -m evaluate {command}` again into another --out"
            )
        check_types(table, columns, f"{folder.uri}/{name}")
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
