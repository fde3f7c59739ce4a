"""A torch module as a black box, computed as it stands, with the process's own number of threads.

In float32, unless its description names a shorter number format and there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distill.teachers.base import Teacher
from distill.teachers.errors import TeacherError
from distill.teachers.foreign import call_foreign
from distill.teachers.outputs import only_tensor
from distill.teachers.teacher_toml import Precision


class EagerTeacher(Teacher):
    """A module or any callable from normalized pixels to one tensor (B, K)."""

    def __init__(
        self, module: Callable[[torch.Tensor], Any], *, device: str, precision: Precision = "auto", **description: Any
    ) -> None:
        """Wrap the module, which is on `device` already; the other arguments are `Teacher`'s."""
        shorter = precision if device != "cpu" and precision != "auto" else "float32"
        super().__init__(engine=f"torch-{shorter}-{device}", **{"batch_size": batch_images(device), **description})
        self._module = module
        self._dtype: torch.dtype = getattr(torch, shorter)
        self.device = device

    @property
    def module(self) -> torch.nn.Module | None:
        """Return the module, if it is a torch network in eval mode that returns logits."""
        module = self._module
        if not isinstance(module, torch.nn.Module) or self.output != "logits" or self.num_outputs == 1:
            return None
        return None if any(part.training for part in module.modules()) else module

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        moved = pixels.to(self.device, copy=True)  # a copy: the module may work in place
        if self._dtype == torch.float32:
            outputs = call_foreign(self._module, moved, spec=self.spec)
        else:
            with torch.autocast("cuda", self._dtype):
                outputs = call_foreign(
                    self._module, moved.contiguous(memory_format=torch.channels_last), spec=self.spec
                )
        try:
            return only_tensor(outputs)
        except ValueError as error:
            raise TeacherError(f"teacher {self.spec!r} {error}") from error


def batch_images(device: str) -> int:
    """Return how many images are computed at once where the caller does not say: a GPU needs many to be busy."""
    return 8 if device == "cpu" else 64


def check_device(device: str) -> None:
    """Raise ValueError where torch has no such device."""
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise ValueError(
            f"device {device!r} is not there; allowed: cpu" + (", cuda" if torch.cuda.is_available() else "")
        )
