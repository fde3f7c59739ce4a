"""Make an ONNX black box from a torch module: one file, any batch size, its `teacher.toml` beside it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from cluster.storage import Folder
from distill.teachers.description import NAME, Description

MODEL_NAME = "model.onnx"


def export_onnx(
    module: torch.nn.Module,
    folder: str | os.PathLike[str],
    input_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    output: Literal["logits", "probabilities"] = "logits",
    classes: Sequence[str] | None = None,
) -> str:
    """Write `model.onnx` and `teacher.toml` into a folder, ready for `onnx:FOLDER/model.onnx`.

    Args:
        module: takes normalised float32 pixels (B, 3, H, W), returns (B, K); exported in eval mode.
        folder: path or URI, made if it is not there; the two files are replaced.
        input_size: height and width in pixels.
        mean: subtracted per channel from pixels in [0, 1].
        std: divided by per channel afterwards.
        output: what the module returns.
        classes: one name per class.

    Returns:
        The path or URI of `model.onnx`.

    Raises:
        ValueError: the ONNX exporter is not installed, or a value is out of range.
        WorkError: the folder cannot be written.
    """
    height, width = input_size
    description = Description(
        input_size=(height, width),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        output=output,
        classes=None if classes is None else tuple(classes),
    )
    out = Folder(os.fspath(folder))
    with tempfile.TemporaryDirectory() as here:
        path = Path(here) / MODEL_NAME
        _export(module, path, description.input_size)
        out.write_bytes(NAME, description.to_toml().encode())
        out.write_bytes(MODEL_NAME, path.read_bytes())
    return out.child(MODEL_NAME).uri


def require_exporter() -> None:
    """Check that `export_onnx` can work here. Raises: ValueError where a package is missing."""
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ModuleNotFoundError as error:
        raise ValueError("exporting to ONNX needs onnx and onnxscript; pip install onnx onnxscript") from error


def _export(module: torch.nn.Module, path: Path, input_size: tuple[int, int]) -> None:
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
