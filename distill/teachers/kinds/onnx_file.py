"""`onnx:model.onnx`: an ONNX file with its `teacher.toml`, on ONNX Runtime or OpenVINO, whichever is faster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.errors import WorkError
from distill.teachers.archives.validate_onnx import check_mode, find_weights, read_graph, weight_files
from distill.teachers.base import Teacher
from distill.teachers.engines.backends import WITHOUT_CUDA, Run, has_cuda, open_engine
from distill.teachers.engines.onnx_description import OnnxDescription, read_onnx_description
from distill.teachers.engines.selection import choose_engine
from distill.teachers.load_options import LoadOptions
from distill.teachers.teacher_toml import read_toml, require_files
from distill.teachers.tensor_model import as_input


class OnnxTeacher(Teacher):
    """An ONNX model, called in static batches."""

    own_threads = True

    def __init__(self, run: Run, described: OnnxDescription, **description: Any) -> None:
        """Wrap an engine's call and what the model takes; the other arguments are `Teacher`'s."""
        super().__init__(
            input_size=described.input_size,
            mean=described.mean,
            std=described.std,
            output=described.output,
            class_names=described.classes,
            **description,
        )
        self._run, self._described = run, described
        self.quantized = described.datatype == "UINT8"

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        images = self.levels(pixels).permute(0, 3, 1, 2) if self.quantized else pixels
        outputs = self._run(as_input(images.cpu().numpy(), self._described.layout, self._described.datatype))
        return torch.from_numpy(np.asarray(outputs, dtype=np.float32))


def open_teacher(where: str, options: LoadOptions) -> Teacher:
    """Load an ONNX file, whose weights may lie in files beside it; `load_teacher` says how."""
    path = Path(where)
    return open_model(path, require_files(path), options)


def open_model(path: Path, toml: Path, options: LoadOptions) -> Teacher:
    """Load an ONNX file that `toml` describes."""
    read_toml(toml, OnnxDescription, assumed={"input_size": (1, 1)})  # its faults first: the file may say the size
    graph = read_graph(path)
    weights = find_weights(path, weight_files(graph, str(path)))
    check_mode(graph, str(path))
    del graph
    described, identity = read_onnx_description(path, toml)
    fingerprint = described.fingerprint(path, *weights, **identity)
    device = options.device
    if device != "cpu" and not has_cuda():
        logging.getLogger(__name__).warning("%s runs on the CPU: %s", path, WITHOUT_CUDA)
        device = "cpu"
    choice = choose_engine(path, described, fingerprint, device=device)
    run = open_engine(
        path,
        described.input_size,
        choice,
        num_threads=options.num_threads,
        device=device,
        layout=described.layout,
        output=described.output_tensor,
    )
    if described.fingerprint(path, *weights, **identity) != fingerprint:
        raise WorkError(f"{path} was changed while it was loaded; start again when it is complete")
    teacher = OnnxTeacher(
        run, described, spec=options.spec, fingerprint=fingerprint, engine=str(choice), batch_size=choice.batch_size
    )
    return teacher.finish()


def list_parts(path: Path) -> Sequence[str]:
    """List the files beside an ONNX file that its weights lie in."""
    return weight_files(read_graph(path), str(path))
