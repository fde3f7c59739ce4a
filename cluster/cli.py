"""The console script `malgradcam`, and what every command line of the project does with errors and Ctrl-C.

`malgradcam explain ...` is `python -m explain ...`: a command's module is imported when it is called, so that each
answers at once.
"""

import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

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


def verbose() -> bool:
    """Tell whether the user wants tracebacks and Ray's own log on the terminal."""
    return bool(os.environ.get(VERBOSE))


def prog(command: str) -> str:
    """Return how the user started `command`, for its help: `malgradcam explain` or `python -m explain`."""
    started_by_script = Path(sys.argv[0]).name in (SCRIPT, f"{SCRIPT}.exe")
    return f"{SCRIPT} {command}" if started_by_script else f"python -m {command}"


def run(command: Callable[[], str | int | None]) -> int:
    """Run a command; return its exit status. A text that it returns is printed, a number is the status.

    What the user can mend is one line on stderr and status 2; Ctrl-C is one line and 130. Other errors are ours, and
    keep their traceback.
    """
    try:
        result = command()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped (distill: with --resume)", file=sys.stderr)
        return INTERRUPTED
    except USER_ERRORS as error:
        if verbose():
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    if isinstance(result, str):
        print(result)
    return result if isinstance(result, int) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `malgradcam COMMAND ...`; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
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
        ]
    )
