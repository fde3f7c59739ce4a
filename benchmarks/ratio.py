"""Ratios of speeds, measured side by side: interleaved rounds in one process, median and spread, as Markdown and JSON.

A ratio holds where a rate does not, on a machine that others use too: each round times all works one after the other,
in turning order, and the ratio is taken inside the round. The CPU's time is kept beside the clock's for that reason.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "grad-cam", "quantus", "captum", "lime")
"""Whose versions are named where they are installed."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a piece of work took."""

    wall_s: float
    """On the clock."""
    cpu_s: float
    """Of all of the process's threads."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One work against another one of the same number of items."""

    what: str
    """The work that is to be fast."""
    against: str
    """What it is measured against."""
    items: int
    """Items (maps, frames, images) of one call of either."""
    reach: float | None
    """The ratio to reach."""
    of: Sequence[Times] = field(repr=False)
    """Of the work, one per round."""
    peer: Sequence[Times] = field(repr=False)
    """Of the other, one per round."""
    note: str = ""
    """Conditions of this row."""

    def ratios(self, clock: str = "wall_s") -> list[float]:
        """Return, for each round, how many times as fast the work is."""
        return [getattr(b, clock) / getattr(a, clock) for a, b in zip(self.of, self.peer, strict=True)]

    def rates(self) -> tuple[float, float]:
        """Return items/s of the work and of the other, medians over the rounds."""
        work, peer = (self.items / statistics.median(t.wall_s for t in times) for times in (self.of, self.peer))
        return work, peer

    def as_json(self) -> dict[str, Any]:
        """Return the figures, rounds included."""
        rates = self.rates()
        return {
            "what": self.what,
            "against": self.against,
            "note": self.note,
            "reach": self.reach,
            "ratio": statistics.median(self.ratios()),
            "ratio_by_cpu_time": statistics.median(self.ratios("cpu_s")),
            "rounds": self.ratios(),
            "rounds_by_cpu_time": self.ratios("cpu_s"),
            "items_per_s": rates[0],
            "items_per_s_against": rates[1],
        }


def timed(work: Callable[[], object]) -> Times:
    """Time a piece of work."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Times(wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s)


def interleaved(works: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[Times]]:
    """Time every work once a round, in an order that turns by one each round; a first call of each warms up."""
    times: dict[str, list[Times]] = {name: [] for name in works}
    names = list(works)
    for name in names:
        works[name]()
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            times[name].append(timed(works[name]))
    return times


def machine() -> dict[str, Any]:
    """Name the machine: processor, cores, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: found for package in PACKAGES if (found := _version(package))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write(rows: Sequence[Row], out: Path, **settings: Any) -> str:
    """Write `out`.md and `out`.json; return the Markdown."""
    header = [
        "what",
        "against",
        "times as fast",
        "lowest to highest round",
        "by CPU time",
        "to reach",
        "per s",
        "against",
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        rounds, rates = row.ratios(), row.rates()
        lines.append(
            [
                row.what + (f" ({row.note})" if row.note else ""),
                row.against,
                f"{statistics.median(rounds):.2f}",
                f"{min(rounds):.2f} to {max(rounds):.2f}",
                f"{statistics.median(row.ratios('cpu_s')):.2f}",
                "" if row.reach is None else f"{row.reach:g}",
                *(f"{rate:.3g}" for rate in rates),
            ]
        )
    named = machine()
    told = ", ".join(f"{name} {value}" for name, value in (named | settings).items())
    text = "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", told, ""])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    content = {"machine": named, "settings": settings, "rows": [row.as_json() for row in rows]}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return text
