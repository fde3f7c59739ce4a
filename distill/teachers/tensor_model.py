"""Models that are known by their tensors alone, behind a URL or a registry: how they are asked and read.

What their metadata says (names, number format, order of axes, size) need not be repeated in their `teacher.toml`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch

from distill.teachers.base import Teacher
from distill.teachers.errors import TeacherError
from distill.teachers.teacher_toml import MAX_CLASSES, Description, Output, require
from distill.teachers.top_k import fill_remaining, one_hot

Layout = Literal["NCHW", "NHWC"]
Datatype = Literal["FP32", "FP64", "FP16", "UINT8"]
DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16, "UINT8": np.uint8}


@dataclass(frozen=True)
class Tensor:
    """One input or output, as a model's metadata describes it."""

    name: str
    """Its name."""
    datatype: str
    """Number format, in the words of the Open Inference Protocol."""
    shape: tuple[int, ...]
    """Sizes; -1 where any will do."""


@dataclass(frozen=True, kw_only=True)
class TensorDescription(Description):
    """How a model is asked that is known by its tensors: what its metadata and its `teacher.toml` say, checked."""

    layout: Layout
    """order of the input's axes"""
    datatype: Datatype
    """number format of the input; UINT8 takes the image's own levels, the others normalized pixels"""
    input_tensor: str
    """name of the input"""
    output_tensor: str
    """name of the output: one number for each class, or a label, or the k highest probabilities"""
    class_tensor: str | None = None
    """name of the output with the k most probable classes, for output = "top_k" """
    k: int | None = None
    """how many classes a top_k answer names"""
    num_classes: int | None = None
    """where neither the output nor `classes` says it"""
    batch_size: int | None = 8
    """images queried at once"""
    pad: bool = False
    """whether the model takes no fewer"""

    outputs: ClassVar[tuple[Output, ...]] = get_args(Output)
    meaning: ClassVar[tuple[str, ...]] = (
        *Description.meaning,
        *("layout", "datatype", "input_tensor", "output_tensor", "class_tensor", "k", "num_classes"),
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be asked or read."""
        super().__post_init__()
        for name, kind in (("layout", Layout), ("datatype", Datatype)):
            require(getattr(self, name) in get_args(kind), name, self, " or ".join(get_args(kind)))
        for name in ("input_tensor", "output_tensor"):
            require(isinstance(getattr(self, name), str), name, self, "a name")
        for name in ("k", "num_classes"):
            number = getattr(self, name)
            fits = number is None or (type(number) is int and 0 < number <= MAX_CLASSES)
            require(fits, name, self, f"1 to {MAX_CLASSES}")
        require(isinstance(self.pad, bool), "pad", self, "true or false")
        top = self.output == "top_k"
        require(isinstance(self.class_tensor, str) == top, "class_tensor", self, 'a name, with output = "top_k" only')
        require((self.k is not None) == top, "k", self, '1 or more, with output = "top_k" only')
        counted = self.output not in ("labels", "top_k") or self.num_known is not None
        require(counted, "num_classes", self, f'a number, or give classes, with output = "{self.output}"')

    @property
    def num_known(self) -> int | None:
        """Return the number of classes where the description says it."""
        return self.num_classes if self.classes is None else len(self.classes)

    @property
    def num_ranked(self) -> int | None:
        """Return how many of the top classes an answer tells apart; None for all."""
        return 1 if self.output == "labels" else self.k

    @property
    def precision_note(self) -> str:
        """Say what an answer leaves out, for the engine's name; empty where nothing."""
        return "" if self.num_ranked is None else f"-{self.output.replace('_k', f'-{self.k}')}"


def metadata_fields(inputs: Sequence[Tensor], outputs: Sequence[Tensor], name: str) -> dict[str, Any]:
    """Return the fields of `TensorDescription` that a model's metadata settles; `batch_size` where it takes only one.

    Raises:
        ValueError: it takes several tensors, or one in a format that no image comes in.
    """
    known: dict[str, Any] = {}
    if len(inputs) > 1:
        raise ValueError(f"{name} takes {[tensor.name for tensor in inputs]}; a classifier of images takes one tensor")
    if inputs:
        if inputs[0].datatype not in DTYPES:
            raise ValueError(f"{name} takes {inputs[0].datatype}; allowed: {', '.join(DTYPES)}")
        known |= {"input_tensor": inputs[0].name, "datatype": inputs[0].datatype, **_image(inputs[0].shape)}
    return known | ({"output_tensor": outputs[0].name} if len(outputs) == 1 else {})


def _image(shape: tuple[int, ...]) -> dict[str, Any]:
    """Read layout, size and a fixed batch from an input's shape; nothing where it is not clear."""
    if len(shape) != 4 or (shape[1] == 3) == (shape[3] == 3):
        return {}
    height, width = shape[2:] if shape[1] == 3 else shape[1:3]
    size = {"input_size": (height, width)} if min(height, width) > 0 else {}
    fixed = {"batch_size": shape[0], "pad": True} if shape[0] > 0 else {}
    return {"layout": "NCHW" if shape[1] == 3 else "NHWC", **size, **fixed}


def as_input(pixels: np.ndarray, layout: Layout, datatype: Datatype) -> np.ndarray:
    """Arrange images (B, 3, H, W) in a model's own layout and number format."""
    arranged = pixels if layout == "NCHW" else pixels.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(arranged, dtype=DTYPES[datatype])


class TensorTeacher(Teacher):
    """A model that is asked by tensors; a kind adds `_predict`."""

    def __init__(self, described: TensorDescription, **description: Any) -> None:
        """Take a checked description; the other arguments are `Teacher`'s."""
        super().__init__(
            input_size=described.input_size,
            mean=described.mean,
            std=described.std,
            output=described.output,
            class_names=described.classes,
            batch_size=described.batch_size,
            **description,
        )
        self.described = described
        self.pads = described.pad
        self.quantized = described.datatype == "UINT8"
        self.num_ranked = described.num_ranked

    @abstractmethod
    def _predict(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the model's outputs by name for a batch in the model's own format and layout.

        Raises:
            NoReplyError, TeacherError: as `_outputs`.
        """

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        found = self._predict(self._images(pixels))
        try:
            return torch.from_numpy(self._read_rows(found, len(pixels)))
        except ValueError as error:
            raise TeacherError(f"teacher {self.spec!r} cannot be read: {error}") from error

    def _images(self, pixels: torch.Tensor) -> np.ndarray:
        images = self.levels(pixels).permute(0, 3, 1, 2) if self.quantized else pixels
        return as_input(images.cpu().numpy(), self.described.layout, self.described.datatype)

    def _read_rows(self, found: Mapping[str, np.ndarray], num_images: int) -> np.ndarray:
        """Return logits or probabilities (B, K), float32. Raises: ValueError."""
        described = self.described
        values = _column(found, described.output_tensor, num_images)
        if described.output not in ("labels", "top_k"):
            return np.array(_numbers(values, "fiu"), dtype=np.float32)
        num_classes = described.num_known
        assert num_classes is not None, "TensorDescription lets no such description through"
        if described.output == "labels":
            if values.size != num_images:
                raise ValueError(f"{described.output_tensor} has shape {values.shape}; allowed: one label an image")
            return one_hot(self._indices(values.reshape(num_images)), num_classes)
        assert described.class_tensor is not None, "TensorDescription lets no such description through"
        classes = _column(found, described.class_tensor, num_images)
        if not values.shape == classes.shape == (num_images, described.k):
            raise ValueError(
                f"{described.output_tensor} has shape {values.shape}, {described.class_tensor} {classes.shape}; "
                f"allowed: {(num_images, described.k)} both"
            )
        return fill_remaining(_numbers(values, "f"), self._indices(classes), num_classes)

    def _indices(self, classes: np.ndarray) -> np.ndarray:
        """Return class indices, int64, for indices or names of classes. Raises: ValueError."""
        if classes.dtype.kind not in "OSU":
            return _numbers(classes, "iu").astype(np.int64)
        numbers = {name: number for number, name in enumerate(self.described.classes or ())}
        texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in classes.flat]
        unknown = [text for text in texts if text not in numbers]
        if unknown:
            raise ValueError(f"it names class {unknown[0][:80]!r}, which is not among the description's classes")
        return np.array([numbers[text] for text in texts], dtype=np.int64).reshape(classes.shape)


def _column(found: Mapping[str, np.ndarray], name: str, num_images: int) -> np.ndarray:
    if name not in found:
        raise ValueError(f"there is no output {name!r}; it has: {', '.join(found) or 'none'}")
    values = found[name]
    if values.ndim == 0 or len(values) != num_images:
        raise ValueError(f"output {name!r} has shape {values.shape} for {num_images} images")
    return values


def _numbers(values: np.ndarray, kinds: str) -> np.ndarray:
    if values.dtype.kind not in kinds:
        raise ValueError(f"it returned {values.dtype} where numbers belong")
    return values
