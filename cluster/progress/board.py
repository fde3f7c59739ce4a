"""Progress board: workers report how far they are, and the driver's display moves while a shard takes minutes.

Reports are for the eye alone: rows count as done once and for all when their part is written, and those of a worker
that is killed count again from nothing.
"""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.progress.bar import Progress

if TYPE_CHECKING:
    from ray.actor import ActorHandle

POLL_S = 1.0


class Report(NamedTuple):
    """How far a worker is."""

    done: int
    """Units that are done, since the start of the part or of the training."""
    queries: int = 0
    """Queries of the black box since then."""
    shown: Mapping[str, Any] = {}
    """Values that stand beside the rate, such as a loss."""


class Board:
    """Latest report of each part; an actor, so that it outlives a worker and no worker waits for the display."""

    def __init__(self) -> None:
        """Start without reports."""
        self.reports: dict[str, Report] = {}

    def put(self, part: str, report: Report) -> None:
        """Store the report of a part."""
        self.reports[part] = report

    def get(self) -> dict[str, Report]:
        """Return the latest report of each part."""
        return self.reports


class LocalBoard:
    """Board of a worker in the display's own process, called as the handle of a `Board` is."""

    def __init__(self, shown: "BoardProgress") -> None:
        """Start without reports."""
        self.put, self._shown, self._reports = self, shown, dict[str, Report]()

    def remote(self, part: str, report: Report) -> None:
        """Store the report of a part, and show it."""
        self._reports[part] = report
        self._shown.update(self._reports)


class Reporter:
    """Progress callback of a worker: reports to the board, at most once a second; picklable."""

    def __init__(self, board: Any, part: str = "") -> None:
        """Begin a part."""
        self._board, self._part, self._next_s = board, part, 0.0
        self._latest: Report | None = None

    def __call__(self, done: int, queries: int = 0, **shown: Any) -> None:
        """Report the units that are done and the queries since the part's start; waits for nothing."""
        self._latest = Report(done, queries, shown)
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + POLL_S
            self.flush()

    def flush(self) -> None:
        """Report the latest, however long ago the one before was reported: the part is complete."""
        if self._latest is not None:
            self._board.put.remote(self._part, self._latest)


class BoardProgress:
    """Sum of the finished parts' units and of what is reported of the others, on a display."""

    def __init__(self, progress: Progress, *, resumes: bool = False) -> None:
        """Start from what the display says is done already.

        Args:
            progress: the display.
            resumes: whether the first report counts units of earlier starts, which are no part of the rate.
        """
        self._progress, self._lock, self._resumes = progress, threading.Lock(), resumes
        self._rows, self._finished, self._reports = progress.done, set[str](), dict[str, Report]()

    def finish(self, part: str, rows: int, **shown: Any) -> None:
        """Count a part that is written; `shown` values stand beside the rate."""
        with self._lock:
            self._finished.add(part)
            self._rows += rows
            self._show(shown)

    def update(self, reports: Mapping[str, Report]) -> None:
        """Take over what workers have reported by now."""
        with self._lock:
            if reports and self._resumes:
                self._resumes = False
                self._progress.resume(sum(report.done for report in reports.values()))
            self._reports = dict(reports)
            queries = sum(report.queries for report in reports.values())
            shown = {name: value for report in reports.values() for name, value in report.shown.items()}
            self._show(shown | ({"queries": queries} if queries else {}))

    def _show(self, shown: Mapping[str, Any]) -> None:
        inside = sum(report.done for part, report in self._reports.items() if part not in self._finished)
        self._progress.advance(max(0, self._rows + inside - self._progress.done), **shown)


@contextmanager
def shard_progress(progress: Progress, *, reports: bool) -> Iterator[tuple[BoardProgress, str | None]]:
    """Show the progress of shards while the block runs.

    Args:
        progress: The display, which has started.
        reports: Whether workers of Ray report how far they are; it costs an actor.

    Yields:
        Where the caller counts parts that are written; and the board's name for workers, if they report: an actor that
        is given a handle may not begin again once that is gone, and Ray says so on the terminal.
    """
    shown = BoardProgress(progress)
    if not reports:
        yield shown, None
        return
    name = f"progress-{uuid.uuid4().hex}"
    with _running_board(shown, name):
        yield shown, name


@contextmanager
def remote_progress(description: str, total: int, unit: str = "images") -> Iterator[Reporter]:
    """Show a progress display while the block runs, fed by the callback that is yielded, from any process.

    Args:
        description: What is being done.
        total: How many units there are in all, those of earlier starts included.
        unit: What is counted, in the plural.
    """
    with (
        Progress(description, total, unit) as progress,
        _running_board(BoardProgress(progress, resumes=True)) as board,
    ):
        yield Reporter(board)


@contextmanager
def _running_board(shown: BoardProgress, name: str | None = None) -> "Iterator[ActorHandle]":
    """Start a board, and show what it holds every second."""
    import ray

    board: Any = ray.remote(num_cpus=0)(Board).options(name=name).remote()
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, shown, finished), daemon=True)
    watcher.start()
    try:
        yield board
    finally:
        finished.set()
        watcher.join()
        ray.kill(board)


def _watch(board: Any, shown: BoardProgress, finished: threading.Event) -> None:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    last = False
    while not last:
        last = finished.wait(POLL_S)  # once more after the end, for what was reported last
        try:
            shown.update(ray.get(board.get.remote(), timeout=10 * POLL_S))
        except GetTimeoutError:  # the machine has more to do than this
            continue
        except RayError:  # it went with its machine: from here on parts alone are counted
            return
