"""Black boxes behind one protocol: one file per kind, found by the `KIND` of a `KIND:WHERE` string.

Heavy imports wait until a teacher is loaded, so that a command can check its `--teacher` before any work.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.errors import WorkError
from distill.teachers.errors import RefusedImageError, TeacherError
from distill.teachers.load_options import LoadOptions
from distill.teachers.teacher_toml import model_file

if TYPE_CHECKING:
    from distill.teachers.base import Teacher

KINDS = {
    "torchvision": "distill.teachers.kinds.torchvision_model",
    "torch": "distill.teachers.kinds.torch_archive",
    "onnx": "distill.teachers.kinds.onnx_file",
    "python": "distill.teachers.kinds.python_callable",
    "http": "distill.teachers.kinds.http_server",
    "https": "distill.teachers.kinds.http_server",
    "mlflow": "distill.teachers.kinds.mlflow_model",
    "mlflow-unpickle": "distill.teachers.kinds.mlflow_model",
}
FILE_KINDS = ("torch", "onnx")
EXAMPLES = (
    "torchvision:resnet50, torch:model.pt2, onnx:model.onnx, python:package.module:factory, "
    "http://host:8080/v2/models/NAME#teacher.toml, mlflow:models:/NAME/1"
)

__all__ = ["EXAMPLES", "KINDS", "RefusedImageError", "Teacher", "TeacherError", "load_teacher", "split_spec"]


def split_spec(spec: str) -> tuple[str, str]:
    """Split a teacher's `KIND:WHERE` into its two parts, without loading anything.

    Raises:
        ValueError: there is no `KIND:`, the kind is unknown, or nothing follows it.
    """
    kind, colon, where = spec.partition(":")
    if not colon or kind not in KINDS or not where:
        problem = f"unknown teacher kind {kind!r}" if colon and where else "a teacher is KIND:WHERE"
        raise ValueError(f"teacher {spec!r}: {problem}; kinds: {', '.join(KINDS)}; write it like one of: {EXAMPLES}")
    return kind, where


def load_teacher(
    spec: str, *, num_threads: int | None = None, device: str = "cpu", expected_fingerprint: str | None = None
) -> Teacher:
    """Load the black box that `spec` names.

    Args:
        spec: `KIND:WHERE`, such as `onnx:model.onnx`.
        num_threads: CPU threads for the engine; None leaves the engine's own choice.
        device: where a torch or ONNX Runtime engine runs, such as "cpu" or "cuda".
        expected_fingerprint: the fingerprint of the teacher that a job started with; a worker gives it, so that it
            computes with that very model. None accepts any.

    Raises:
        WorkError: the teacher is not the expected one.
        ValueError: the kind is unknown, or what it names cannot be used; the message says what to do.
        FileNotFoundError: a model file or its `teacher.toml` is not there.
    """
    kind, where = split_spec(spec)
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; it must be at least 1, or None for the engine's choice")
    module = importlib.import_module(KINDS[kind])
    options = LoadOptions(spec=spec, num_threads=num_threads, device=device, expected_fingerprint=expected_fingerprint)
    if kind not in FILE_KINDS:
        teacher = module.open_teacher(where, options)
    else:
        # Absolute, so that a worker in another folder finds it and a rerun knows it again.
        with model_file(where, module.list_parts) as (uri, path):
            teacher = module.open_teacher(str(path), replace(options, spec=f"{kind}:{uri}"))
    check_fingerprint(teacher, expected_fingerprint)
    return teacher


def check_fingerprint(teacher: Teacher, expected: str | None) -> None:
    """Check that a teacher is the one that a job started with, where `expected` says which.

    Raises:
        WorkError: it is another one.
    """
    if expected is not None and teacher.fingerprint != expected:
        raise WorkError(
            f"teacher {teacher.spec!r} has fingerprint {teacher.fingerprint}, but this job started with {expected}: "
            "its files, description or server changed since. Put the old model back, or start the job again in a new "
            "folder"
        )


def __getattr__(name: str) -> Any:
    if name == "Teacher":
        return importlib.import_module("distill.teachers.base").Teacher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
