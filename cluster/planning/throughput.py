"""What a job measured of itself: items a second and worker, bytes and queries an item, and on which machine.

Every job leaves one in its manifest, under `rate`, so that `cluster.planning.cost_model` can say what more of the same
costs.
"""

import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

CPUINFO = Path("/proc/cpuinfo")
OPTIONAL = ("per_image", "num_bytes", "queries", "settings")  # a rate that a person writes down may leave these out


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One job's measurement of itself, over the items of its last start that have no error."""

    job: str
    """What ran, in words."""
    kind: Literal["training", "images"]
    """What the work grows with: training images times epochs, or images."""
    items: int
    """Items done: training images, images, or what `per_image` says."""
    worker_seconds: float
    """Time at work, added up over workers; without starting them."""
    num_workers: int
    """Workers that ran at once."""
    cpus: int
    """Cores of one worker."""
    gpus: int
    """GPUs of one worker."""
    machine: str
    """What a worker ran on: its GPU, else its processor."""
    per_image: int = 1
    """Items that each image gives, such as one for each of several methods."""
    num_bytes: int = 0
    """Bytes that were stored."""
    queries: int = 0
    """What was asked of a model outside."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the rate depends on and a plan must have in common with it."""

    def __post_init__(self) -> None:
        """Check what a file may hold."""
        for name in ("items", "worker_seconds", "num_workers", "per_image"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of the rate of {self.job!r} is {getattr(self, name)}; it must be above 0")
        if self.kind not in ("training", "images"):
            raise ValueError(f"kind {self.kind!r} of the rate of {self.job!r} is unknown; give training or images")


def rate_from(fields: object) -> Rate:
    """Make a rate of what a manifest or a file holds. Raises: ValueError where it is none."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"a rate is an object, got {type(fields).__name__}")
    known = {f.name for f in dataclasses.fields(Rate)}
    needed = {f.name for f in dataclasses.fields(Rate) if f.name not in OPTIONAL}
    wrong = sorted((needed - set(fields)) | (set(fields) - known))
    if wrong:
        raise ValueError(f"a rate has {', '.join(sorted(known))}; missing or unknown: {', '.join(wrong)}")
    return Rate(**fields)


class Meter:
    """Time a job that goes step by step. The clock starts at the end of the first step, whose set-up counts as none."""

    def __init__(self) -> None:
        self._started_s: float | None = None
        self._items = 0

    def count(self, items: int) -> None:
        """Count a step's items."""
        if self._started_s is None:
            self._started_s = time.monotonic()
        else:
            self._items += items

    def measured(self) -> tuple[int, float]:
        """Return the items after the first step and the seconds that they took, all that came between included."""
        seconds = 0.0 if self._started_s is None else time.monotonic() - self._started_s
        return self._items, seconds


def machine() -> str:
    """Name what computes in this process: its GPU, else the processor."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
