"""How many rows a second the engine does beside a bare loop, with a worker that takes a given time for each row."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.session import ray_session, worker_resources
from cluster.sharded_job import make_shards, run_shards
from cluster.storage import PART_SUFFIX, Folder
from explain.job import SHARD_IMAGES

NUM_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One run of the engine."""

    row_s: float
    """Seconds that the worker takes for a row, asleep."""
    rows: int
    """Rows of the run."""
    start_s: float
    """Seconds until the first part was there."""
    rows_per_s: float
    """Rows a second and worker from then on."""
    loop_rows_per_s: float
    """Rows a second of the same worker in a bare loop, which writes nothing."""


def sleeper(config: dict[str, Any]) -> Any:
    """Make a worker that sleeps for each row."""

    def work(items: list[dict[str, Any]]) -> pa.Table:
        time.sleep(config["row_s"] * len(items))
        return pa.table({"image_id": [item["image_id"] for item in items], "error": pa.nulls(len(items), pa.string())})

    return work


def speed(num_rows: int, row_s: float) -> Speed:
    """Run the engine with two workers, then the bare loop; needs a Ray session."""
    shards = make_shards(({"image_id": f"{k:07d}"} for k in range(num_rows)), SHARD_IMAGES)
    with tempfile.TemporaryDirectory() as out:
        started_s = time.time()
        resources = worker_resources(NUM_WORKERS)
        run_shards(sleeper, {"row_s": row_s}, shards, Folder(out), resources=resources, description=f"{row_s} s a row")
        moments = sorted(path.stat().st_mtime for path in Path(out).glob(f"*{PART_SUFFIX}"))
    later = num_rows - shards[0].num_items
    work, few = sleeper({"row_s": row_s}), shards[:8]
    loop_s = time.perf_counter()
    for shard in few:
        work(shard.items)
    loop_s = time.perf_counter() - loop_s
    return Speed(
        row_s=row_s,
        rows=num_rows,
        start_s=moments[0] - started_s,
        rows_per_s=later / (moments[-1] - moments[0]) / NUM_WORKERS,
        loop_rows_per_s=sum(shard.num_items for shard in few) / loop_s,
    )


def speeds(num_rows: int, row_s: tuple[float, ...]) -> list[Speed]:
    """Measure one Ray session through."""
    with ray_session():
        return [speed(num_rows, one) for one in row_s]
