"""The Parquet schema of sanity checks: one row per image, method, check and stage, readable by any Parquet reader."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.parquet import parts_schema, read_parts

if TYPE_CHECKING:
    from cluster.storage import Folder

SCHEMA_VERSION = "1"

# The three similarities are null exactly where `error` says why.
COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path relative to the data set
        pa.field("method", pa.string(), nullable=False),
        pa.field("check", pa.string(), nullable=False),  # "randomised", "wrong_class" or "other_student"
        pa.field("stage", pa.string()),  # of "randomised": the stage that was redrawn last, all above it were before
        pa.field("draw", pa.int32(), nullable=False),  # of parameters; images of one draw met the same redrawn students
        pa.field("protocol_hash", pa.string(), nullable=False),  # of the checks' settings
        pa.field("target", pa.int32()),  # the class of the intact student's map
        pa.field("compared_target", pa.int32()),  # the class of the map that it is compared with
        pa.field("rank_correlation", pa.float64()),
        pa.field("rank_correlation_absolute", pa.float64()),  # of the maps' absolute values
        pa.field("ssim", pa.float64()),
        pa.field("student_passes", pa.int32()),  # of the map that it is compared with
        pa.field("seconds", pa.float32()),
        pa.field("error", pa.string()),
    ]
)


def sanity_schema(config: dict[str, Any], computed_by: Mapping[str, str] | None = None) -> pa.Schema:
    """Build the schema of one job's checks: the columns, with version and configuration as metadata."""
    return parts_schema(COLUMNS, SCHEMA_VERSION, config, computed_by)


def read_sanity(folder: "Folder") -> pa.Table:
    """Read all parts of a folder of checks, in the order of the parts. Raises: ValueError, as `read_parts`."""
    return read_parts(folder, COLUMNS, SCHEMA_VERSION, what="sanity checks", command="evaluate sanity")
