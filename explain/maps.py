"""Maps on disk: one row per image, Parquet that pyarrow, pandas and DuckDB read without this project."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cluster.parquet import NUM_READERS, check_size, check_types, read_parquet, with_computed_by
from cluster.storage import Folder, config_hash
from explain.methods.registry import METHODS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from explain.methods.registry import Method
    from explain.runners.white_box import Explanation

SCHEMA_VERSION = 1
STD = "saliency_std"
MAPS = {"saliency", STD}
"""Columns that hold a value for each pixel or cell."""
NOT_FINITE = "the map has values that are not finite numbers"


def maps_schema(config: Mapping[str, Any]) -> "pa.Schema":
    """Describe the columns; the metadata holds `schema_version`, `config` (JSON) and `config_hash`.

    `saliency` is the map row by row, `map_height` times `map_width` values, null where `error` says why there is none;
    float16 where the configuration has `map_cells`. `saliency_std`, of methods that know it, where
    maps are whole, is the standard deviation of each of these values. `target_prob` is what the model that chose the
    target gave it, null where no model did. `teacher_queries`, `student_passes` and `seconds` are the method's own cost
    of this map, without reading, target and storing. Passes are forward passes of one image; those of a teacher that is
    looked into count as queries, a student's that stands in for the teacher as student passes.
    """
    import pyarrow as pa

    fields = {
        "image_id": pa.string(),
        "label": pa.int32(),
        "target": pa.int32(),
        "target_prob": pa.float32(),
        "method": pa.string(),
        "config_hash": pa.string(),
        "map_height": pa.int32(),
        "map_width": pa.int32(),
        "saliency": pa.list_(pa.float16() if config.get("map_cells") else pa.float32()),
        "teacher_queries": pa.int32(),
        "student_passes": pa.int32(),
        "seconds": pa.float32(),
        "error": pa.string(),
    }
    method = METHODS.get(config.get("method", ""))
    if method is not None and method.with_std and not config.get("map_cells"):
        fields[STD] = pa.list_(pa.float32())
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "config": json.dumps(config, sort_keys=True),
        "config_hash": config_hash(config),
    }
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()], metadata=metadata)


def explanation_row(
    item: Mapping[str, Any], explanation: "Explanation | str", method: "Method", config: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the row of an image: its map and what that cost, or the reason why it has none."""
    if isinstance(explanation, str):
        return {**item, "error": explanation}
    import numpy as np

    explained = config.get("explains", method.explains)
    row = {
        **item,
        "target": explanation.target,
        "target_prob": item["target_prob"] if explanation.target_prob is None else explanation.target_prob,
        "seconds": explanation.seconds,
        "teacher_queries": explanation.passes if explained == "teacher" else 0,
        "student_passes": explanation.passes if explained == "student" else explanation.prior_passes,
    }
    if not np.isfinite(explanation.saliency).all():
        return {**row, "error": NOT_FINITE}
    saliency, cells = explanation.saliency, config.get("map_cells")
    if cells is not None:
        from explain.rank_maps import compact

        saliency = compact(saliency, cells)
    size = {"map_height": saliency.shape[0], "map_width": saliency.shape[1]}
    return {**row, "saliency": saliency, "saliency_std": None if cells else explanation.std, **size}


def maps_table(
    rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], computed_by: Mapping[str, str] | None = None
) -> "pa.Table":
    """Make a table of rows that hold all columns but `method` and `config_hash`, which `config` decides.

    Args:
        rows: With `saliency` as an array (H, W) of float32, or as `compact` makes it; None in a row with an error.
        config: The configuration of the maps, as the folder stores it.
        computed_by: Engine with precision, and device, of the worker.
    """
    import pyarrow as pa

    schema = with_computed_by(maps_schema(config), computed_by)
    same = {"method": config["method"], "config_hash": config_hash(config)}
    columns = {name: [same.get(name, row.get(name)) for row in rows] for name in schema.names}
    for name in MAPS & set(schema.names):
        columns[name] = [None if map_ is None else map_.ravel() for map_ in columns[name]]
    return pa.table(columns, schema=schema)


