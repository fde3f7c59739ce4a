"""Measure whether an explain job's memory stays flat, on its driver and its workers.

    python -m benchmarks.reliability.memory --images 10000 --table results/reliability/memory.md

Renders small images, runs `python -m explain` over them with a cheap method of an untrained student, and samples the
memory that each process has for itself (unique set size; the object store, which all share, is sized by Ray once).
Growth is the median of the last fifth of the job's rows over that of the second fifth: the first one is warm-up.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import tyro
from PIL import Image

from cluster.planning.throughput import machine
from cluster.storage import PART_SUFFIX, Folder
from distill.student.checkpoint import save_student
from distill.student.model import ResCBAM, Student

METHOD = "cam"
SIZE = (32, 32)  # of the student's input and the maps
WORKER = "MapBatches"  # in the name that Ray gives an actor's process
INTERVAL_S = 0.25
WARM_UP = 0.2  # of 10,000 rows


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    images: int = 10_000
    """Images of the job."""
    table: Path | None = None
    """Markdown file for the result; else it is printed alone."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was seen at one moment."""

    parts: int
    """Parts written."""
    driver_mb: float
    """The command's own memory."""
    worker_mb: float
    """The largest worker's; 0 where there is none yet."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Memory of one kind of process, in MB."""

    early: float
    """Median in the second fifth of the rows."""
    late: float
    """Median in the last fifth."""

    @property
    def share(self) -> float:
        """Return by what share it grew."""
        return self.late / self.early - 1


def make_world(folder: Path, num_images: int) -> None:
    """Render images of several sizes and store an untrained student."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    for k in range(num_images):
        pixels = rng.integers(0, 256, (40 + k % 7, 50 + k % 11, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "data" / f"{k:06d}.jpg")
    torch.manual_seed(0)
    model = ResCBAM(18, 10).eval()
    made = Student(
        model=model, input_size=SIZE, mean=(0.5,) * 3, std=(0.2,) * 3, teacher="none:", teacher_fingerprint="none"
    )
    save_student(Folder(str(folder / "student")), made)


def run_job(folder: Path) -> list[Sample]:
    """Explain the images, and watch. Raises: RuntimeError where the command fails."""
    names = {"--data": "data", "--student": "student", "--out": "maps"}
    options = [text for name, place in names.items() for text in (name, str(folder / place))]
    command = [sys.executable, "-m", "explain", METHOD, *options]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    samples = []
    with (folder / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as job:
        while job.poll() is None:
            samples += _sample(psutil.Process(job.pid), folder / "maps")
            time.sleep(INTERVAL_S)
    if job.returncode:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    return samples


def _sample(job: psutil.Process, maps: Path) -> list[Sample]:
    try:
        workers = [one for one in job.children(recursive=True) if WORKER in " ".join(one.cmdline())]
        memory = [one.memory_full_info().uss / 2**20 for one in (job, *workers)]
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended just now
        return []
    return [
        Sample(parts=len(list(maps.glob(f"*{PART_SUFFIX}"))), driver_mb=memory[0], worker_mb=max(memory[1:], default=0))
    ]


def growth(samples: Sequence[Sample], warm_up: float) -> dict[str, Growth]:
    """Compare the fifth of the rows after the warm-up and the last fifth, by kind of process."""
    most = max(sample.parts for sample in samples)
    working = [sample for sample in samples if sample.worker_mb]
    early = [sample for sample in working if warm_up <= sample.parts / most <= warm_up + 0.2]
    late = [sample for sample in working if sample.parts / most >= 0.8]
    return {
        kind: Growth(early=_median(early, name), late=_median(late, name))
        for kind, name in (("driver", "driver_mb"), ("worker", "worker_mb"))
    }


def _median(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def measure(num_images: int, *, warm_up: float = WARM_UP) -> tuple[dict[str, Growth], float]:
    """Return the growth by kind of process, and how many seconds the job took.

    Args:
        num_images: of the job.
        warm_up: share of its rows that is left out; a worker needs about a thousand.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder), num_images)
        started_s = time.monotonic()
        samples = run_job(Path(folder))
        return growth(samples, warm_up), time.monotonic() - started_s


def table(found: dict[str, Growth], settings: Settings, seconds: float) -> str:
    """Write the result as Markdown."""
    lines = [
        "# Memory of an explain job",
        "",
        f"`python -m benchmarks.reliability.memory --images {settings.images}`: {settings.images} small images, method "
        f"`{METHOD}` of an untrained student at {SIZE[0]} x {SIZE[1]} px, {seconds:.0f} s on {machine()}. Memory "
        "that a process has for itself, medians in the second and the last fifth of the rows.",
        "",
        "| process | second fifth, MB | last fifth, MB | growth |",
        "| --- | --- | --- | --- |",
        *(f"| {kind} | {one.early:.1f} | {one.late:.1f} | {one.share:+.1%} |" for kind, one in found.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    settings = tyro.cli(Settings, description=__doc__)
    found, seconds = measure(settings.images)
    text = table(found, settings, seconds)
    print(text)
    if settings.table is not None:
        settings.table.parent.mkdir(parents=True, exist_ok=True)
        settings.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
