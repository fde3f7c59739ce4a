"""The console script `malgradcam`, and what every command line of the project does with errors and Ctrl-C.

`malgradcam explain ...` is `python -m explain ...`: a command's module is imported when it is called, so that each
answers at once.
"""

import dataclasses
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.command_line import shell_word
from cluster.errors import USER_ERRORS, one_line

SCRIPT = "malgradcam"
COMMANDS = {
    "distill": "train a white-box student that predicts what a black box predicts",
    "explain": "compute saliency maps of a data set, one method at a time",
    "evaluate": "score maps and students against the black box: games, metrics, reports",
    "cluster": "one Ray for several commands, costs at full size, tracking records that were not sent",
}
SHORTCUTS = {"explain-image": ("explain", "image")}
"""Names for what a newcomer tries first."""
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
VERBOSE = "MALGRADCAM_VERBOSE"
"""Environment variable: any value shows tracebacks of errors, and what Ray logs."""
VERBOSE_FLAG = "--verbose"
"""Option of every command, which sets that variable."""
VERBOSE_HELP = f"`{VERBOSE_FLAG}`, with any command: show tracebacks of errors, and what Ray logs."
MAX_NUMBER = 2**53
"""Number that no option reaches: up to it, each whole number is a float too."""
MAX_SEED = 2**32
"""Seed from which on some generators take none."""


def verbose() -> bool:
    """Tell whether the user wants tracebacks and Ray's own log on the terminal."""
    return bool(os.environ.get(VERBOSE))


def take_verbose(arguments: Sequence[str] | None) -> list[str]:
    """Take `--verbose` off a command line, by default this process's; what follows `--` is left as it is."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    if VERBOSE_FLAG in given[:end]:
        os.environ[VERBOSE] = "1"
    return [word for word in given[:end] if word != VERBOSE_FLAG] + given[end:]


def checked(options: Any) -> Any:
    """Return a command's options, after a check that all their numbers, and those of options in them, can be used.

    Raises:
        ValueError: one is no number, infinite or absurdly large; or a seed is one that some generator does not take.
    """
    for name in (field.name for field in dataclasses.fields(options)):
        value = getattr(options, name)
        if dataclasses.is_dataclass(value):
            checked(value)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) < MAX_NUMBER:
                raise ValueError(f"{name} {number} is not allowed; give a finite number below {MAX_NUMBER}")
            if name == "seed" and not 0 <= number < MAX_SEED:
                raise ValueError(f"seed {number} is not allowed; give 0 to {MAX_SEED - 1}")
    return options


def prog(command: str) -> str:
    """Return how the user started `command`, for its help: `malgradcam explain` or `python -m explain`."""
    started_by_script = Path(sys.argv[0]).name in (SCRIPT, f"{SCRIPT}.exe")
    return f"{SCRIPT} {command}" if started_by_script else f"python -m {command}"


def next_step(command: str, *words: str, **options: str | None) -> str:
    """Return the closing line of a command: another one that can be copied, in the way the user started this one.

    Args:
        command: The package, such as explain.
        words: What follows it.
        options: Values of its options; those that are None are left out.
    """
    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    return f"next: {prog(command)} {' '.join(map(shell_word, (*words, *given)))}"


def beside(out: str, ending: str) -> str:
    """Name a place beside the results in `out`, for the command that comes next."""
    return out.rstrip("/") + ending


def run(command: Callable[[], str | int | None]) -> int:
    """Run a command; return its exit status. A text that it returns is printed, a number is the status.

    What the user can mend is one line on stderr and status 2; Ctrl-C is one line and 130. Other errors are ours, and
    keep their traceback.
    """
    try:
        result = command()
        if isinstance(result, str):
            _print(result)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped (distill: with --resume)", file=sys.stderr)
        return INTERRUPTED
    except USER_ERRORS as error:
        if verbose():
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # a full disk, or a pipe that nobody reads: Python would try again at its end
        sys.stdout = None  # pyright: ignore[reportAttributeAccessIssue]
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `malgradcam COMMAND ...`; return the exit status."""
    given = take_verbose(arguments)
    name = given[0] if given else "--help"
    if name in SHORTCUTS:
        given = [*SHORTCUTS[name], *given[1:]]
        name = given[0]
    if name in COMMANDS:
        return importlib.import_module(f"{name}.__main__").main(given[1:])
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(importlib.metadata.version(SCRIPT))
        return 0
    print(f"error: unknown command {one_line(ValueError(name))!r}; commands: {', '.join(COMMANDS)}", file=sys.stderr)
    return 2


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            f"usage: {SCRIPT} COMMAND ...",
            "",
            "Distill a black-box image classifier once, then explain and score a whole data set.",
            "",
            "commands:",
            *(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()),
            "",
            f"`{SCRIPT} explain-image photo.jpg --teacher onnx:model.onnx` explains one photograph in seconds.",
            f"`{SCRIPT} COMMAND --help` lists a command's options; `{SCRIPT} --version` prints the version.",
            VERBOSE_HELP,
        ]
    )
