"""Measure every row of the table, side by side in one run: `make bench`.

    python -m benchmarks.speed --out results/benchmarks

Each row is a ratio against a peer or against the raw limit, of interleaved rounds; `OUT.md` and `OUT.json` are written
anew after each group, so that what was measured stays; so do the rows that `--only` leaves out, if they were measured
on this machine. On a machine that others use the ratios hold better than the rates, and the ratios by CPU time better
still.
"""

import os
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import tyro

from benchmarks.speed.ratio import Row
from benchmarks.speed.table import earlier, write

GROUPS = ("games", "asking", "mal_grad_cam", "maps", "adaptive", "training", "reading", "insights", "jobs", "commands")
"""Files in `cases` with a `measure`, in the order in which they run."""
IMAGENETTE = "../shared/data/imagenette"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure, and on what."""

    out: Path = Path("results/benchmarks")
    """Where the table goes: OUT.md and OUT.json."""
    data: str | None = IMAGENETTE if Path(IMAGENETTE).is_dir() else None
    """Folder of photographs with train and val; without it images are rendered."""
    student: str | None = None
    """RUN folder of a distilled student for the rows that judge maps; without it one is distilled for half a minute."""
    only: tuple[str, ...] = GROUPS
    """Groups of rows to measure."""
    rounds: int = 5
    """Rounds of each measurement, at most; slow ones take fewer."""
    threads: int = os.cpu_count() or 1
    """CPU threads."""
    demo_log: Path | None = None
    """What `time make demo` wrote, which runs apart."""
    short: bool = False
    """Tiny sizes, to see that everything runs; its figures mean nothing."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only) - set(GROUPS))
        if unknown:
            raise ValueError(f"--only {' '.join(unknown)} is unknown; groups: {', '.join(GROUPS)}")


def run(settings: Settings) -> list[Row]:
    """Measure, write and return the rows."""
    from benchmarks.speed.world import World

    told = {
        "threads": settings.threads,
        "images": "photographs" if settings.data else "rendered",
        "short": settings.short,
    }
    rows = earlier(settings.out, **told)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        world = World(
            folder=Path(folder),
            data=settings.data,
            student_run=settings.student,
            short=settings.short,
            num_rounds=settings.rounds,
            threads=settings.threads,
            demo_log=settings.demo_log,
        )
        for group in settings.only:
            print(f"{(time.monotonic() - started_s) / 60:5.1f} min  {group}", flush=True)
            measured = import_module(f"benchmarks.speed.cases.{group}").measure(world)
            rows = [row for row in rows if row.group != group] + [replace(row, group=group) for row in measured]
            rows.sort(key=lambda row: GROUPS.index(row.group))
            minutes = round((time.monotonic() - started_s) / 60, 1)
            whole = {"minutes": minutes} if set(settings.only) == set(GROUPS) else {}  # of a part they would mislead
            text = write(rows, settings.out, **told, **whole)
    print(text)
    return rows


if __name__ == "__main__":
    run(tyro.cli(Settings, description=__doc__))
