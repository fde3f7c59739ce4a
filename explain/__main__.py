"""`python -m explain METHOD --data DIR [--student RUN] [--teacher TEACHER] --out MAPS`."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from cluster.errors import WorkError
from explain.job import Job
from explain.registry import METHODS, Method, find_method

PROG = "python -m explain"


def parse(args: Sequence[str]) -> tuple[str, Job]:
    """Parse the command line into the method's name and its job.

    Raises:
        ValueError: For an unknown method, or options that contradict each other.
    """
    if args and not args[0].startswith("-"):
        find_method(args[0].replace("-", "_"))
        args = [args[0].replace("-", "_"), *args[1:]]
    commands: Any = Union[tuple(_command(method) for method in METHODS.values())]  # noqa: UP007 - made at run time
    description = "Map what the predictions for a data set rest on, one method at a time, into Parquet."
    job = tyro.cli(commands, prog=PROG, args=args, description=description)
    return args[0], job


def _command(method: Method) -> Any:
    return Annotated[
        Job[method.options],  # pyright: ignore[reportInvalidTypeArguments]
        tyro.conf.subcommand(method.name, description=method.summary),
    ]


def main(args: Sequence[str]) -> int:
    """Run the command; return its exit status: 2 for what the user can mend."""
    try:
        name, job = parse(args)
        job.check(find_method(name))
        from explain.batch import explain

        summary = explain(name, job)
    except (ValueError, FileNotFoundError, WorkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    made = summary.rows - summary.errors
    print(f"{made} maps and {summary.errors} images without one (column error) in {job.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
