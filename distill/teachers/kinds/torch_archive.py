"""`torch:model.pt2`: a torch.export archive with its `teacher.toml`; without a GPU, OpenVINO where it is faster."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import treespec_leaf

from distill.teachers.archives.validate import check_archive
from distill.teachers.base import Teacher
from distill.teachers.cache import read_small
from distill.teachers.engines.backends import Run, open_program
from distill.teachers.engines.selection import choose_archive_engine
from distill.teachers.kinds.torch_module import EagerTeacher, batch_images, check_device
from distill.teachers.load_options import LoadOptions
from distill.teachers.teacher_toml import Description, read_toml, require_files

MAX_ARCHIVE_BYTES = 2**33


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
        from distill.teachers.archives.unflatten import open_network, refusal

        if self.num_outputs == 1:
            raise refusal(self.spec, "it has one output, and a method looks for the logit of one class of two;")

        return open_network(self._program, self.spec, self.input_size)


def open_teacher(where: str, options: LoadOptions) -> Teacher:
    """Load a torch.export archive without unpickling anything; `load_teacher` says how."""
    path = Path(where)
    return open_model(path, require_files(path), options)


def list_parts(path: Path) -> Sequence[str]:
    """List the other files of an archive: none."""
    del path
    return ()


def open_model(path: Path, toml: Path, options: LoadOptions) -> Teacher:
    """Load a torch.export archive that `toml` describes."""
    described, device = read_toml(toml, Description), options.device
    check_device(device)
    content = read_small(path, MAX_ARCHIVE_BYTES)
    program = _load_program(content, path)
    batch_size = _batch_size(program, described, path, described.batch_size or batch_images(device))
    fingerprint, run, engine = described.fingerprint(content), None, ""
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    else:
        opened = functools.partial(open_program, program, described.input_size, name=str(path))
        choice = choose_archive_engine(described, fingerprint, batch_size, functools.partial(opened, num_threads=None))
        if choice.engine != "eager":
            run, engine = opened(choice, num_threads=options.num_threads), str(choice)
    teacher = ArchiveTeacher(
        program,
        run,
        engine,
        device=device,
        precision=described.precision,
        spec=options.spec,
        input_size=described.input_size,
        mean=described.mean,
        std=described.std,
        fingerprint=fingerprint,
        output=described.output,
        class_names=described.classes,
        batch_size=batch_size,
    )
    return teacher.finish()


def _load_program(content: bytes, path: Path) -> torch.export.ExportedProgram:
    """Load a checked archive whose one output comes bare. Raises: ValueError."""
    check_archive(content, str(path))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # nobody writes to it
            program = torch.export.load(io.BytesIO(content))  # the bytes that were checked, not the file's of now
    except (RuntimeError, ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"torch {torch.__version__} cannot load {path}: {error}; export it again with it") from error
    if len(program.graph_signature.user_outputs) != 1:
        raise ValueError(
            f"{path} returns {len(program.graph_signature.user_outputs)} values; allowed: one tensor (B, K). Export a "
            "module that returns the class outputs alone"
        )
    signature = program.module_call_graph[0].signature
    if signature is not None:
        signature.out_spec = treespec_leaf()  # a tensor alone in a tuple, list or dict counts as bare
    return program


def _batch_size(program: Any, described: Description, path: Path, wished: int) -> int:
    """Check the program's input and return how many images it takes per call: as many as wished, where it is open."""
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [tuple(value.shape) for value in inputs if isinstance(value, torch.Tensor)]
    wanted = (3, *described.input_size)
    if len(inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 4 or inputs[0].dtype != torch.float32:
        raise ValueError(f"{path} takes {shapes}; allowed: one float32 tensor {('B', *wanted)}; export it so")
    batch, *others = shapes[0]
    if any(isinstance(got, int) and got != want for got, want in zip(others, wanted, strict=True)):
        raise ValueError(
            f"{path} takes {shapes[0]}; its teacher.toml says {('B', *wanted)}; correct input_size (height, width)"
        )
    if isinstance(batch, int):
        if described.batch_size not in (None, batch):
            raise ValueError(f"{path} takes {batch} images at a time; correct batch_size in its teacher.toml")
        return replace(described, batch_size=batch).batch_size or batch
    allowed = program.range_constraints.get(batch.node.expr)
    lowest, highest = (1, wished) if allowed is None else (allowed.lower, allowed.upper)
    return int(max(lowest, min(wished, highest)))
