"""Run a worker over shards of a data set with Ray Data, one Parquet file a shard.

Ray Data's own `write_parquet` appends under random names, so a job that is started again would double its rows. Here
a part's name follows from its shard and it appears when it is whole: a killed actor's shard is done again, a late
writer writes the same bytes, and a rerun skips what is there.
"""

import base64
import itertools
import json
import logging
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cluster.errors import USER_ERRORS, WorkError, one_line
from cluster.parquet import read_parquet
from cluster.planning.throughput import Rate, machine
from cluster.progress.bar import Progress
from cluster.progress.board import BoardProgress, LocalBoard, Reporter, shard_progress
from cluster.session import WorkerResources, has_ray, prepare_worker
from cluster.storage import PART_SUFFIX, Folder

if TYPE_CHECKING:
    import pyarrow as pa

Worker = Callable[..., "pa.Table"]
"""Turns a shard's items into rows; one that reports progress also takes a `Reporter`."""
IN_FLIGHT = 2  # shards an actor has at once: one at work, one waiting; more would leave others idle at the end
MAX_INIT_DEATHS = 5  # in a row; Ray Data would end the job where a process or node dies before its actor has begun
MAX_PARTS = 20_000  # files in a folder: to list them, and to read each one's footer, stays a matter of seconds
NUM_READERS = 16  # footers read at once, for stores where each costs a round trip


@dataclass(frozen=True)
class Shard:
    """Name a part, and hold its items."""

    name: str
    """Name of the part without its suffix, such as part-00012."""
    num_items: int
    """How many they are."""
    packed: str
    """The items, as `pack` makes them: a million in memory take 20 MB instead of a gigabyte."""

    @property
    def items(self) -> list[dict[str, Any]]:
        """Unpack the items: JSON values that the worker understands, one an image."""
        return unpack(self.packed)


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Say how rows are counted, and what a rate is measured of."""

    per_item: int = 1
    """Rows that each item gives."""
    items_per_image: int = 1
    """Items that each image gives."""
    queries: str | None = None
    """Column that counts a row's queries to a model outside."""


@dataclass(frozen=True)
class Summary:
    """Count what stands in the folder after a job."""

    rows: int
    """All rows, those of earlier starts included."""
    errors: int
    """Rows that carry an error, those of earlier starts included."""
    skipped_rows: int
    """Rows that stood before this start."""
    seconds: float
    """Time of this start."""
    rate: Rate | None = None
    """What this start measured; None where it had nothing to do."""


def pack(items: Sequence[dict[str, Any]]) -> str:
    """Make items small: JSON, compressed, as text, which NumPy leaves as it is."""
    return base64.b85encode(zlib.compress(json.dumps(items).encode(), level=1)).decode()


def unpack(packed: str) -> list[dict[str, Any]]:
    """Undo `pack`."""
    return json.loads(zlib.decompress(base64.b85decode(packed)))


def make_shards(items: Iterable[dict[str, Any]], size: int) -> list[Shard]:
    """Cut items, in their order, into shards of `size`; the last may be shorter. Few items are in memory at once."""
    if size < 1:
        raise ValueError(f"shard size {size} is too small; give 1 or more")
    left, shards = iter(items), []
    while some := list(itertools.islice(left, size)):
        shards.append(Shard(f"part-{len(shards):05d}", len(some), pack(some)))
    return shards


def shard_size(num_items: int, smallest: int) -> int:
    """Return how many items a shard has: `smallest`, or more where there would be more than `MAX_PARTS` files.

    A function of the work alone, so that a rerun cuts it as before.
    """
    return max(smallest, math.ceil(num_items / MAX_PARTS))


def run_shards(
    worker: Callable[..., Worker],
    config: Any,
    shards: Sequence[Shard],
    folder: Folder,
    *,
    resources: WorkerResources,
    description: str,
    counts: RowCounts = RowCounts(),
    reports: bool = False,
) -> Summary:
    """Run `worker(config)` in every actor over the shards that have no part yet; without Ray, in this process.

    Args:
        worker: Makes, once an actor, what turns a shard's items into a table with `counts.per_item` rows an item.
        config: Its argument; must pickle.
        shards: All shards of the work, those that are done included.
        folder: Where the parts go; claimed by the caller, who also writes the manifest.
        resources: Actors, and what each has.
        description: Shown beside the progress.
        counts: How rows are counted.
        reports: Whether the worker is also given a `Reporter`, for shards that take long.

    Raises:
        ValueError: The folder holds parts that do not belong to these shards.
        WorkError: A worker raised it; parts that were written stay.
    """
    started_s = time.monotonic()
    rows = {shard.name: shard.num_items * counts.per_item for shard in shards}
    skipped = _existing(folder, rows)
    left = [shard for shard in shards if shard.name not in skipped]
    skipped_rows = sum(rows[name] for name in skipped)
    errors = sum(skipped.values())
    parts: list[dict[str, Any]] = []
    with (
        Progress(description, sum(rows.values()), unit="rows", done=skipped_rows) as progress,
        shard_progress(progress, reports=reports and bool(left) and has_ray()) as (shown, board),
    ):
        job = _Job(worker, config, folder, counts, resources, board)
        for part in _write_parts(job, left) if has_ray() else _write_here(job, left, shown if reports else None):
            parts.append(part)
            errors += int(part["errors"])
            shown.finish(str(part["part"]), int(part["rows"]), errors=errors)
    folder.sweep()
    done = _existing(folder, rows)
    missing = sorted(set(rows) - set(done))
    if missing:
        raise RuntimeError(f"{folder.uri} lacks {len(missing)} parts, {missing[0]} first; run the command again")
    rate = _rate(parts, description, resources, counts)
    return Summary(sum(rows.values()), sum(done.values()), skipped_rows, time.monotonic() - started_s, rate)


