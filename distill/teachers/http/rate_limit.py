"""A rate limit that all workers of one machine keep together: each takes the next free moment from a file."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from filelock import FileLock

from distill.teachers.cache import private_folder, read_small

MAX_AHEAD_S = 3600.0  # a moment further away was noted before the clock was set back


class RateLimit:
    """So many queries a second to one server."""

    def __init__(self, url: str, per_second: float) -> None:
        """Name the server and the rate; nothing is written yet."""
        self.per_second = per_second
        self._name = hashlib.sha256(url.encode()).hexdigest()

    def wait(self, num_queries: int) -> None:
        """Wait until so many queries may be sent at once."""
        file = private_folder("pace") / self._name
        with FileLock(f"{file}.lock"):
            now = time.time()
            free = max(now, _free(file, now))
            file.write_text(str(free + num_queries / self.per_second), encoding="utf-8")
        time.sleep(free - now)


def _free(file: Path, now: float) -> float:
    """Read the first moment that nobody has taken; now where that is not known."""
    try:
        free = float(read_small(file))
    except (FileNotFoundError, ValueError):
        return now
    return free if free - now < MAX_AHEAD_S else now
