"""The Parquet schema of scores: one row per image, method and game, readable by any Parquet reader."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.parquet import parts_schema, read_parts

if TYPE_CHECKING:
    from cluster.storage import Folder

SCHEMA_VERSION = "1"

# auc, curve and tied_share are null exactly where `error` says why; label is null where no class is known.
COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # path relative to the data set
        pa.field("label", pa.int32()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),  # of the maps' configuration
        pa.field("game", pa.string(), nullable=False),  # "deletion", "insertion", or one of them with "_least"
        pa.field("protocol_hash", pa.string(), nullable=False),
        pa.field("target", pa.int32()),
        pa.field("auc", pa.float64()),
        pa.field("curve", pa.list_(pa.float32())),  # the target's probability, both ends included
        pa.field("tied_share", pa.float32()),  # share of pixels whose map value another pixel has too
        pa.field("teacher_queries", pa.int32(), nullable=False),  # forward passes of this game
        pa.field("map_seconds", pa.float32()),
        pa.field("map_teacher_queries", pa.int32()),
        pa.field("map_student_passes", pa.int32()),
        pa.field("error", pa.string()),
    ]
)

BOUND = pa.field("auc_bound", pa.float64())  # of a protocol that leaves points out: by how much an area may be off


def score_columns(config: dict[str, Any]) -> pa.Schema:
    """Return the columns of scores that were made with a configuration."""
    if config.get("protocol", {}).get("points") is None:
        return COLUMNS
    return COLUMNS.insert(COLUMNS.get_field_index("curve"), BOUND)


def scores_schema(config: dict[str, Any], computed_by: Mapping[str, str] | None = None) -> pa.Schema:
    """Build the schema of one job's scores: the columns, with version and configuration as metadata."""
    return parts_schema(score_columns(config), SCHEMA_VERSION, config, computed_by)


def scores_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Build a table from rows; a row that lacks a column has null there."""
    return pa.Table.from_pylist(rows, schema=schema)


def read_scores(folder: "Folder") -> pa.Table:
    """Read all parts of a scores folder, in the order of the parts. Raises: ValueError, as `read_parts`."""
    return read_parts(folder, score_columns(folder.config()), SCHEMA_VERSION, what="scores", command="evaluate games")
