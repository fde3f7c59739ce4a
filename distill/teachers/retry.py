"""Asking again where there was no reply: after growing waits, and not all workers at the same moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from distill.teachers.errors import NoReplyError

Reply = TypeVar("Reply")
JITTER = (0.5, 1.5)  # of a wait: workers that lost one server do not all come back at once
LONGEST_WAIT_S = 60.0  # that a server may ask for


def retry(ask: Callable[[], Reply], waits_s: Sequence[float]) -> Reply:
    """Return what `ask` returns; where it raises NoReplyError, wait and ask again, once for each of `waits_s`.

    A wait is drawn around the one given, and is at least what the server asked for, up to a minute.

    Raises:
        NoReplyError: there was no reply at the last attempt either.
    """
    for wait_s in waits_s:
        try:
            return ask()
        except NoReplyError as error:
            drawn = wait_s * np.random.default_rng().uniform(*JITTER)  # unseeded: workers are to differ
            time.sleep(max(drawn, min(error.wait_s, LONGEST_WAIT_S)))
    return ask()
