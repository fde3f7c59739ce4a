"""Calls into code that is not this project's: a user's callable, a model that MLflow runs, an exported program.

Such code raises what it likes: exceptions of client libraries are often children of `Exception` alone. So this is the
one place where `Exception` is caught, around one call; whatever it is becomes an error of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distill.teachers.errors import NoReplyError, TeacherError, one_line

FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, NameError),
    *(ReferenceError, RuntimeError, StopAsyncIteration, StopIteration, SyntaxError, SystemError, TypeError, ValueError),
    Warning,
)
"""Python's own exceptions for a wrong value or wrong code, with what derives from them: calling again is no use."""
OF_THE_MACHINE = (MemoryError, torch.OutOfMemoryError)
"""Not the image's fault, nor the model's."""


def call_foreign(function: Callable[[Any], Any], given: Any, *, spec: str) -> Any:
    """Return what foreign code returns for one batch.

    Args:
        function: the code.
        given: its argument.
        spec: the teacher, for messages.

    Raises:
        NoReplyError: it timed out or lost a connection, or raised an exception of a library's own: it is called again.
        TeacherError: it failed otherwise.
    """
    try:
        return function(given)
    except OF_THE_MACHINE:
        raise
    except TeacherError:
        raise
    except FAULTS as error:
        raise TeacherError(f"teacher {spec!r} failed: {one_line(error)}") from error
    except Exception as error:  # an OSError, or a client library's own
        raise NoReplyError(f"teacher {spec!r} gave no reply: {one_line(error)}") from error
