"""Jobs of a single shard run in the process of the command: no Ray starts, and the result is what an actor writes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from cluster.errors import WorkError
from cluster.parquet import read_parquet
from cluster.session import has_ray, ray_session, worker_resources
from cluster.sharded_job import make_shards, run_shards
from cluster.storage import Folder

ITEMS = [{"number": k} for k in range(5)]


class Squares:
    """Worker: the square of each number, and how far it is; an error it raises where it is told to."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __call__(self, items: list[dict[str, Any]], on_progress: Any = None) -> pa.Table:
        if self.message:
            raise ValueError(self.message)
        for k in range(len(items) if on_progress else 0):
            on_progress(k + 1)
        threads = [torch.get_num_threads()] * len(items)
        return pa.table({"square": [item["number"] ** 2 for item in items], "threads": threads})


def run(out: Path, message: str = "") -> Any:
    shards = make_shards(ITEMS, len(ITEMS))
    with ray_session(len(shards)):
        assert not has_ray()
        resources = worker_resources(1)
        return run_shards(
            Squares, message, shards, Folder(str(out)), resources=resources, description="squares", reports=True
        ), resources


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_rows_progress_and_threads_are_those_of_an_actor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        summary, resources = run(tmp_path)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    rows = read_parquet(Folder(str(tmp_path)), "part-00000.parquet", ["square", "threads"])
    assert rows["square"].to_pylist() == [0, 1, 4, 9, 16]
    assert set(rows["threads"].to_pylist()) == {resources.cpus}
    assert (summary.rows, summary.errors, summary.skipped_rows) == (5, 0, 0)
    assert "squares: 5/5 rows" in capsys.readouterr().err
    again, _ = run(tmp_path, "is not called again")
    assert (again.rows, again.skipped_rows, again.rate) == (5, 5, None)


def test_what_the_worker_raises_is_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"^number 3 is odd$"):
        run(tmp_path, "number 3\nis odd")
    assert Folder(str(tmp_path)).parts() == []
