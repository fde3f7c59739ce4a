"""Hold jobs to one row per image and the same maps and scores, whatever of them is killed meanwhile.

    python -m benchmarks.reliability.chaos --table results/reliability/chaos.md

Explains tiny rendered images with RISE and a tiny black box that takes its time, and plays the games of the maps; at
first undisturbed, then again and again under kills (`benchmarks.reliability.storm`), each time until it is done.
"""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import tyro
from PIL import Image

from benchmarks.reliability.nodes import several_nodes
from benchmarks.reliability.slow_box import LATENCY, SIZE
from benchmarks.reliability.storm import Chaos, Home, OwnRay, Storm
from cluster.planning.throughput import machine
from cluster.storage import Folder

TEACHER = "python:benchmarks.reliability.slow_box:make"
IMAGE_S = 0.001  # that the black box takes
NUM_MASKS = 8
STEP_PX = 32  # a third of a map: four frames a game
JOBS = ("explain", "evaluate")
SECONDS = {"seconds", "map_seconds"}  # columns that are of a run, and not of its images
KEYS = {"explain": ["image_id", "method"], "evaluate": ["image_id", "method", "game"]}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to do."""

    images: int = 2000
    """Images of each job."""
    kills: int = 60
    """Kills in all; each job on a Ray of its own gets a tenth, on a cluster four tenths."""
    seed: int = 0
    """Of the images and the kills."""
    table: Path | None = None
    """Markdown file for the result; else it is printed alone."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One job, done under kills."""

    job: str
    """explain or evaluate."""
    home: str
    """Where it ran."""
    storm: Storm
    """What happened."""
    rows: int
    """Rows in its folder."""
    wrong: list[str] = field(default_factory=list)
    """What differs from the undisturbed job."""


def render(folder: Path, num_images: int, seed: int) -> None:
    """Render images in ten class folders, as many as the black box has classes."""
    rng = np.random.default_rng(seed)
    for k in range(num_images):
        place = folder / f"class{k % 10}"
        place.mkdir(parents=True, exist_ok=True)
        shade = np.uint8(k % 10 * 12)
        Image.fromarray(rng.integers(0, 128, (*SIZE, 3), np.uint8) + shade).save(place / f"{k:05d}.png")


def command(job: str, world: Path, out: Path) -> list[str]:
    """Return the command of a job that writes into a folder."""
    common = ["--data", str(world / "data"), "--teacher", TEACHER, "--out", str(out), "--num-workers", "2"]
    if job == "explain":
        return [sys.executable, "-m", "explain", "rise", *common, "--num-masks", str(NUM_MASKS)]
    maps = ["--maps", str(world / "undisturbed" / "explain")]
    return [sys.executable, "-m", "evaluate", "games", *common, *maps, "--step-px", str(STEP_PX)]


def differences(job: str, out: Path, undisturbed: Path) -> list[str]:
    """Say what a reader finds in a folder that it does not find in the undisturbed job's."""
    found, expected = (sorted(path.name for path in folder.iterdir()) for folder in (out, undisturbed))
    wrong = [f"files {sorted(set(found) ^ set(expected))}"] if found != expected else []
    rows, wanted = (_rows(folder) for folder in (out, undisturbed))
    doubled = len(rows) - len(rows.group_by(KEYS[job]).aggregate([]))
    wrong += [f"{doubled} rows twice"] if doubled else []
    if not rows.equals(wanted):
        wrong.append(f"{len(rows)} rows, of {len(wanted)}, or other values in them")
    manifests = [Folder(str(folder)).finished() or {} for folder in (out, undisturbed)]
    counts = [{name: one.get(name) for name in ("rows", "errors", "num_parts")} for one in manifests]
    return wrong + ([f"manifests {counts}"] if counts[0] != counts[1] else [])


def _rows(folder: Path) -> pa.Table:
    """Read all that a reader picks up, without what depends on the clock."""
    table = ds.dataset(folder).to_table()
    return table.drop_columns([name for name in table.column_names if name in SECONDS])


@contextmanager
def homes() -> Iterator[list[tuple[Home, float]]]:
    """Give where jobs run, each with its share of the kills."""
    with several_nodes(2) as cluster:
        yield [(OwnRay(), 0.1), (cluster, 0.4)]


def rounds(settings: Settings, world: Path) -> Iterator[Round]:
    """Do every job undisturbed and then under kills, as often as it takes for all of them."""
    os.environ[LATENCY] = str(IMAGE_S)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{world}/mlflow.db"
    render(world / "data", settings.images, settings.seed)
    for job in JOBS:
        Chaos(0, 0).run(command(job, world, world / "undisturbed" / job), OwnRay())
    with homes() as found:
        for job in JOBS:
            for home, share in found:
                yield from _storms(job, home, round(share * settings.kills), settings.seed, world)


def _storms(job: str, home: Home, kills: int, seed: int, world: Path) -> Iterator[Round]:
    number = 0
    while kills > 0:
        out = world / home.name.replace(" ", "-") / f"{number}" / job
        storm = Chaos(seed + number, kills).run(command(job, world, out), home)
        wrong = differences(job, out, world / "undisturbed" / job)
        yield Round(job=job, home=home.name, storm=storm, rows=len(_rows(out)), wrong=wrong)
        number, kills = number + 1, kills - len(storm.kills)


def doubled_runs(world: Path, num_jobs: int) -> int:
    """Count the MLflow runs above one for each games job, those that never ended included."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{world}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    return len(client.search_runs(experiments)) - num_jobs


def table(found: Sequence[Round], settings: Settings) -> str:
    """Write the rounds as Markdown."""
    kills = Counter(kill for one in found for kill in one.storm.kills)
    lines = [
        "# Jobs under kills",
        "",
        f"`python -m benchmarks.reliability.chaos --images {settings.images} --kills {settings.kills} "
        f"--seed {settings.seed}`, on "
        f"{machine()}: {sum(kills.values())} kills, each job started again until it was done.",
        "",
        "| job | on | starts | failed by themselves | kills | seconds | rows | differs from the undisturbed job |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        starts = f"{one.storm.starts} | {one.storm.failed} | {len(one.storm.kills)}"
        counts = f"{starts} | {one.storm.seconds:.0f} | {one.rows:,}"
        lines.append(f"| {one.job} | {one.home} | {counts} | {'; '.join(one.wrong) or 'nowhere'} |")
    lines += ["", "| killed | signal | times |", "| --- | --- | --- |"]
    lines += [f"| {kind} | {how} | {number} |" for (kind, how), number in sorted(kills.items())]
    return "\n".join(lines) + "\n"


def main(done: Callable[[str], None] = print) -> int:
    """Run the command line; return 1 where anything differs."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for one in rounds(settings, Path(folder)):
            found.append(one)
            done(f"{one.job} on {one.home}: {one.storm.kills} {one.wrong}")
        more = doubled_runs(Path(folder), 1 + sum(one.job == "evaluate" for one in found))
    text = table(found, settings) + f"\nRuns in MLflow above one a games job: {more}.\n"
    done(text)
    if settings.table is not None:
        settings.table.parent.mkdir(parents=True, exist_ok=True)
        settings.table.write_text(text, encoding="utf-8")
    return int(any(one.wrong for one in found) or more > 0)


if __name__ == "__main__":
    sys.exit(main())
