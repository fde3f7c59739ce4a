"""A torch module as a black box, computed as it stands, in float32, with the process's own number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distill.teachers.base import Teacher
from distill.teachers.errors import TeacherError


class EagerTeacher(Teacher):
    """A module or any callable from normalised pixels to one tensor (B, K)."""

    def __init__(self, module: Callable[[torch.Tensor], Any], *, device: str, **description: Any) -> None:
        """Wrap the module, which is on `device` already; the other arguments are `Teacher`'s."""
        super().__init__(engine=f"torch-float32-{device}", **description)
        self._module = module
        self._device = device

    @property
    def module(self) -> torch.nn.Module | None:
        """Return the module, if it is a torch network in eval mode that returns logits."""
        module = self._module
        if not isinstance(module, torch.nn.Module) or self.output != "logits":
            return None
        return None if any(part.training for part in module.modules()) else module

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        moved = pixels.to(self._device, copy=True)  # a copy: the module may work in place
        outputs = self._module(moved)
        if not isinstance(outputs, torch.Tensor):
            raise TeacherError(f"teacher {self.spec!r} returned {type(outputs).__name__}; allowed: one tensor (B, K)")
        return outputs


def check_device(device: str) -> None:
    """Raise ValueError where torch has no such device."""
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise ValueError(
            f"device {device!r} is not there; allowed: cpu" + (", cuda" if torch.cuda.is_available() else "")
        )
