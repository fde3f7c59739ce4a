"""Simulate jobs of many rows: planning, folders, the engine's speed; the figures behind docs/performance.md.

    python -m benchmarks.scale --images 50000 1281167 --table results/reliability/scale.md

Images are names alone, so that a million of them fit on a laptop; black box and method do nothing, or sleep.
"""

import multiprocessing
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from benchmarks.scale.engine import Speed, speeds
from benchmarks.scale.probes import PROBES, Cost
from cluster.planning.throughput import machine

UNITS = {
    "write parts (for what follows)": "{:,.0f} files of each",
    "plan an explain job": "shards of {:.1f} MB",
    "plan a games job": "shards of {:.1f} MB",
    "list a folder, read its footers": "{:,.0f} rows",
    "a part of 64 maps of 224 px": "{:.1f} MB",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    images: tuple[int, ...] = (50_000, 1_281_167)
    """Numbers of images, each measured."""
    rows: int = 4096
    """Rows of each of the engine's runs; 0 leaves the engine out."""
    row_s: tuple[float, ...] = field(default=(0.0, 0.002, 0.02))
    """Seconds that a row takes in them."""
    table: Path | None = None
    """Markdown file for the result; else it is printed alone."""


def probe(name: str, num_images: int, folder: str) -> Cost:
    """Run a probe in a process of its own, so that the memory is too; forked, which spares it the imports."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(PROBES[name], (num_images, folder))


def probes(num_images: int) -> dict[str, Cost]:
    """Run every probe for so many images."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: probe(name, num_images, folder) for name in PROBES}


def probes_table(found: dict[int, dict[str, Cost]]) -> list[str]:
    """Write the probes' costs as lines of Markdown."""
    lines = ["| images | | seconds | of the processor | MB | |", "| --- | --- | --- | --- | --- | --- |"]
    for number, costs in found.items():
        for name, cost in costs.items():
            value = UNITS.get(name, "").format(cost.value)
            times = f"{cost.wall_s:.1f} | {cost.cpu_s:.1f} | {cost.peak_mb:,.0f}"
            lines.append(f"| {number:,} | {name} | {times} | {value} |")
    return lines


def engine_table(found: list[Speed]) -> list[str]:
    """Write the engine's runs as lines of Markdown."""
    lines = [
        "| seconds a row | rows | start, s | rows/s a worker | bare loop | share |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        share = one.rows_per_s / one.loop_rows_per_s
        speed = f"{one.rows_per_s:,.0f} | {one.loop_rows_per_s:,.0f} | {share:.0%}"
        lines.append(f"| {one.row_s:g} | {one.rows:,} | {one.start_s:.1f} | {speed} |")
    return lines


def main() -> None:
    """Run the command line."""
    settings = tyro.cli(Settings, description=__doc__)
    found = {number: probes(number) for number in settings.images}
    head = f"`python -m benchmarks.scale`, each piece once, in a process of its own, on {machine()}."
    lines = ["# Jobs of many rows", "", head, "", *probes_table(found)]
    if settings.rows:
        lines += ["", "The engine with two workers beside a bare loop:", ""]
        lines += engine_table(speeds(settings.rows, settings.row_s))
    text = "\n".join(lines) + "\n"
    print(text)
    if settings.table is not None:
        settings.table.parent.mkdir(parents=True, exist_ok=True)
        settings.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
