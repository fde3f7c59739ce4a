"""Quantize an ONNX classifier to 8 bits, as networks for phones are deployed: another black box, and a faster one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np


def quantize_onnx(path: Path, pixels: Sequence[np.ndarray]) -> None:
    """Replace a float32 ONNX file by its int8 version (post-training, static, per channel; ONNX Runtime's QDQ form).

    The ranges of the activations are the extremes over the calibration images. Weights and arithmetic are integers
    where the engine has them; input and output stay float32.

    Args:
        path: the ONNX file, with one input.
        pixels: calibration images as that input takes them, each a batch (B, 3, H, W); some dozens.

    Raises:
        ValueError: no image is given, or the `onnx` package is missing.
    """
    if not pixels:
        raise ValueError("no calibration image; allowed: one or more, some dozens for good ranges")
    try:
        from onnxruntime.quantization import QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:  # onnxruntime is there; its quantization needs onnx
        raise ValueError(f"{error}; quantizing needs onnx: pip install onnx") from error
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    with TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / path.name
        quant_pre_process(path, prepared)
        quantize_static(
            prepared,
            aside,
            _reader(path, pixels),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
    aside.replace(path)


def _reader(path: Path, pixels: Sequence[np.ndarray]) -> Any:
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader

    name = InferenceSession(path).get_inputs()[0].name
    batches = iter(pixels)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            batch = next(batches, None)
            return None if batch is None else {name: batch}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # ONNX Runtime advises on its own command line
    try:
        yield
    finally:
        logger.setLevel(level)
