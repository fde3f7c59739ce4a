"""The command line that made a result: stored beside its configuration, and written so that it can be copied.

A configuration says what decided a result; the command says how to make it again. It is no part of any hash.
"""

import contextlib
import contextvars
import importlib.metadata
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cluster.errors import visible

COMMAND = "_command.json"
PROGRAMS = ("distill", "explain", "evaluate")
"""Packages whose commands are stored, and shown again; whatever else a file names is not shown as a command."""
MAX_CHARS = 160  # of a command on one line
MAX_WORDS = 1000
PLAIN = re.compile(r"(?!None$)[\w.+-]{1,60}")  # a version or a revision
PASSWORD = re.compile(r"(://)[^/@\s]*@")
_running: contextvars.ContextVar[tuple[str, tuple[str, ...]] | None] = contextvars.ContextVar("running", default=None)


class JsonFolder(Protocol):
    """A folder of JSON files, as `cluster.storage.Folder` is one."""

    def exists(self, name: str) -> bool:
        """Tell whether a file is there."""
        ...

    def read_json(self, name: str) -> Any:
        """Read a file."""
        ...

    def write_json(self, name: str, value: Any) -> None:
        """Write a file."""
        ...


@contextlib.contextmanager
def running(program: str, arguments: Sequence[str]) -> Iterator[None]:
    """Let what is stored in the block know its command: `python -m PROGRAM ARGUMENTS`."""
    token = _running.set((program, tuple(arguments)))
    try:
        yield
    finally:
        _running.reset(token)


def describe() -> dict[str, Any] | None:
    """Describe the running command; None where Python code started the work."""
    command = _running.get()
    if command is None:
        return None
    program, arguments = command
    return {
        "program": program,
        "arguments": [PASSWORD.sub(r"\1", word) for word in arguments],
        "folder": str(Path.cwd()),
        "version": importlib.metadata.version("malgradcam"),
        "revision": _revision(),
    }


def store(folder: JsonFolder, name: str = COMMAND) -> None:
    """Write the running command into a folder, where there is one."""
    command = describe()
    if command is not None:
        folder.write_json(name, command)


def stored(folder: JsonFolder, name: str = COMMAND) -> dict[str, Any] | None:
    """Read the command that made a folder's content; None where it holds none, or one that cannot be read."""
    try:
        command = folder.read_json(name) if folder.exists(name) else None
    except (ValueError, OSError):
        return None
    return command if isinstance(command, dict) and _is_command(command) else None


def _is_command(command: Mapping[str, Any]) -> bool:
    words = command.get("arguments")
    if not isinstance(words, list) or len(words) > MAX_WORDS or str(command.get("program")) not in PROGRAMS:
        return False
    return all(isinstance(text, str) for text in (command.get("folder"), *words))


def shell_lines(command: Mapping[str, Any]) -> str:
    """Write a command for a POSIX shell, every word quoted, with a line for each option where it would be long."""
    parts = [f"python -m {command['program']}"]
    for word in map(shell_word, command["arguments"]):
        if word.startswith("--"):
            parts.append(word)
        else:
            parts[-1] += f" {word}"
    line = " ".join(parts)
    return line if len(line) <= MAX_CHARS else " \\\n    ".join(parts)


def shell_place(command: Mapping[str, Any]) -> str:
    """Write for a POSIX shell where a command ran, and with which version of the code."""
    about = [str(command.get(key)) for key in ("version", "revision")]
    known = [f"{key} {text}" for key, text in zip(("version", "revision"), about, strict=True) if PLAIN.fullmatch(text)]
    return f"cd {shell_word(command['folder'])}" + (f"  # malgradcam, {', '.join(known)}" if known else "")


def shell_word(word: str) -> str:
    """Quote a word; one with characters that hide or act on a terminal is written with their escapes."""
    return shlex.quote(visible(word).replace("\n", "\\n"))


def _revision() -> str | None:
    """Return the git revision of the code, `-dirty` behind it where files differ; None outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    return None
