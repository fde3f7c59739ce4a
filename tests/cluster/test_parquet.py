"""Parquet files of an enemy: an error that names the file, little memory, and no crash."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_scores import make_world

import cluster.parquet
from cluster.parquet import MAX_VALUES, read_parquet
from cluster.storage import Folder
from distill.training.soft_label_cache import SoftLabels
from evaluate.games.reader import load_results
from evaluate.map_sets import map_row
from explain.maps import maps_of, maps_table, read_maps, saliency_maps

CONFIG = {"method": "edges"}
ROW = {"image_id": "a.png", "target": 1, "map_height": 2, "map_width": 3, "saliency": np.zeros((2, 3), np.float32)}


def test_a_table_comes_back(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    pq.write_table(table, tmp_path / "t.parquet")
    folder = Folder(str(tmp_path))
    assert read_parquet(folder, "t.parquet").equals(table)
    assert read_parquet(folder, "t.parquet", ["b"]).equals(table.select(["b"]))
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read as Parquet: it has no column c"):
        read_parquet(folder, "t.parquet", ["a", "c"])
    with pytest.raises(FileNotFoundError):
        read_parquet(folder, "gone.parquet")


def error_of(read: Callable[[], object]) -> str | None:
    try:
        read()
    except ValueError as error:
        return str(error)
    return None


def test_changed_bytes_are_an_error_or_other_values(tmp_path: Path) -> None:
    path, rng, errors = tmp_path / "part-00000.parquet", random.Random(0), 0  # noqa: S311 - repeatable damage
    pq.write_table(maps_table([ROW | {"image_id": f"{k}.png"} for k in range(20)], CONFIG), path)
    good = path.read_bytes()
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        error = error_of(lambda: read_maps(str(tmp_path)))
        assert error is None or str(path) in error
        errors += error is not None
    assert 100 < errors < 400


def bomb(path: Path, rows: int) -> Path:
    """Write a file of few bytes with many rows: zeros, which take one run in each page."""
    zeros = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, np.int32)), pa.array([0.0]))
    table = pa.table({"image_id": pa.array([None] * 1_000_000, pa.string()), "value": zeros})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(rows // 1_000_000):
            writer.write_table(table)
    return path


def test_many_rows_in_few_bytes_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "part-00000.parquet", 3_000_000)
    assert path.stat().st_size < 100_000
    assert read_parquet(Folder(str(tmp_path)), path.name).num_rows == 3_000_000
    monkeypatch.setattr(cluster.parquet, "MAX_VALUES", 5_000_000)  # two columns have six
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match=r"3000000 rows with 6000000 values .* allowed: 5000000 values"):
        read_parquet(Folder(str(tmp_path)), path.name)
    assert MAX_VALUES * 4 < 2**31
    assert maps_of(str(tmp_path), ["a"]) == {}
    with pytest.raises(ValueError, match="allowed: 5000000 values"):
        read_maps(str(tmp_path))
    (tmp_path / "view-0000").mkdir()
    path.rename(tmp_path / "view-0000" / path.name)
    with pytest.raises(ValueError, match="allowed: 5000000 values"):
        SoftLabels(Folder(str(tmp_path)), 0)


@pytest.mark.parametrize(
    ("name", "values"),
    [("image_id", [7]), ("saliency", ["x"]), ("saliency", [[[[0.0]]]]), ("target", [1.5]), ("code", ["import os"])],
)
def test_maps_of_other_types_are_refused(tmp_path: Path, name: str, values: list) -> None:
    table = maps_table([ROW], CONFIG)
    kept = table.drop_columns([name]) if name in table.column_names else table
    pq.write_table(kept.append_column(name, pa.array(values)), tmp_path / "part-00000.parquet")
    with pytest.raises(ValueError, match=r"part-00000\.parquet has \w+ as .*; allowed: "):
        read_maps(str(tmp_path))


@pytest.mark.parametrize(("height", "width"), [(3, 3), (-2, -3), (None, 6), (2**30, 2**30), (0, 0)])
def test_maps_of_another_size_than_they_say_are_refused(height: int | None, width: int) -> None:
    table = maps_table([ROW | {"map_height": height, "map_width": width}], CONFIG)
    with pytest.raises(ValueError, match=f"6 values, and is said to be {height} x {width}"):
        list(saliency_maps(table))
    row = map_row(table, 0, "a.png")
    assert row["saliency"] is None
    assert f"is said to be {height} x {width}" in row["error"]


def test_scores_that_are_no_parquet_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, num_images=2, skills={"random": 0.1, "rise": 0.4})
    load_results([world.scores])
    part = Path(world.scores) / "part-00001.parquet"
    whole = part.read_bytes()
    monkeypatch.setattr(cluster.parquet, "MAX_VALUES", 1_000_000)
    for data in (b"", b"PAR1" + bytes(50) + b"PAR1", whole[: len(whole) // 2], bomb(part, 1_000_000).read_bytes()):
        part.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{part} cannot be read as Parquet: .*move it away"):
            load_results([world.scores])
