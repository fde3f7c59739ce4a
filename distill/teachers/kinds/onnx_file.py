"""`onnx:model.onnx`: an ONNX file with its `teacher.toml`, on ONNX Runtime or OpenVINO, whichever is faster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.teachers.base import Teacher
from distill.teachers.engines.backends import WITHOUT_CUDA, Run, has_cuda, open_engine
from distill.teachers.engines.selection import choose_engine
from distill.teachers.teacher_toml import Description, read_description


class OnnxTeacher(Teacher):
    """An ONNX model, called in static batches."""

    own_threads = True

    def __init__(self, run: Run, **description: Any) -> None:
        """Wrap an engine's call; the other arguments are `Teacher`'s."""
        super().__init__(**description)
        self._run = run

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        outputs = self._run(np.ascontiguousarray(pixels.cpu().numpy()))
        return torch.from_numpy(np.asarray(outputs, dtype=np.float32))


def open_teacher(where: str, *, spec: str, num_threads: int | None, device: str) -> Teacher:
    """Load an ONNX file; `load_teacher` says how.

    The file's weights may lie in files beside it whose names begin with the model's (`model.onnx.data`).
    """
    path = Path(where)
    return open_model(path, read_description(path), spec=spec, num_threads=num_threads, device=device)


def open_model(path: Path, described: Description, *, spec: str, num_threads: int | None, device: str) -> Teacher:
    """Load an ONNX file that is described; the other arguments are `load_teacher`'s."""
    beside = sorted(file for file in path.parent.glob(f"{path.name}*") if file.is_file() and file != path)
    fingerprint = described.fingerprint(path, *beside)
    if device != "cpu" and not has_cuda():
        logging.getLogger(__name__).warning("%s runs on the CPU: %s", path, WITHOUT_CUDA)
        device = "cpu"
    choice = choose_engine(path, described, fingerprint, device=device)
    run = open_engine(path, described.input_size, choice, num_threads=num_threads, device=device)
    teacher = OnnxTeacher(
        run,
        spec=spec,
        input_size=described.input_size,
        mean=described.mean,
        std=described.std,
        fingerprint=fingerprint,
        engine=str(choice),
        output=described.output,
        class_names=described.classes,
        batch_size=choice.batch_size,
    )
    return teacher.finish()
