"""`python:package.module:factory`: any callable from uint8 images to probabilities, such as a system of one's own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.teachers.base import Teacher
from distill.teachers.errors import TeacherError
from distill.teachers.foreign import call_foreign
from distill.teachers.load_options import LoadOptions
from distill.teachers.model_history import ModelHistory
from distill.teachers.teacher_toml import Description, Output


class PythonTeacher(Teacher):
    """A callable that sees uint8 images only, so that float frames are rounded to what it could have been shown.

    Its batches are the caller's unless it has a `batch_size`: a call may cost money, and padding would be paid for.
    """

    quantized = True

    def __init__(
        self, function: Callable[[np.ndarray], Any], *, output: Output = "probabilities", **description: Any
    ) -> None:
        """Wrap the callable; the other arguments are `Teacher`'s. Raises: ValueError for values that no teacher has."""
        colors = {name: tuple(map(float, description[name])) for name in ("mean", "std")}
        sizes = {"input_size": tuple(map(index, description["input_size"])), "batch_size": description["batch_size"]}
        Description(output=output, **colors, **sizes)
        super().__init__(engine="python", output=output, **{**description, **colors, **sizes})
        self._function = function

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        outputs = call_foreign(self._array, self.levels(pixels).cpu().numpy(), spec=self.spec)
        if outputs.dtype.kind not in "fiu":
            raise TeacherError(f"teacher {self.spec!r} returned {outputs.dtype}; allowed: an array of numbers (B, K)")
        return torch.from_numpy(np.array(outputs, dtype=np.float32))

    def _array(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._function(images))


def open_teacher(where: str, options: LoadOptions) -> Teacher:
    """Import the module, call the factory, look at what it returned; `load_teacher` says how.

    The callable has `input_size` (height, width). It may have `mean` and `std` (of pixels in [0, 1]; they only say
    what "zero in normalized space" is), `classes`, `num_classes`, `batch_size`, `output` ("probabilities", or "sigmoid"
    for several labels an image), and a string `fingerprint` that changes with its weights; without it the module's
    source and its responses to made-up images stand for them.
    """
    factory = find_factory(where)
    function = factory()
    size = getattr(function, "input_size", None)
    if not callable(function) or size is None or len(size) != 2:
        raise ValueError(
            f"{where} returned {type(function).__name__} with input_size {size!r}; allowed: a callable from uint8 "
            "(B, H, W, 3) to probabilities (B, K) with an attribute input_size = (height, width)"
        )
    fingerprint = _fingerprint(factory, function, where)
    names = getattr(function, "classes", None)
    teacher = PythonTeacher(
        function,
        spec=options.spec,
        input_size=(int(size[0]), int(size[1])),
        mean=tuple(getattr(function, "mean", (0.485, 0.456, 0.406))),  # ImageNet's, as most classifiers have
        std=tuple(getattr(function, "std", (0.229, 0.224, 0.225))),
        fingerprint=fingerprint,
        output=_output(function, where),
        class_names=None if names is None else tuple(names),
        batch_size=getattr(function, "batch_size", None),
    )
    if getattr(function, "fingerprint", None) is None:
        teacher.history = ModelHistory(fingerprint, name=options.spec, expected=options.expected_fingerprint)
    return teacher.finish(getattr(function, "num_classes", None))


def _output(function: Any, where: str) -> Output:
    output = getattr(function, "output", "probabilities")
    if output not in ("probabilities", "sigmoid"):
        raise ValueError(f'{where} returned a callable with output {output!r}; allowed: "probabilities" or "sigmoid"')
    return output


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
    return hashlib.sha256(f"{where}\n{own}".encode()).hexdigest()
