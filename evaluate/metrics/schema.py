"""The Parquet schema of metrics: one row per image, method and metric, readable by any Parquet reader."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.parquet import parts_schema, read_parts

if TYPE_CHECKING:
    from cluster.storage import Folder

SCHEMA_VERSION = "1"

# value is null exactly where `error` says why.
COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path relative to the data set
        pa.field("method", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),  # of the maps' configuration
        pa.field("measure", pa.string(), nullable=False),  # a name in evaluate.metrics.settings.ROWS
        pa.field("protocol_hash", pa.string(), nullable=False),  # of the measure's settings
        pa.field("value", pa.float64()),
        pa.field("target", pa.int32()),
        pa.field("teacher_queries", pa.float32(), nullable=False),  # forward passes, shared ones divided by the maps
        pa.field("seconds", pa.float32(), nullable=False),  # shared work divided likewise
        pa.field("error", pa.string()),
    ]
)


def metrics_schema(config: dict[str, Any], computed_by: Mapping[str, str] | None = None) -> pa.Schema:
    """Build the schema of one job's metrics: the columns, with version and configuration as metadata."""
    return parts_schema(COLUMNS, SCHEMA_VERSION, config, computed_by)


def read_metrics(folder: "Folder", only: Sequence[str] | None = None) -> pa.Table:
    """Read all parts of a metrics folder, in the order of the parts. Raises: ValueError, as `read_parts`."""
    return read_parts(folder, COLUMNS, SCHEMA_VERSION, what="metrics", command="evaluate measures", only=only)
