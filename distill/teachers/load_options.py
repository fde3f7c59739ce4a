"""What `load_teacher` passes to the module of a teacher kind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a teacher is loaded."""

    spec: str
    """the KIND:WHERE that it is known by from then on"""
    num_threads: int | None = None
    """CPU threads for the engine; None leaves the engine's own choice"""
    device: str = "cpu"
    """where a torch or ONNX Runtime engine runs"""
    expected_fingerprint: str | None = None
    """of the teacher that a job started with; None accepts any"""