def mendable_errors(folder: Folder) -> set[str]:
    """Return the ids of the stored images whose error another start may not find again: all but those of the method."""
    manifest = folder.finished()
    if manifest is not None and not manifest.get("errors"):
        return set()

    def read(name: str) -> list[str]:
        try:
            table = read_parquet(folder, name, ["image_id", "error"])
        except ValueError:  # a broken part, which is computed again anyway
            return []
        rows = zip(table["image_id"].to_pylist(), table["error"].to_pylist(), strict=True)
        return [image_id for image_id, error in rows if error is not None and error != NOT_FINITE]

    with ThreadPoolExecutor(NUM_READERS) as readers:
        return {image_id for some in readers.map(read, folder.parts()) for image_id in some}


def map_parts(uri: str) -> list[str]:
    """List the Parquet files of a maps folder, sorted.

    Raises:
        ValueError: If the folder holds no maps.
    """
    parts = Folder(uri).parts()
    if not parts:
        raise ValueError(f"{uri} holds no maps; give the --out folder of `python -m explain METHOD`")
    return parts


def read_part(uri: str, part: str, columns: Sequence[str] | None = None) -> "pa.Table":
    """Read one Parquet file of a maps folder, all columns or some.

    Raises:
        ValueError: If the file is broken, or was not written by this version of `explain`.
    """
    import pyarrow as pa

    table = read_parquet(Folder(uri), part, columns)
    version = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise ValueError(f"{uri}/{part} has maps of schema version {version}, not {SCHEMA_VERSION}; explain again")
    small = "saliency" in table.column_names and table.schema.field("saliency").type == pa.list_(pa.float16())
    schema = maps_schema({"map_cells": 1} if small else {})
    schema = schema.append(pa.field(STD, pa.list_(pa.float32()))) if STD in table.column_names else schema
    check_types(table, schema, f"{uri}/{part}")
    return table


def read_maps(uri: str, columns: Sequence[str] | None = None) -> "pa.Table":
    """Read a maps folder as one table, in the order of the images; name `columns` to leave the maps on disk."""
    import pyarrow as pa

    return pa.concat_tables([read_part(uri, part, columns) for part in map_parts(uri)], promote_options="default")


def maps_of(uri: str, image_ids: Sequence[str], column: str = "saliency") -> "dict[str, np.ndarray]":
    """Read only the maps of some images, or their `saliency_std`.

    None where an image has an error, the method knows no deviation, or the folder is gone.
    """
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    folder = Folder(uri)
    columns = ["image_id", "map_height", "map_width", column]
    try:
        dataset = ds.dataset(folder.part_paths(), filesystem=folder.filesystem, format="parquet")
        if column not in dataset.schema.names:
            return {}
        for fragment in dataset.get_fragments():
            check_size(fragment.metadata)  # pyright: ignore[reportAttributeAccessIssue]
        table = dataset.to_table(columns=columns, filter=pc.field("image_id").isin(list(image_ids)))
    except (OSError, ValueError):
        return {}
    read = zip(table["image_id"].to_pylist(), saliency_maps(table, column), strict=True)
    return {image_id: saliency for image_id, saliency in read if saliency is not None}


def saliency_maps(table: "pa.Table", column: str = "saliency") -> "Iterator[np.ndarray | None]":
    """Yield each row's map, or its `saliency_std`, as float32 (map_height, map_width), None where there is none.

    Raises:
        ValueError: If a map has another number of values than its size says.
    """
    import numpy as np

    shapes = zip(table["map_height"].to_pylist(), table["map_width"].to_pylist(), strict=True)
    for map_, (height, width) in zip(table[column], shapes, strict=True):
        if not map_.is_valid:
            yield None
            continue
        if min(height or 0, width or 0) < 1 or height * width != len(map_.values):
            raise ValueError(f"a map has {len(map_.values)} values, and is said to be {height} x {width}")
        yield map_.values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(height, width)
