"""Show on the driver's terminal how far work is that runs in another process of the cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from cluster.progress.bar import Progress

POLL_S = 1.0


class _Board:
    """Hold the latest count; an actor, so that it outlives a worker that dies."""

    def __init__(self) -> None:
        self.latest: tuple[int, dict[str, Any]] | None = None

    def put(self, done: int, shown: dict[str, Any]) -> None:
        self.latest = done, shown

    def get(self) -> tuple[int, dict[str, Any]] | None:
        return self.latest


class RemoteProgress:
    """Report progress from a worker; picklable."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def show(self, done: int, **shown: Any) -> None:
        """Tell the driver that `done` units are done in all; does not wait for it."""
        self._board.put.remote(done, shown)


@contextmanager
def remote_progress(description: str, total: int, unit: str = "images") -> Iterator[RemoteProgress]:
    """Show a progress display while the block runs, fed through the object that is yielded.

    Args:
        description: What is being done.
        total: How many units there are in all.
        unit: What is counted, in the plural.
    """
    board = ray.remote(num_cpus=0)(_Board).remote()
    finished = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, description, total, unit, finished), daemon=True)
    watcher.start()
    try:
        yield RemoteProgress(board)
    finally:
        finished.set()
        watcher.join()
        ray.kill(board)  # pyright: ignore[reportArgumentType]


def _watch(board: Any, description: str, total: int, unit: str, finished: threading.Event) -> None:
    latest = None
    while latest is None and not finished.wait(POLL_S):
        latest = ray.get(board.get.remote())
    if latest is None:
        return
    with Progress(description, total, unit, done=latest[0]) as progress:
        while not finished.wait(POLL_S):
            done, shown = ray.get(board.get.remote())
            progress.advance(done - progress.done, **shown)
        done, shown = ray.get(board.get.remote())
        progress.advance(done - progress.done, **shown)
