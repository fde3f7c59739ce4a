"""What an ONNX file says about its input and outputs, joined with its `teacher.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from distill.teachers.engines.backends import inspect
from distill.teachers.teacher_toml import NAME, Description, read_toml, require
from distill.teachers.tensor_model import DTYPES, Datatype, Layout, Tensor, metadata_fields


@dataclass(frozen=True, kw_only=True)
class OnnxDescription(Description):
    """The description of an ONNX file; what the file says itself need not be repeated."""

    layout: Layout = "NCHW"
    """order of the input's axes"""
    datatype: Datatype = "FP32"
    """number format of the input; UINT8 takes the image's own levels, the others normalized pixels"""
    input_tensor: str = ""
    """name of the input"""
    output_tensor: str = ""
    """name of the output with one number for each class, where there are several"""

    def __post_init__(self) -> None:
        """Refuse what no ONNX file takes. Raises: ValueError."""
        super().__post_init__()
        for name, kind in (("layout", Layout), ("datatype", Datatype)):
            require(getattr(self, name) in get_args(kind), name, self, " or ".join(get_args(kind)))
        for name in ("input_tensor", "output_tensor"):
            require(isinstance(getattr(self, name), str), name, self, "a name")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return the sizes of one image in the model's own layout."""
        return (3, *self.input_size) if self.layout == "NCHW" else (*self.input_size, 3)

    def identity(self, num_outputs: int) -> dict[str, Any]:
        """Return what says which model it is beside its file and the fields of every description."""
        chosen = {"output_tensor": self.output_tensor} if num_outputs > 1 else {}
        return chosen | {
            name: value for name in ("layout", "datatype") if (value := getattr(self, name)) != PLAIN[name]
        }


PLAIN = {"layout": OnnxDescription.layout, "datatype": OnnxDescription.datatype}


def read_onnx_description(path: Path, toml: Path) -> tuple[OnnxDescription, dict[str, Any]]:
    """Read an ONNX file's description and what else tells it from other models, as `Description.fingerprint` takes it.

    Args:
        path: the ONNX file.
        toml: its description.

    Raises:
        FileNotFoundError: the model file or its description is missing.
        ValueError: ONNX Runtime cannot load the file, the description is wrong, or contradicts the file.
    """
    inputs, outputs = inspect(path)
    names = [tensor.name for tensor in outputs]
    shown = [(tensor.name, tensor.datatype, tensor.shape) for tensor in (*inputs, *outputs)]
    if len(inputs) != 1 or inputs[0].datatype not in DTYPES or not outputs:
        raise _refusal(path, shown)
    known = metadata_fields(inputs, outputs, str(path))
    known.pop("pad", None)
    description = read_toml(toml, OnnxDescription, known)
    if len(names) > 1 and description.output_tensor not in names:
        raise ValueError(
            f"{path} has outputs {names}; name the one with a number for each class in {NAME}: output_tensor = "
            f'"{names[0]}"'
        )
    if not _fits(inputs[0], description.input_shape):
        raise _refusal(path, shown)
    return description, description.identity(len(names))


def _fits(tensor: Tensor, image: Sequence[int]) -> bool:
    pairs = zip(tensor.shape[1:], image, strict=False)
    return len(tensor.shape) == 4 and all(size in (-1, wanted) for size, wanted in pairs)


def _refusal(path: Path, shown: list[Any]) -> ValueError:
    return ValueError(
        f"{path} has inputs and outputs {shown}; allowed: one input of images, (B, 3, H, W) or (B, H, W, 3), in "
        f"{', '.join(DTYPES)}, and an output (B, K). Correct input_size or layout in its {NAME} (height, width), or "
        "export the model so"
    )
