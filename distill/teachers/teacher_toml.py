"""`teacher.toml`: what a model does not say about itself (input size, normalization, kind of output)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

from cluster.storage import split_file
from distill.teachers.cache import read_small

NAME = "teacher.toml"
MAX_SIDE_PX = 4096  # of a model's input: a batch of such images takes 2 GB
MAX_CLASSES = 1_000_000
MAX_BATCH_SIZE = 4096  # images
MAX_BATCH_BYTES = 2**31  # of one batch in float32
MAX_MODEL_BYTES = 2**35  # of one file of a model
MAX_BYTES = 10_000_000  # a hundred thousand class names
EXAMPLE = """\
input_size = [224, 224]            # height, width in pixels
mean = [0.485, 0.456, 0.406]       # of pixels in [0, 1], red green blue
std = [0.229, 0.224, 0.225]
output = "logits"                  # or "probabilities", or "sigmoid" for several labels an image
"""

Engine = Literal["auto", "eager", "onnxruntime", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Output = Literal["logits", "probabilities", "sigmoid", "sigmoid_logits", "labels", "top_k"]
MULTI_LABEL: tuple[Output, ...] = ("sigmoid", "sigmoid_logits")
"""Outputs whose scores are one probability each, not shares of 1."""
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
    """what the model returns: logits, which go through one softmax; probabilities, which sum to 1; sigmoid, one
    probability for each class, or sigmoid_logits, of which the sigmoid is taken here, where an image may have several
    labels; labels and top_k belong to served models. One output alone is a model of two classes: sigmoid and its
    complement"""
    classes: tuple[str, ...] | None = None
    """one name per class, in the order of the model's outputs"""
    engine: Engine = "auto"
    """what computes an ONNX file (not eager), or an archive on a CPU (eager, which is torch itself, or openvino);
    auto measures once per machine and model file"""
    batch_size: int | None = None
    """images per call; None measures it, or takes as many as the model prescribes"""
    precision: Precision = "auto"
    """number format; on a CPU, auto takes bfloat16 where it is native, faster and close to float32; on a GPU, where an
    archive alone can have another one, auto is float32, and float16 counts there alone"""

    outputs: ClassVar[tuple[Output, ...]] = ("logits", "probabilities", "sigmoid", "sigmoid_logits")
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
        self._check_batch_size()

    def _check_batch_size(self) -> None:
        if self.batch_size is None:
            return
        whole = type(self.batch_size) is int and 0 < self.batch_size <= MAX_BATCH_SIZE
        require(whole, "batch_size", self, f"1 to {MAX_BATCH_SIZE}")
        num_bytes = 12 * self.batch_size * self.input_size[0] * self.input_size[1]  # 3 channels of float32
        require(num_bytes <= MAX_BATCH_BYTES, "batch_size", self, f"a batch of at most {MAX_BATCH_BYTES} bytes")

    def fingerprint(self, *files: Path | bytes, **identity: Any) -> str:
        """Hash the model's files, or their content, and what else tells it from others: SHA-256 in hex."""
        meaning = {name: getattr(self, name) for name in self.meaning} | identity
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
        for path in files:
            digest.update(hashlib.sha256(path).digest() if isinstance(path, bytes) else _file_digest(path))
        return digest.hexdigest()

    def to_toml(self) -> str:
        """Write the description as TOML (JSON's strings, numbers and lists are TOML's)."""
        set_fields = ((field.name, getattr(self, field.name)) for field in fields(self))
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in set_fields if value is not None)


def _file_digest(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; it belongs to the model")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; allowed: {MAX_MODEL_BYTES}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@contextmanager
def model_file(where: str, list_parts: Callable[[Path], Sequence[str]] | None = None) -> Iterator[tuple[str, Path]]:
    """Give a model file's absolute path or URI, and its path on this machine.

    Where it lies elsewhere, it is copied with its `teacher.toml` for as long as the block runs.

    Args:
        where: path or URI.
        list_parts: lists the other files that a model file needs, relative to its folder; they are copied too.

    Raises:
        FileNotFoundError: it lies elsewhere, and is not there.
    """
    folder, name = split_file(where)
    uri = folder.child(name).uri
    if folder.local_path() is not None:
        yield uri, Path(uri)
        return
    names = [found for found in folder.names() if found in (NAME, name)]
    if name not in names:
        raise FileNotFoundError(f"no model file {uri}; give the URI of an existing file")
    with folder.on_this_machine(names) as here:
        for part in list_parts(here / name) if list_parts else ():
            (here / part).parent.mkdir(parents=True, exist_ok=True)
            (here / part).write_bytes(folder.read_bytes(part))
        yield uri, here / name


def require_files(model_file: Path) -> Path:
    """Return the path of the `teacher.toml` beside a model file. Raises: FileNotFoundError where one is missing."""
    if not model_file.is_file():
        raise FileNotFoundError(f"no model file {model_file}; give the path of an existing file")
    path = model_file.parent / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: it says how {model_file.name} takes its images and what it returns. For example:\n\n{EXAMPLE}"
        )
    return path


def read_description(model_file: Path) -> Description:
    """Read the `teacher.toml` beside a model file.

    Raises:
        FileNotFoundError: the model file or the `teacher.toml` is missing.
        ValueError: the file is not TOML, a field is missing, unknown or has a wrong value.
    """
    return read_toml(require_files(model_file), Description)


def read_toml(
    path: Path,
    kind: type[Described],
    known: Mapping[str, Any] | None = None,
    *,
    assumed: Mapping[str, Any] | None = None,
) -> Described:
    """Read a `teacher.toml` as a description of some kind.

    Args:
        path: the file.
        kind: what it describes.
        known: fields that the model has said itself; the file need not repeat them.
        assumed: fields that are taken so where the file leaves them out.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not TOML, a field is missing, unknown, has a wrong value or contradicts what is known.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; it says how a model takes its images. For example:\n\n{EXAMPLE}")
    raw = read_small(path, MAX_BYTES)
    try:
        content = tomllib.loads(raw.decode("utf-8-sig"))  # some editors put a byte order mark first
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}. For example:\n\n{EXAMPLE}") from error
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    values = {**(assumed or {}), **values}
    for name, said in (known or {}).items():
        if values.setdefault(name, said) != said:
            raise ValueError(
                f"{path} says {name} = {values[name]!r}, the model itself {said!r}. Correct {name} in the file"
            )
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
