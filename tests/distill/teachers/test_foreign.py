"""Exceptions of code that is not ours: some are worth another call, all others are the teacher's failure."""

import queue
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
import torch

from distill.teachers.errors import NoReplyError, TeacherError
from distill.teachers.foreign import call_foreign


class LibraryError(Exception):
    """As httpx's, grpc's, botocore's and OpenCV's: a child of Exception alone."""


class WrongValueError(ValueError):
    """A library's own kind of a wrong value."""


def raising(error: BaseException) -> Callable[[object], object]:
    def function(given: object) -> object:
        raise error

    return function


@pytest.mark.parametrize(
    "error",
    [
        *(LibraryError("timed out"), TimeoutError("later"), ConnectionResetError(), TimeoutError()),
        *(queue.Empty(), subprocess.TimeoutExpired("x", 3), OSError(5, "input/output")),
    ],
)
def test_what_may_pass_is_no_reply(error: Exception) -> None:
    with pytest.raises(NoReplyError, match=f"'box' gave no reply: {type(error).__name__}"):
        call_foreign(raising(error), 1, spec="box")


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError("a\nb"), WrongValueError("x"), RuntimeError("x"), KeyError("x"), TypeError("x"), NameError("x")),
        *(ZeroDivisionError("x"), AssertionError("x"), ModuleNotFoundError("x"), StopIteration("x"), EOFError("x")),
        *(DeprecationWarning("x"), np.linalg.LinAlgError("x"), RecursionError("x")),
    ],
)
def test_what_stays_is_a_failure(error: Exception) -> None:
    with pytest.raises(TeacherError, match=f"'box' failed: {type(error).__name__}") as caught:
        call_foreign(raising(error), 1, spec="box")
    assert not isinstance(caught.value, NoReplyError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError(), torch.OutOfMemoryError("x")])
def test_what_is_not_the_teachers_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        call_foreign(raising(error), 1, spec="box")


def test_what_is_returned_is_returned() -> None:
    assert call_foreign(lambda given: given + 1, 1, spec="box") == 2
