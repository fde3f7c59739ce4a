"""`python:package.module:factory`: any callable from uint8 images to probabilities, such as a system of one's own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.teachers.base import Teacher
from distill.teachers.errors import NoReplyError, TeacherError


class PythonTeacher(Teacher):
    """A callable that sees uint8 images only, so that float frames are rounded to what it could have been shown.

    Its batches are the caller's unless it has a `batch_size`: a call may cost money, and padding would be paid for.
    """

    quantized = True

    def __init__(self, function: Callable[[np.ndarray], Any], **description: Any) -> None:
        """Wrap the callable; the other arguments are `Teacher`'s."""
        super().__init__(engine="python", output="probabilities", **description)
        self._function = function

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        found = call(self._function, self.levels(pixels).cpu().numpy(), spec=self.spec)
        outputs = np.asarray(found)
        if outputs.dtype.kind not in "fiu":
            raise TeacherError(f"teacher {self.spec!r} returned {outputs.dtype}; allowed: an array of numbers (B, K)")
        return torch.from_numpy(np.array(outputs, dtype=np.float32))


def open_teacher(where: str, *, spec: str, num_threads: int | None, device: str) -> Teacher:
    """Import the module, call the factory, look at what it returned; `load_teacher` says how.

    The callable has `input_size` (height, width). It may have `mean` and `std` (of pixels in [0, 1]; they only say
    what "zero in normalized space" is), `classes`, `num_classes`, `batch_size`, and a string `fingerprint` that
    changes with its weights; without it the module's source stands for them.
    """
    del num_threads, device
    factory = find_factory(where)
    function = factory()
    size = getattr(function, "input_size", None)
    if not callable(function) or size is None or len(size) != 2:
        raise ValueError(
            f"{where} returned {type(function).__name__} with input_size {size!r}; allowed: a callable from uint8 "
            "(B, H, W, 3) to probabilities (B, K) with an attribute input_size = (height, width)"
        )
    names = getattr(function, "classes", None)
    teacher = PythonTeacher(
        function,
        spec=spec,
        input_size=(int(size[0]), int(size[1])),
        mean=tuple(getattr(function, "mean", (0.485, 0.456, 0.406))),  # ImageNet's, as most classifiers have
        std=tuple(getattr(function, "std", (0.229, 0.224, 0.225))),
        fingerprint=_fingerprint(factory, function, where),
        class_names=None if names is None else tuple(names),
        batch_size=getattr(function, "batch_size", None),
    )
    return teacher.finish(getattr(function, "num_classes", None))


def call(function: Callable[[Any], Any], given: Any, *, spec: str) -> Any:
    """Return what a teacher's function returns.

    Raises:
        NoReplyError: it timed out, or lost a connection.
        TeacherError: it failed otherwise.
    """
    try:
        return function(given)
    except OSError as error:  # timeouts and lost connections are among them
        raise NoReplyError(f"teacher {spec!r} gave no reply: {type(error).__name__}: {error}") from error
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        raise TeacherError(f"teacher {spec!r} failed: {type(error).__name__}: {error}") from error


def find_factory(where: str) -> Callable[[], Any]:
    """Find the function that `package.module:factory` names.

    Raises:
        ValueError: it cannot be imported, or is no function.
    """
    module_name, colon, attribute = where.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"python teacher {where!r}; allowed: package.module:factory")
    try:
        factory = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"python teacher {where!r}: {error}; run where it can be imported, or set PYTHONPATH"
        ) from error
    if not callable(factory):
        raise ValueError(f"module {module_name} has no function {attribute!r}; give one that takes nothing")
    return factory


def _fingerprint(factory: Callable[[], Any], function: Any, where: str) -> str:
    own = getattr(function, "fingerprint", None)
    if own is None:
        source = inspect.getsourcefile(inspect.unwrap(factory))
        own = Path(source).read_text(encoding="utf-8") if source else where
    return hashlib.sha256(f"{where}\n{own}".encode()).hexdigest()[:12]
