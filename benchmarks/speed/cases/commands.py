"""How long commands take before any work: `--help` of each, and what a run of `make demo` took where it is told."""

import re
import subprocess
import sys
import time

from benchmarks.speed.ratio import Row
from benchmarks.speed.world import World

TRAINING = ("train the black box", "distill demo")
COMMANDS = (
    "distill",
    "distill imagenette",
    "distill finetune cars_40",
    "explain",
    "explain mal_grad_cam",
    "explain register mal_grad_cam",
    "evaluate",
    "evaluate games",
    "evaluate measures",
    "evaluate report",
    "cluster",
    "cluster plan",
)


def measure(world: World) -> list[Row]:
    """Time every `--help`; the figure of a round is the slowest command's."""
    seconds = {command: [_help(command) for _ in range(world.rounds(5))] for command in COMMANDS}
    log = None if world.demo_log is None else world.demo_log.read_text(encoding="utf-8")
    slowest = max(COMMANDS, key=lambda command: min(seconds[command]))
    return [
        Row(
            key="help",
            what=f"`--help` of {len(COMMANDS)} commands, the slowest",
            against="",
            unit="s",
            at_most=0.3,
            figures=seconds[slowest],
            note=f"`python -m {slowest} --help`; the interpreter's start and tyro, which reads command lines, take "
            f"{min(_run('-c', 'import tyro') for _ in range(world.rounds(5))):.2f} s of it",
        ),
        Row(
            key="demo",
            what="`make demo` after the install",
            against="",
            unit="min",
            at_most=5.0,
            figures=[] if log is None else [_minutes(log)],
            note="not measured in this run; `--demo-log` takes what `time make demo` wrote"
            if log is None
            else f"by `--demo-log`, apart from this table; {_demo_profile(log)}",
        ),
    ]


def _minutes(log: str) -> float:
    """Find the clock's minutes in what bash's `time` wrote."""
    found = re.search(r"^real\s+(\d+)m([\d.]+)s$", log, re.MULTILINE)
    if found is None:
        raise ValueError("--demo-log has no line `real 5m1.2s`; give all that bash's `time make demo` wrote")
    return int(found[1]) + float(found[2]) / 60


def _demo_profile(log: str) -> str:
    """Say what the demo's minutes went into, by its own lines: `NAME: ... took H:MM:SS`."""
    training_min, others_min = 0.0, 0.0
    jobs = re.findall(r"^([^:\n]+):.*, took (\d+):(\d+):(\d+)", log, re.MULTILINE)
    for name, hours, minutes, seconds in jobs:
        took_min = int(hours) * 60 + int(minutes) + int(seconds) / 60
        if name.startswith(TRAINING):
            training_min += took_min
        else:
            others_min += took_min
    rest_min = _minutes(log) - training_min - others_min
    return (
        f"training {training_min:.1f} min, the other steps' work {others_min:.1f} min, "
        f"starting and ending its {len(jobs)} jobs {rest_min:.1f} min"
    )


def _help(command: str) -> float:
    return _run("-m", *command.split(), "--help")


def _run(*arguments: str) -> float:
    started_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started_s
