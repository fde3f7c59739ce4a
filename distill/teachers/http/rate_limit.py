"""A rate limit that all workers of one machine keep together: each takes the next free moment from a file."""

from __future__ import annotations

import hashlib
import time

from filelock import FileLock

from distill.teachers.cache import cache_folder

MAX_AHEAD_S = 3600.0  # a moment further away was noted before the clock was set back


class RateLimit:
    """So many queries a second to one server."""

    def __init__(self, url: str, per_second: float) -> None:
        """Name the server and the rate; nothing is written yet."""
        self.per_second = per_second
        self._file = cache_folder("pace") / hashlib.sha256(url.encode()).hexdigest()[:12]

    def wait(self, num_queries: int) -> None:
        """Wait until so many queries may be sent at once."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._file}.lock"):
            now = time.time()
            free = max(now, self._free(now))
            self._file.write_text(str(free + num_queries / self.per_second), encoding="utf-8")
        time.sleep(free - now)

    def _free(self, now: float) -> float:
        """Read the first moment that nobody has taken; now where that is not known."""
        try:
            free = float(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return now
        return free if free - now < MAX_AHEAD_S else now
