"""Progress inside of shards: workers tell how far they are, so that a display moves while a shard takes minutes.

What they tell is for the eye alone: rows count as done once and for all when their part is written, and those of a
worker that is killed count again from nothing.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster.progress.bar import Progress

if TYPE_CHECKING:
    from ray.actor import ActorHandle

POLL_S = 1.0


class Board:
    """Hold what was told of each part; an actor, so that no worker waits for the display."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.told: dict[str, tuple[int, int]] = {}

    def put(self, part: str, rows: int, asked: int) -> None:
        """Note what a worker tells of a part."""
        self.told[part] = rows, asked

    def get(self) -> dict[str, tuple[int, int]]:
        """Return the latest of each part."""
        return self.told


class Teller:
    """What a worker calls while it is at a part, in an actor: it tells the board, at most once a second."""

    def __init__(self, board: Any, part: str) -> None:
        """Begin a part."""
        self._board, self._part, self._next_s = board, part, 0.0
        self._latest = (0, 0)

    def __call__(self, rows: int, asked: int) -> None:
        """Tell how many rows are made and how many questions were asked since the part's start; waits for nothing."""
        self._latest = rows, asked
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + POLL_S
            self.flush()

    def flush(self) -> None:
        """Tell the latest, however long ago the one before was told: the part is made."""
        self._board.put.remote(self._part, *self._latest)


class ShardProgress:
    """Add up the rows of finished parts and what is told of the others."""

    def __init__(self, progress: Progress) -> None:
        """Start from what the display says is done already."""
        self._progress, self._lock = progress, threading.Lock()
        self._rows, self._finished, self._told = progress.done, set[str](), dict[str, tuple[int, int]]()

    def finish(self, part: str, rows: int, **shown: Any) -> None:
        """Count a part that is written; `shown` values stand beside the rate."""
        with self._lock:
            self._finished.add(part)
            self._rows += rows
            self._show(shown)

    def tell(self, told: Mapping[str, tuple[int, int]]) -> None:
        """Take over what workers have told by now."""
        with self._lock:
            self._told = dict(told)
            asked = sum(asked for _, asked in told.values())
            self._show({"asked": asked} if asked else {})

    def _show(self, shown: Mapping[str, Any]) -> None:
        inside = sum(rows for part, (rows, _) in self._told.items() if part not in self._finished)
        self._progress.advance(max(0, self._rows + inside - self._progress.done), **shown)


@contextmanager
def shard_progress(progress: Progress, *, tells: bool) -> "Iterator[tuple[ShardProgress, ActorHandle | None]]":
    """Show the progress of shards while the block runs.

    Args:
        progress: The display, which has started.
        tells: Whether workers tell how far they are; it costs an actor.

    Yields:
        Where the caller counts parts that are written; and the board for workers, if they tell.
    """
    shown = ShardProgress(progress)
    if not tells:
        yield shown, None
        return
    import ray

    board: Any = ray.remote(num_cpus=0)(Board).remote()
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, shown, finished), daemon=True)
    watcher.start()
    try:
        yield shown, board
    finally:
        finished.set()
        watcher.join()
        ray.kill(board)


def _watch(board: Any, shown: ShardProgress, finished: threading.Event) -> None:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    last = False
    while not last:
        last = finished.wait(POLL_S)  # once more after the end, for what was told last
        try:
            shown.tell(ray.get(board.get.remote(), timeout=10 * POLL_S))
        except GetTimeoutError:  # the machine has more to do than this
            continue
        except RayError:  # it went with its machine: from here on parts alone are counted
            return
