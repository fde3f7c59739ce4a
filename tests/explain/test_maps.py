import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.storage import config_hash
from explain.maps import maps_table, read_maps, saliency_maps

CONFIG = {"method": "matt", "options": {"sign": "positive"}}
MAP = np.arange(6, dtype=np.float32).reshape(2, 3)
ROWS = [
    {"image_id": "a/x.png", "label": 3, "target": 1, "saliency": MAP, "map_height": 2, "map_width": 3},
    {"image_id": "b.png", "label": None, "error": "ImageError: the file is empty"},
]


def test_a_row_keeps_its_map_and_an_error_row_has_none(tmp_path):
    pq.write_table(maps_table(ROWS, CONFIG), tmp_path / "part-00000.parquet")
    table = read_maps(str(tmp_path))
    first, second = saliency_maps(table)
    assert first is not None
    assert np.array_equal(first, MAP)
    assert second is None
    assert table["error"].to_pylist() == [None, "ImageError: the file is empty"]
    assert table["method"].to_pylist() == ["matt", "matt"]
    assert set(table["config_hash"].to_pylist()) == {config_hash(CONFIG)}
    assert json.loads(table.schema.metadata[b"config"]) == CONFIG


def test_reads_some_columns(tmp_path):
    pq.write_table(maps_table(ROWS, CONFIG), tmp_path / "part-00000.parquet")
    assert read_maps(str(tmp_path), ["image_id", "label"]).column_names == ["image_id", "label"]


def test_refuses_a_folder_without_maps(tmp_path):
    with pytest.raises(ValueError, match=r"holds no maps; give the --out folder"):
        read_maps(str(tmp_path))


def test_refuses_another_version(tmp_path):
    table = maps_table(ROWS, CONFIG).replace_schema_metadata({"schema_version": "99"})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    with pytest.raises(ValueError, match="schema version 99, not 1"):
        read_maps(str(tmp_path))