def require_results(summary: Summary, folder: Folder, what: str, *, sources: Sequence[Folder] = ()) -> None:
    """Refuse a job without a single result: every row of its folder has an error.

    Args:
        summary: What the job left.
        folder: Where.
        what: The rows' name, in the plural.
        sources: Folders that the errors may have come from, which another start would take them from again.

    Raises:
        WorkError: All rows have an error; the message quotes the first.
    """
    if not summary.rows or summary.errors < summary.rows:
        return
    first = str(read_parquet(folder, folder.parts()[0], ["error"])["error"][0].as_py()).rstrip(".")
    stale = " and ".join(source.uri for source in (folder, *sources))
    raise WorkError(
        f"all {summary.rows} {what} have an error, the first: {first}. Mend that, move {stale} away, then give the "
        "same command again"
    )


def _rate(parts: Sequence[dict[str, Any]], job: str, resources: WorkerResources, counts: RowCounts) -> Rate | None:
    """Add up what the parts of a start measured; None where every row has an error."""
    total = {key: sum(part[key] for part in parts) for key in ("rows", "errors", "seconds", "num_bytes", "queries")}
    items = int(total["rows"] - total["errors"]) // counts.per_item
    if not items:
        return None
    return Rate(
        job=job,
        kind="images",
        items=items,
        worker_seconds=float(total["seconds"]),
        num_workers=min(resources.num_workers, len(parts)),
        cpus=resources.cpus,
        gpus=resources.gpus,
        machine=" and ".join(sorted({str(part["machine"]) for part in parts})),
        per_image=counts.items_per_image,
        num_bytes=int(total["num_bytes"]),
        queries=int(total["queries"]),
    )


@dataclass(frozen=True)
class _Job:
    worker: Callable[..., Worker]
    config: Any
    folder: Folder
    counts: RowCounts
    resources: WorkerResources
    board: str | None


