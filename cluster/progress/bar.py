"""Show how far a long job is: a bar on a terminal, a line now and then in a log.

Everything goes to stderr, so that a command's own output can be piped.
"""

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any, Self, TextIO

LOG_INTERVAL_S = 30.0
RATE_WINDOW_S = 120.0


class Progress:
    """Count finished units of work and show done, total, rate and time left."""

    def __init__(
        self,
        description: str,
        total: int,
        unit: str = "images",
        *,
        done: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        """Set up the display; it starts with `with`.

        Args:
            description: What is being done, such as "explain".
            total: How many units there are in all, at least 0.
            unit: What is counted, in the plural.
            done: Units that stood before the start; they count as done but not towards the rate.
            stream: Where to write; stderr by default.
        """
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._shown: dict[str, Any] = {}
        self.resume(done)

    def __enter__(self) -> Self:
        """Start the clock, and the bar where there is a terminal."""
        self.resume(self.done)
        if self._stream.isatty():
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, rate="", shown="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar, or write the last line."""
        if self._bar is not None:
            self._bar.stop()
        else:
            self._log()

    def advance(self, n: int = 1, **shown: Any) -> None:
        """Count `n` more units as done; `shown` values, such as a loss, stand beside the rate."""
        self.done += n
        self._mark()
        self._shown |= shown
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate_text(), shown=self._shown_text())
        elif time.monotonic() - self._logged_s >= LOG_INTERVAL_S and self.done < self.total:
            self._log()

    def resume(self, done: int) -> None:
        """Start the clock anew at `done` units, which are no part of the rate."""
        self.done = done
        self._started_s = self._logged_s = time.monotonic()
        self._marks = deque([(self._started_s, done)], maxlen=5)

    @property
    def rate(self) -> float:
        """Return units per second over the last two minutes or the last few lumps of them, 0 before the first."""
        since_s, done = self._marks[0]
        return (self.done - done) / max(time.monotonic() - since_s, 1e-9)

    def _mark(self) -> None:
        """Remember now and then how much was done, so that a slow start does not spoil the rate for hours.

        Only where there is more than before: units that come in lumps minutes apart would show no rate in between.
        """
        now = time.monotonic()
        if now - self._marks[-1][0] >= RATE_WINDOW_S / 4 and self.done > self._marks[-1][1]:
            self._marks.append((now, self.done))

    @property
    def left_s(self) -> float | None:
        """Return the seconds left at the present rate, or None before the first unit."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def _rate_text(self) -> str:
        rate = self.rate
        if rate == 0:
            return ""
        return f"{rate:.3g} {self.unit}/s" if rate >= 1 else f"{1 / rate:.3g} s each"

    def _shown_text(self) -> str:
        return " ".join(f"{name} {_plain(value)}" for name, value in self._shown.items())

    def _log(self) -> None:
        self._logged_s = time.monotonic()
        left = "" if self.left_s is None else f"{_clock(self.left_s)} left"
        if self.done >= self.total:
            left = f"took {_clock(self._logged_s - self._started_s)}"
        parts = [f"{self.done}/{self.total} {self.unit}", self._rate_text(), left, self._shown_text()]
        print(f"{self.description}: {', '.join(filter(None, parts))}", file=self._stream, flush=True)


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left {task.fields[shown]}"),
        console=Console(file=stream),
    )


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
