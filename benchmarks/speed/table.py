"""The table of the benchmarks: rows as Markdown and JSON, and the machine that they were measured on."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.speed.ratio import Row, row_of

PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "grad-cam", "quantus", "captum", "lime", "torchcam")
"""Whose versions are named where they are installed."""
HEADER = ("what", "against", "to reach", "median", "lowest to highest round", "by CPU time", "per s", "against, per s")


def machine() -> dict[str, Any]:
    """Name the machine: processor, cores, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "bfloat16 units": ", ".join(sorted(flags & {"avx512_bf16", "amx_bf16"})) or "none",
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
    named = machine()
    content = {"machine": named, "settings": settings, "rows": [row.as_json() for row in rows]}
    text = markdown(rows, named | settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return text


def earlier(out: Path, **settings: Any) -> list[Row]:
    """Return the rows that an earlier run with the same settings left on this machine, with the same packages."""
    path = out.with_suffix(".json")
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    same = content["machine"] == machine() and all(content["settings"].get(k) == v for k, v in settings.items())
    return [row_of(row) for row in content["rows"]] if same else []


def markdown(rows: Sequence[Row], told: dict[str, Any]) -> str:
    """Write rows as a table with their notes below, and what was told of machine and settings."""
    lines = [HEADER, ("---",) * len(HEADER), *(_cells(row, k + 1) for k, row in enumerate(rows))]
    reached = [row.is_reached for row in rows if row.is_reached is not None]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Made by `make bench`. {sum(reached)} of {len(reached)} figures that were asked for are reached; the "
            "others are in bold, and the notes below the table say why.",
            "",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            *(f"- [{k + 1}] {row.note}" for k, row in enumerate(rows) if row.note),
            "",
            ", ".join(f"{name} {value}" for name, value in told.items()),
            "",
        ]
    )


def _cells(row: Row, number: int) -> tuple[str, ...]:
    goals = {"at least": row.at_least, "at most": row.at_most}
    goal = ", ".join(f"{words} {value:g}" for words, value in goals.items() if value is not None)
    median = "not measured" if row.median is None else _figure(row.median, row.unit)
    spread = f"{_figure(min(row.figures))} to {_figure(max(row.figures))}" if len(row.figures) > 1 else ""
    rates = ("", "") if row.per_s is None else tuple(f"{rate:.3g}" for rate in row.per_s)
    return (
        f"{row.what} [{number}]" if row.note else row.what,
        row.against,
        goal,
        f"**{median}**" if row.is_reached is False else median,
        spread,
        _figure(_median(row.by_cpu_time)) if row.by_cpu_time else "",
        *rates,
    )


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _figure(value: float, unit: str = "times") -> str:
    digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return digits if unit == "times" else f"{digits} {unit}"
