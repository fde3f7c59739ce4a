"""How long commands take before any work: `--help` of each, and what a run of `make demo` took where it is told."""

import subprocess
import sys
import time

from benchmarks.ratio import Row
from benchmarks.world import World

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
            figures=[] if world.demo_min is None else [world.demo_min],
            note="not measured in this run; `--demo-min` takes what `time make demo` said"
            if world.demo_min is None
            else "as told by `--demo-min`: it runs apart from this table",
        ),
    ]


def _help(command: str) -> float:
    return _run("-m", *command.split(), "--help")


def _run(*arguments: str) -> float:
    started_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started_s
