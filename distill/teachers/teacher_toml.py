"""`teacher.toml`: what a model does not say about itself (input size, normalization, kind of output)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from cluster.storage import split_file

NAME = "teacher.toml"
MAX_SIDE_PX = 4096  # of a model's input: a batch of such images takes 2 GB
MAX_BYTES = 10_000_000  # a hundred thousand class names
EXAMPLE = """\
input_size = [224, 224]            # height, width in pixels
mean = [0.485, 0.456, 0.406]       # of pixels in [0, 1], red green blue
std = [0.229, 0.224, 0.225]
output = "logits"                  # or "probabilities"
"""

Engine = Literal["auto", "eager", "onnxruntime", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Output = Literal["logits", "probabilities", "labels", "top_k"]
Described = TypeVar("Described", bound="Description")


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of a `teacher.toml`, checked."""

    input_size: tuple[int, int]
    """height and width of the model's input, in pixels"""
    mean: tuple[float, float, float]
    """subtracted per channel from pixels in [0, 1]"""
    std: tuple[float, float, float]
    """divided by per channel afterwards, above 0"""
    output: Output
    """what the model returns; logits go through one softmax; labels and top_k belong to served models"""
    classes: tuple[str, ...] | None = None
    """one name per class, in the order of the model's outputs"""
    engine: Engine = "auto"
    """what computes an ONNX file (not eager), or an archive on a CPU (eager, which is torch itself, or openvino);
    auto measures once per machine and model file"""
    precision: Precision = "auto"
    """number format; on a CPU, auto takes bfloat16 where it is native, faster and close to float32; on a GPU, where an
    archive alone can have another one, auto is float32, and float16 counts there alone"""

    outputs: ClassVar[tuple[Output, ...]] = ("logits", "probabilities")
    """What such a model may return."""
    meaning: ClassVar[tuple[str, ...]] = ("input_size", "mean", "std", "output", "classes")
    """The fields that say which black box it is; the others say how it is computed."""

    def __post_init__(self) -> None:
        """Refuse sizes, numbers and words that no teacher can have."""
        require(
            is_list(self.input_size, 2, int) and min(self.input_size) > 0 and max(self.input_size) <= MAX_SIDE_PX,
            "input_size",
            self,
            f"[height, width], 1 to {MAX_SIDE_PX} each",
        )
        require(is_list(self.mean, 3, float), "mean", self, "three numbers")
        require(is_list(self.std, 3, float) and min(self.std) > 0, "std", self, "three numbers above 0")
        require(self.output in self.outputs, "output", self, " or ".join(f'"{name}"' for name in self.outputs))
        named = self.classes is None or is_list(self.classes, None, str)
        require(named, "classes", self, "a list of class names")
        for name, kind in (("engine", Engine), ("precision", Precision)):
            require(getattr(self, name) in get_args(kind), name, self, " or ".join(get_args(kind)))

    def fingerprint(self, *files: Path, **identity: Any) -> str:
        """Hash the model's files, and what else says which model it is, as JSON values: 12 hex digits of SHA-256."""
        meaning = {name: getattr(self, name) for name in self.meaning} | identity
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:12]

    def to_toml(self) -> str:
        """Write the description as TOML (JSON's strings, numbers and lists are TOML's)."""
        set_fields = ((field.name, getattr(self, field.name)) for field in fields(self))
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in set_fields if value is not None)


@contextmanager
def model_file(where: str) -> Iterator[tuple[str, Path]]:
    """Give a model file's absolute path or URI, and its path on this machine.

    Where it lies elsewhere, it is copied with its `teacher.toml` and the files whose names begin with its own, for as
    long as the block runs.

    Raises:
        FileNotFoundError: it lies elsewhere, and is not there.
    """
    folder, name = split_file(where)
    uri, names = folder.child(name).uri, [found for found in folder.names() if found == NAME or found.startswith(name)]
    if folder.local_path() is None and name not in names:
        raise FileNotFoundError(f"no model file {uri}; give the URI of an existing file")
    with folder.on_this_machine(names) as here:
        yield uri, here / name


def read_description(model_file: Path) -> Description:
    """Read the `teacher.toml` beside a model file.

    Raises:
        FileNotFoundError: the model file or the `teacher.toml` is missing.
        ValueError: the file is not TOML, a field is missing, unknown or has a wrong value.
    """
    if not model_file.is_file():
        raise FileNotFoundError(f"no model file {model_file}; give the path of an existing file")
    path = model_file.parent / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: it says how {model_file.name} takes its images and what it returns. For example:\n\n{EXAMPLE}"
        )
    return read_toml(path, Description)


def read_toml(path: Path, kind: type[Described], known: Mapping[str, Any] | None = None) -> Described:
    """Read a `teacher.toml` as a description of some kind.

    Args:
        path: the file.
        kind: what it describes.
        known: fields that the model has said itself; the file need not repeat them.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not TOML, a field is missing, unknown, has a wrong value or contradicts what is known.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; it says how a model takes its images. For example:\n\n{EXAMPLE}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; allowed: {MAX_BYTES}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}. For example:\n\n{EXAMPLE}") from error
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    for name, said in (known or {}).items():
        if values.setdefault(name, said) != said:
            raise ValueError(f"{path} says {name} = {values[name]!r}, the model itself {said!r}; correct the file")
    return _describe(values, kind, path)


def _describe(values: dict[str, Any], kind: type[Described], path: Path) -> Described:
    allowed = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(allowed))
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.name not in values]
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown fields {unknown}, missing fields {missing}; allowed: {', '.join(allowed)}. "
            f"For example:\n\n{EXAMPLE}"
        )
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. For example:\n\n{EXAMPLE}") from error


def is_list(value: Any, length: int | None, kind: type) -> bool:
    """Tell whether a value is a tuple of so many items (None: any number) of a kind; no bool passes for a number."""

    def fits(item: Any) -> bool:
        if kind is float:
            return isinstance(item, int | float) and not isinstance(item, bool) and -1e9 < item < 1e9
        return isinstance(item, kind) and not isinstance(item, bool)

    return isinstance(value, tuple) and length in (None, len(value)) and all(fits(item) for item in value)


def require(holds: bool, name: str, description: Description, allowed: str) -> None:
    """Refuse a field that does not hold. Raises: ValueError that says what it is and what is allowed."""
    if not holds:
        raise ValueError(f"{name} is {getattr(description, name)!r}; allowed: {allowed}")