class _PartWriter:
    """Turn a shard's items into its Parquet file, in an actor."""

    def __init__(self, job: _Job, board: Any = None) -> None:
        import torch

        torch.set_num_threads(job.resources.cpus)
        self._job, self._machine, self._board = job, machine(), board
        if has_ray():
            prepare_worker()
            self._board = _find_board(job.board)

    @cached_property
    def _worker(self) -> Worker:
        return self._job.worker(self._job.config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        written = self.write(str(batch["part"][0]), str(batch["items"][0]))
        return {name: [value] for name, value in written.items()}

    def write(self, part: str, packed: str) -> dict[str, Any]:
        """Write a part, and describe it, or say in `stopped_by` why there is none."""
        try:
            return {"part": part} | self._write(part, self._worker, unpack(packed))
        except USER_ERRORS as error:  # as a row: Ray Data would wrap it, and drop it when it is sent
            return {"part": part, "stopped_by": one_line(error)}

    def _write(self, part: str, worker: Worker, items: list[dict[str, Any]]) -> dict[str, Any]:
        started_s = time.monotonic()
        if self._board is None:
            table = worker(items)
        else:
            on_progress = Reporter(self._board, part)
            table = worker(items, on_progress)
            on_progress.flush()
        assert table.num_rows == len(items) * self._job.counts.per_item, (part, table.num_rows, len(items))
        data = parquet_bytes(table)
        self._job.folder.write_bytes(part + PART_SUFFIX, data)
        queries = _sum(table, self._job.counts.queries)
        counted = {"rows": table.num_rows, "errors": _num_errors(table), "queries": queries}
        measured = {"seconds": time.monotonic() - started_s, "num_bytes": len(data), "machine": self._machine}
        return {"stopped_by": ""} | counted | measured


def _find_board(name: str | None) -> Any:
    """Return the board for reports; None where there is none, or where it has gone with its machine."""
    import ray

    with suppress(ValueError):
        return name and ray.get_actor(name)


def _write_here(job: _Job, shards: Sequence[Shard], shown: BoardProgress | None) -> Iterator[dict[str, Any]]:
    """Write parts as an actor does, in this process; its own number of torch threads stays."""
    import torch

    num_threads = torch.get_num_threads()
    try:
        writer = _PartWriter(job, shown and LocalBoard(shown))
        for shard in shards:
            yield _checked(writer.write(shard.name, shard.packed))
    finally:
        torch.set_num_threads(num_threads)


def _checked(part: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a part. Raises: WorkError where there is none, as its worker has failed."""
    if part["stopped_by"]:
        raise WorkError(part["stopped_by"])
    return part


def _write_parts(job: _Job, shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
    if not shards:
        return
    import ray.data

    _set_up_ray_data()
    records = [{"part": shard.name, "items": shard.packed} for shard in shards]
    num_actors = min(job.resources.num_workers, len(shards))
    parts = ray.data.from_items(records, override_num_blocks=len(records)).map_batches(
        _PartWriter,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_cpus=job.resources.cpus,
        num_gpus=job.resources.gpus,
    )
    for part in parts.iter_rows():
        yield _checked(part)


def _set_up_ray_data() -> None:
    from ray.data import DataContext
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

    # An actor's arguments by value: it can begin again whatever has become of the object store, and Ray's core does not
    # print a warning that it may not.
    pool: Any = ActorPoolMapOperator
    pool._map_transformer_ref = property(lambda operator: operator._map_transformer)
    pool._data_context_ref = property(lambda operator: operator.data_context)
    context = DataContext.get_current()
    context.max_consecutive_actor_init_deaths = MAX_INIT_DEATHS
    # A shard of thousands of questions to a slow black box may take hours, and is then no job that hangs.
    context.execution_no_progress_timeout_s = -1
    # Its bars flood a log that is no terminal; ours stands instead.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # It warns that the bars are off.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def parquet_bytes(table: "pa.Table") -> bytes:
    """Write a table as a part is written."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _num_errors(table: "pa.Table") -> int:
    if "error" not in table.column_names:
        return 0
    return table.num_rows - table.column("error").null_count


def _sum(table: "pa.Table", column: str | None) -> int:
    return 0 if column is None else sum(number or 0 for number in table.column(column).to_pylist())


def _existing(folder: Folder, rows: dict[str, int]) -> dict[str, int]:
    """Return the errors of every complete part; a broken one, as a full disk leaves, is said and computed again.

    Raises:
        ValueError: a part does not belong to this work.
    """
    counts = _counts(folder)
    strange = sorted(set(counts) - set(rows))
    if strange:
        raise ValueError(
            f"{folder.uri} holds {len(strange)} parts of other work, {strange[0]} first; give another --out"
        )
    broken = [name for name, count in counts.items() if count is None]
    if broken:
        print(f"broken, computed again: {', '.join(broken)} in {folder.uri}", file=sys.stderr)
    whole = {name: count for name, count in counts.items() if count is not None}
    for name, (num_rows, _) in whole.items():
        if num_rows != rows[name]:
            raise ValueError(
                f"{folder.uri}/{name}{PART_SUFFIX} has {num_rows} rows, this work gives {rows[name]}; "
                "move that file away and run again, or give another --out"
            )
    return {name: errors for name, (_, errors) in whole.items()}


def part_counts(folder: Folder) -> dict[str, tuple[int, int]]:
    """Count the rows, and those with an error, of every complete part."""
    return {name: count for name, count in _counts(folder).items() if count is not None}


def _counts(folder: Folder) -> dict[str, tuple[int, int] | None]:
    names = [name.removesuffix(PART_SUFFIX) for name in folder.parts()]
    with ThreadPoolExecutor(NUM_READERS) as readers:
        return dict(zip(names, readers.map(lambda name: _count(folder, name), names), strict=True))


def _count(folder: Folder, name: str) -> tuple[int, int] | None:
    """Count a part's rows and errors from its footer, without its data; None where it is broken."""
    import pyarrow as pa
    from pyarrow import parquet

    with folder.open(name + PART_SUFFIX) as part:
        try:
            metadata = parquet.ParquetFile(part).metadata
        except pa.ArrowException:
            return None
        except OSError:  # a footer that cannot be parsed; of a store, it may be the store that fails
            if folder.local_path() is None:
                raise
            return None
        groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
        columns = [group.column(k) for group in groups for k in range(group.num_columns)]
        errors = [column for column in columns if column.path_in_schema == "error"]
        return metadata.num_rows, sum(column.num_values - column.statistics.null_count for column in errors)
