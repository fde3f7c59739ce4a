"""Shards on a real Ray: rows complete and unique, through a rerun, a killed actor and what does not belong."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from cluster.errors import WorkError
from cluster.planning.throughput import machine
from cluster.progress.bar import Progress
from cluster.progress.board import BoardProgress, Report
from cluster.session import WorkerResources, client_environment, ray_session, worker_resources
from cluster.sharded_job import (
    MAX_PARTS,
    RowCounts,
    Summary,
    _set_up_ray_data,
    make_shards,
    part_counts,
    require_results,
    run_shards,
    shard_size,
)
from cluster.storage import Folder

# Ray Data makes its own context with options that it deprecates.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*is deprecated:DeprecationWarning:ray\.data\.context")

ATTACH = """
import ray
from cluster.session import ray_session
with ray_session():
    print(ray.get_runtime_context().gcs_address)
assert not ray.is_initialized()
"""
NUM_ITEMS = 11
SHARDS = make_shards([{"i": i, "name": None if i % 2 else f"img {i}.png"} for i in range(NUM_ITEMS)], 3)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[WorkerResources]:
    """Start Ray once for the module, with two actors or as many as there are cores."""
    with ray_session():
        yield worker_resources(min(2, os.cpu_count() or 1))


def double(log: Path, kill_at: int | None = None) -> Callable[[dict[str, Any]], Any]:
    """Make a worker that gives two rows an item, notes every shard, and may kill itself once.

    The functions are nested so that they travel to the actors whole: tests are no package there.
    """

    def make(config: dict[str, Any]) -> Any:
        def run(items: list[dict[str, Any]]) -> pa.Table:
            numbers = [item["i"] for item in items]
            noted = log / f"{numbers[0]}"
            first = not noted.exists()
            with noted.open("a") as file:
                file.write(f"{os.getpid()}\n")
            if first and numbers[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            rows = [(number, game) for number in numbers for game in (0, 1)]
            return pa.table(
                {
                    "i": pa.array([number for number, _ in rows]),
                    "value": pa.array([number * config["scale"] + game for number, game in rows]),
                    "curve": pa.array([[float(number)] * 3 for number, _ in rows]),
                    "error": pa.array(["broken" if number == 4 else None for number, _ in rows], pa.string()),
                }
            )

        return run

    return make


def run(tmp_path: Path, resources: WorkerResources, **options: Any) -> Summary:
    log = tmp_path / "log"
    log.mkdir(exist_ok=True)
    return run_shards(
        double(log, **options),
        {"scale": 10},
        SHARDS,
        Folder(str(tmp_path / "out")),
        resources=resources,
        description="double",
        counts=RowCounts(per_item=2),
    )


def check_rows(tmp_path: Path) -> None:
    rows = dataset.dataset(tmp_path / "out").to_table().sort_by("value")
    assert rows["value"].to_pylist() == [10 * i + game for i in range(NUM_ITEMS) for game in (0, 1)]


def test_rows_are_complete_and_a_rerun_does_what_is_missing(tmp_path: Path, two_workers: WorkerResources) -> None:
    first = run(tmp_path, two_workers)
    assert (first.rows, first.errors, first.skipped_rows) == (22, 2, 0)
    check_rows(tmp_path)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [f"part-{k:05d}.parquet" for k in range(4)]
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    (out / "part-00001.parquet").unlink()
    (out / ".part-00001.parquet.0123.aside").write_bytes(b"half")
    second = run(tmp_path, two_workers)
    assert (second.rows, second.errors, second.skipped_rows) == (22, 2, 16)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    runs = {path.name: len(path.read_text().splitlines()) for path in (tmp_path / "log").iterdir()}
    assert runs == {"0": 1, "3": 2, "6": 1, "9": 1}

    third = run(tmp_path, two_workers)
    assert (third.rows, third.errors, third.skipped_rows) == (22, 2, 22)


def test_a_job_measures_itself(tmp_path: Path, two_workers: WorkerResources) -> None:
    def make(config: dict[str, Any]) -> Any:
        import time

        def run(items: list[dict[str, Any]]) -> pa.Table:
            time.sleep(0.1 * len(items))
            errors = pa.array(["broken" if item["i"] == 0 else None for item in items for _ in range(2)], pa.string())
            return pa.table({"asked": [7] * 2 * len(items), "error": errors})

        return run

    folder = Folder(str(tmp_path))
    counts = RowCounts(per_item=2, items_per_image=3, queries="asked")
    same: Any = {"resources": two_workers, "description": "ask", "counts": counts}
    rate = run_shards(make, {}, SHARDS, folder, **same).rate
    assert run_shards(make, {}, SHARDS, folder, **same).rate is None
    assert rate is not None
    assert (rate.job, rate.kind, rate.items, rate.per_image) == ("ask", "images", NUM_ITEMS - 1, 3)
    assert (rate.num_workers, rate.cpus, rate.gpus) == (two_workers.num_workers, two_workers.cpus, two_workers.gpus)
    assert 0.1 * NUM_ITEMS <= rate.worker_seconds < 5
    assert rate.num_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    assert rate.queries == sum(dataset.dataset(tmp_path).to_table()["asked"].to_pylist())
    assert rate.machine == machine()


def test_a_worker_reports_how_far_it_is_inside_of_a_shard(
    tmp_path: Path, two_workers: WorkerResources, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def make(config: dict[str, Any]) -> Any:
        import time

        def run(items: list[dict[str, Any]], on_progress: Callable[[int, int], None]) -> pa.Table:
            for done in range(1, 5):
                on_progress(done, 100 * done)
                time.sleep(1.1)
            on_progress(5, 500)
            on_progress(6, 600)
            return pa.table({"i": [item["i"] for item in items]})

        return run

    monkeypatch.setattr("cluster.progress.bar.LOG_INTERVAL_S", 0.0)
    shard = make_shards([{"i": i} for i in range(6)], 6)
    summary = run_shards(make, {}, shard, Folder(str(tmp_path)), resources=two_workers, description="ask", reports=True)
    assert summary.rows == 6
    lines = capsys.readouterr().err.splitlines()
    reported = [found.groups() for line in lines if (found := re.match(r"ask: ([1-5])/6 rows.* queries (\d+)$", line))]
    assert reported
    assert all(int(queries) == 100 * int(done) for done, queries in reported)
    assert re.match(r"ask: 6/6 rows.* queries 600\b", lines[-1]), "the last report counts, however soon after another"


def test_what_is_reported_counts_until_the_part_is_written() -> None:
    display = Progress("ask", 20, done=4)
    shown = BoardProgress(display)
    done = []
    for step in (
        lambda: shown.update({"a": Report(3, 30), "b": Report(1, 5)}),
        lambda: shown.update({"a": Report(0, 2), "b": Report(2, 9)}),  # the worker of `a` was killed: the display waits
        lambda: shown.finish("b", 6, errors=1),
        lambda: shown.update({"a": Report(5, 40), "b": Report(2, 9)}),
        lambda: shown.finish("a", 10),
    ):
        step()
        done.append(display.done)
    assert done == [8, 8, 10, 15, 20]


def test_a_resumed_training_starts_its_rate_at_the_first_report() -> None:
    display = Progress("distill", 100)
    shown = BoardProgress(display, resumes=True)
    shown.update({"": Report(60, shown={"loss": 1.0})})
    assert (display.done, display.rate) == (60, 0.0)
    shown.update({"": Report(70)})
    assert display.done == 70


def test_a_job_of_errors_alone_is_no_success(tmp_path: Path) -> None:
    folder, texts = Folder(str(tmp_path)), ["no reply.", "no map"]
    parquet.write_table(pa.table({"error": texts}), tmp_path / "part-00000.parquet")
    with pytest.raises(
        WorkError, match=rf"^all 2 maps have an error, the first: no reply\. Mend.*move {tmp_path} away, "
    ):
        require_results(Summary(2, 2, 0, 0.0), folder, "maps")
    require_results(Summary(2, 1, 0, 0.0), folder, "maps")
    require_results(Summary(0, 0, 0, 0.0), folder, "maps")


def test_a_killed_actor_loses_and_doubles_nothing(tmp_path: Path, two_workers: WorkerResources) -> None:
    summary = run(tmp_path, two_workers, kill_at=3)
    assert (summary.rows, summary.skipped_rows) == (22, 0)
    check_rows(tmp_path)
    pids = (tmp_path / "log" / "3").read_text().split()
    assert len(pids) == 2
    assert pids[0] != pids[1]


def test_a_worker_that_gives_up_ends_the_job_and_leaves_what_is_done(
    tmp_path: Path, two_workers: WorkerResources, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(config: dict[str, Any]) -> Any:
        def run(items: list[dict[str, Any]]) -> pa.Table:
            if items[0]["i"] >= 6:
                raise config["error"]
            return pa.table({"i": [item["i"] for item in items]})

        return run

    folder = Folder(str(tmp_path))
    one = dataclasses.replace(two_workers, num_workers=1)
    for error in (WorkError("the black box is gone"), ValueError("the black box\nis gone")):
        with pytest.raises(WorkError, match=r"^the black box is gone$"):
            run_shards(make, {"error": error}, SHARDS, folder, resources=one, description="give up")
    assert set(folder.names()) <= {"part-00000.parquet", "part-00001.parquet"}
    done = run_shards(make, {}, SHARDS[:2], folder, resources=one, description="go on")
    assert done.rows == 6
    part = tmp_path / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    done = run_shards(make, {}, SHARDS[:2], folder, resources=one, description="compute what is broken")
    assert (done.rows, done.skipped_rows) == (6, 3)
    assert "broken, computed again: part-00001 in" in capsys.readouterr().err


def test_actors_have_the_threads_of_their_cores(tmp_path: Path, two_workers: WorkerResources) -> None:
    def make(config: dict[str, Any]) -> Any:
        import torch

        return lambda items: pa.table({"threads": [torch.get_num_threads()] * len(items)})

    folder = Folder(str(tmp_path))
    run_shards(make, {}, SHARDS[:1], folder, resources=two_workers, description="look")
    assert dataset.dataset(tmp_path).to_table()["threads"].to_pylist() == [two_workers.cpus] * 3


def test_an_open_session_is_used_and_left_alone(two_workers: WorkerResources) -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with ray_session():
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


def test_the_cluster_of_the_environment_is_used_and_left_running(two_workers: WorkerResources) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    command, environment = [sys.executable, "-c", ATTACH], os.environ | client_environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == [address], done.stderr
    assert ray.get(ray.put(1)) == 1
    assert [node["Alive"] for node in ray.nodes()] == [True]


def finished(tmp_path: Path, names: dict[str, int]) -> Folder:
    folder = Folder(str(tmp_path))
    for name, rows in names.items():
        parquet.write_table(pa.table({"i": [0] * rows}), tmp_path / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("length", [0, 3, 8, 100, -1, -8])
def test_a_truncated_part_counts_for_nothing_and_stray_files_are_none(tmp_path: Path, length: int) -> None:
    folder = finished(tmp_path, {"part-00000": 3, "part-00001": 3})
    part = tmp_path / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:length])
    for name in ("report.html", "Thumbs.db", "copy of part-00000.parquet", "part-00002.parquet.aside"):
        (tmp_path / name).write_bytes(b"x")
    assert part_counts(folder) == {"part-00000": (3, 0)}


def test_parts_of_other_work_are_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path, {"part-00000": 3, "part-00009": 3})
    one = WorkerResources(num_workers=1, cpus=1, gpus=0)
    with pytest.raises(ValueError, match="1 parts of other work, part-00009 first"):
        run_shards(double(tmp_path), {}, SHARDS, folder, resources=one, description="double")


def test_a_part_with_other_rows_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path, {"part-00003": 1})
    one = WorkerResources(num_workers=1, cpus=1, gpus=0)
    with pytest.raises(ValueError, match=r"part-00003\.parquet has 1 rows, this work gives 2"):
        run_shards(double(tmp_path), {}, SHARDS, folder, resources=one, description="double")


def test_shards_keep_the_order_and_every_item() -> None:
    shards = make_shards([{"i": i} for i in range(5)], 2)
    assert [(shard.name, shard.num_items, shard.items) for shard in shards] == [
        ("part-00000", 2, [{"i": 0}, {"i": 1}]),
        ("part-00001", 2, [{"i": 2}, {"i": 3}]),
        ("part-00002", 1, [{"i": 4}]),
    ]
    assert make_shards([], 2) == []
    with pytest.raises(ValueError, match="shard size 0"):
        make_shards([], 0)


@pytest.mark.parametrize("number", [1, 64, 50_000, 1_281_167, 10_000_000])
def test_shards_grow_where_there_would_be_too_many(number: int) -> None:
    for smallest in (8, 64):
        size = shard_size(number, smallest)
        assert size >= smallest
        assert -(-number // size) <= MAX_PARTS
        assert size == smallest or -(-number // (size - 1)) > MAX_PARTS


def test_a_shard_may_take_as_long_as_it_takes():
    """Ray Data would end a job of which no part was finished for half an hour."""
    from ray.data import DataContext

    before = DataContext.get_current().copy()
    try:
        _set_up_ray_data()
        assert DataContext.get_current().execution_no_progress_timeout_s == -1
    finally:
        DataContext._set_current(before)
