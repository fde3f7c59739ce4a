"""Drive the paper's experiments: black box, student, Sim N, maps and scores of every method, tables, in this order.

    python -m cluster run -- python -m benchmarks.paper cars_40 --data ../shared/data

Each stage is one of the project's own commands, printed before it runs. What is whole is not made again, what was
stopped goes on, and `--status` says how far everything is. A data set's results lie in folders of its own:
`OUT/NAME/teacher`, `student`, `maps/METHOD`, `scores/METHOD`, `tables`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

import tyro

from benchmarks.paper.stages import Settings, stages
from cluster import cli

Execute = Callable[[Sequence[str]], int]


def execute(command: Sequence[str]) -> int:
    """Run `python -m COMMAND` in a process of its own; return its exit status."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode


def run(settings: Settings, execute: Execute = execute) -> int:
    """Run what is not done, stage by stage; return the exit status of the first that fails, else 0."""
    total = len([stage.is_done for stage in stages(settings)])  # refuses other settings before any work
    for number, stage in enumerate(stages(settings), start=1):
        if stage.is_done:
            continue
        print(f"== {number}/{total} {stage.name}\n   python -m {shlex.join(stage.command)}", flush=True)
        if status := execute(stage.command):
            print(f"stopped at {stage.name} ({number}/{total}); the same command goes on there", file=sys.stderr)
            return status
    print(report(settings))
    return 0


def report(settings: Settings) -> str:
    """Say how far each stage is, and what comes next."""
    found = list(stages(settings))
    kept = [stage for stage in found if stage.proof]
    left = [stage for stage in kept if not stage.is_done]
    width = max(len(stage.name) for stage in found)
    lines = [f"{stage.name:<{width}}  {stage.progress}" for stage in found]
    lines += [f"{len(kept) - len(left)} of {len(kept)} stages done, {len(left)} left"]
    return "\n".join([*lines, *(f"next: python -m {shlex.join(stage.command)}" for stage in left[:1])])


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 2 for what the user can mend."""

    def command() -> str | int:
        settings = tyro.cli(Settings, prog="python -m benchmarks.paper", args=args)
        return report(settings) if settings.status else run(settings)

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
