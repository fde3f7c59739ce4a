"""Make a black box from a torch module, as an ONNX file or a torch.export archive, its `teacher.toml` beside it."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cluster.storage import Folder
from distill.teachers.teacher_toml import NAME, Description

MODEL_NAME = "model.onnx"
ARCHIVE_NAME = "model.pt2"
MAX_BATCH = 4096  # images that an archive takes at once


def export_onnx(module: nn.Module, folder: str | os.PathLike[str], description: Description) -> str:
    """Write `model.onnx` and `teacher.toml` into a folder, ready for `onnx:FOLDER/model.onnx`.

    Args:
        module: takes normalized float32 pixels (B, 3, H, W), returns (B, K); exported in eval mode.
        folder: path or URI, made if it is not there; the two files are replaced.
        description: what `teacher.toml` is to say.

    Returns:
        The path or URI of `model.onnx`.

    Raises:
        ValueError: the ONNX exporter is not installed.
        WorkError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as here:
        path = Path(here) / MODEL_NAME
        _export(module, path, description.input_size)
        content = path.read_bytes()
    return _write(folder, description, MODEL_NAME, content)


def export_archive(module: nn.Module, folder: str | os.PathLike[str], description: Description) -> str:
    """Write `model.pt2` and `teacher.toml` into a folder, ready for `torch:FOLDER/model.pt2` on a GPU or on cores.

    Each batch norm is folded into the convolution before it, so that the logits change in their last bits. The
    arguments are `export_onnx`'s.

    Returns:
        The path or URI of `model.pt2`.

    Raises:
        WorkError: the folder cannot be written.
    """
    folded = fold_batch_norms(copy.deepcopy(module).eval())
    batch = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    program = torch.export.export(folded, (torch.zeros(2, 3, *description.input_size),), dynamic_shapes=(batch,))
    content = io.BytesIO()
    torch.export.save(program, content)
    return _write(folder, description, ARCHIVE_NAME, content.getvalue())


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Multiply each batch norm of a module in eval mode into the convolution before it, in place; return the module.

    Where a convolution and its norm are children of one module, the norm has to come next.
    """
    for parent in list(module.modules()):
        children = [(n, c) for n, c in parent.named_children() if isinstance(c, nn.Conv2d | nn.BatchNorm2d)]
        for (first, conv), (second, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, first, fuse_conv_bn_eval(conv, norm))
                setattr(parent, second, nn.Identity())
    return module


def _write(folder: str | os.PathLike[str], description: Description, name: str, content: bytes) -> str:
    out = Folder(os.fspath(folder))
    out.write_bytes(NAME, description.to_toml().encode())
    out.write_bytes(name, content)
    return out.child(name).uri


def require_exporter() -> None:
    """Check that `export_onnx` can work here. Raises: ValueError where a package is missing."""
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ModuleNotFoundError as error:
        raise ValueError("exporting to ONNX needs onnx and onnxscript; pip install onnx onnxscript") from error


def _export(module: nn.Module, path: Path, input_size: tuple[int, int]) -> None:
    require_exporter()
    was_training = module.training
    with _quiet():
        torch.onnx.export(
            module.eval(),
            (torch.zeros(2, 3, *input_size),),  # 2: a batch of 1 would be taken for a constant
            str(path),
            input_names=["images"],
            output_names=["outputs"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    module.train(was_training)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its warnings about its own internals away from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
