"""Errors that users can mend, and how they are shown: one line, whatever bytes are in it."""

import re
import unicodedata


class WorkError(RuntimeError):
    """No work can come of any shard: a worker that raises it ends the job, and the message is for the user."""


USER_ERRORS = (ValueError, OSError, WorkError, MemoryError)
"""What a command prints in one line, in the driver and in a worker: wrong input, a disk, a store, a network, memory."""
MAX_SHOWN_CHARS = 3000
# Control and format characters, lone surrogates, line and paragraph separators: a name that holds one may look like
# another, turn the text around it, or command a terminal. Words of some scripts need the two joiners.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
KEPT = "\n\u200c\u200d"


def visible(text: str) -> str:
    r"""Write hidden characters as their escapes, such as \u202e for the mark that turns text around."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in KEPT or unicodedata.category(c) not in HIDDEN else _escape(c) for c in text)


def one_line(error: BaseException) -> str:
    """Return an error's message as one line without control characters; of an error in a worker, what it raised."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):  # as Ray wraps it
        error = cause
    text = re.sub(r"\s*[\n\r]\s*", " ", str(error).strip()) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}); give a smaller number, size or batch, or fewer workers"
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[: MAX_SHOWN_CHARS // 2]} ... {text[-MAX_SHOWN_CHARS // 2 :]}"
    return visible(text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
