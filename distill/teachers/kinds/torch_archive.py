"""`torch:model.pt2`: a torch.export archive with its `teacher.toml`; without a GPU, OpenVINO where it is faster."""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.teachers.archives.validate import check_archive
from distill.teachers.base import Teacher
from distill.teachers.engines.backends import Run, open_program
from distill.teachers.engines.selection import choose_archive_engine
from distill.teachers.kinds.torch_module import EagerTeacher, batch_images, check_device
from distill.teachers.teacher_toml import Description, read_description


class ArchiveTeacher(EagerTeacher):
    """An exported program as a black box, which opens where it is to be looked into."""

    def __init__(
        self, program: torch.export.ExportedProgram, run: Run | None = None, engine: str = "", **description: Any
    ) -> None:
        """Wrap the program, which is on the device already, and what computes it in torch's place, if anything does.

        The other arguments are `EagerTeacher`'s.
        """
        super().__init__(program.module(), **description)
        self._program, self._run = program, run
        self.engine = engine or self.engine
        self.own_threads = run is not None

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._run is None:
            return super()._outputs(pixels)
        return torch.from_numpy(self._run(np.ascontiguousarray(pixels.numpy())))

    @functools.cached_property
    def module(self) -> torch.nn.Module | None:
        """Return its modules, put together again, if it returns logits. Raises: ValueError where that cannot be."""
        if self.output != "logits":
            return None
        from distill.teachers.archives.unflatten import open_network

        return open_network(self._program, self.spec, self.input_size)


def open_teacher(where: str, *, spec: str, num_threads: int | None, device: str) -> Teacher:
    """Load a torch.export archive without unpickling anything; `load_teacher` says how."""
    path = Path(where)
    return open_model(path, read_description(path), spec=spec, num_threads=num_threads, device=device)


def open_model(path: Path, described: Description, *, spec: str, num_threads: int | None, device: str) -> Teacher:
    """Load a torch.export archive that is described; the other arguments are `load_teacher`'s."""
    check_device(device)
    content = path.read_bytes()
    check_archive(content, str(path))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # nobody writes to it
            program = torch.export.load(
                io.BytesIO(content)
            )  # the bytes that were checked, whatever becomes of the file
    except (RuntimeError, ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"torch {torch.__version__} cannot load {path}: {error}; export it again with it") from error
    batch_size = _batch_size(program, described.input_size, path, batch_images(device))
    fingerprint, run, engine = described.fingerprint(path), None, ""
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    else:
        opened = functools.partial(open_program, program, described.input_size, name=str(path))
        choice = choose_archive_engine(described, fingerprint, batch_size, functools.partial(opened, num_threads=None))
        if choice.engine != "eager":
            run, engine = opened(choice, num_threads=num_threads), str(choice)
    teacher = ArchiveTeacher(
        program,
        run,
        engine,
        device=device,
        precision=described.precision,
        spec=spec,
        input_size=described.input_size,
        mean=described.mean,
        std=described.std,
        fingerprint=fingerprint,
        output=described.output,
        class_names=described.classes,
        batch_size=batch_size,
    )
    return teacher.finish()


def _batch_size(program: Any, input_size: tuple[int, int], path: Path, wished: int) -> int:
    """Check the program's input and return how many images it takes per call: as many as wished, where it is open."""
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [tuple(value.shape) for value in inputs if isinstance(value, torch.Tensor)]
    wanted = (3, *input_size)
    if len(inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 4 or inputs[0].dtype != torch.float32:
        raise ValueError(f"{path} takes {shapes}; allowed: one float32 tensor {('B', *wanted)}; export it so")
    batch, *others = shapes[0]
    if any(isinstance(got, int) and got != want for got, want in zip(others, wanted, strict=True)):
        raise ValueError(
            f"{path} takes {shapes[0]}; its teacher.toml says {('B', *wanted)}; correct input_size (height, width)"
        )
    if isinstance(batch, int):
        return batch
    allowed = program.range_constraints.get(batch.node.expr)
    lowest, highest = (1, wished) if allowed is None else (allowed.lower, allowed.upper)
    return int(max(lowest, min(wished, highest)))
