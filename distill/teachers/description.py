"""`teacher.toml`: what a model file does not say about itself (input size, normalisation, kind of output)."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

NAME = "teacher.toml"
MAX_SIDE_PX = 4096  # of a model's input: a batch of such images takes 2 GB
MAX_BYTES = 10_000_000  # a hundred thousand class names
EXAMPLE = """\
input_size = [224, 224]            # height, width in pixels
mean = [0.485, 0.456, 0.406]       # of pixels in [0, 1], red green blue
std = [0.229, 0.224, 0.225]
output = "logits"                  # or "probabilities"
"""

Engine = Literal["auto", "onnxruntime", "openvino"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of a `teacher.toml`, checked."""

    input_size: tuple[int, int]
    """height and width of the model's input, in pixels"""
    mean: tuple[float, float, float]
    """subtracted per channel from pixels in [0, 1]"""
    std: tuple[float, float, float]
    """divided by per channel afterwards, above 0"""
    output: Literal["logits", "probabilities"]
    """what the model returns; logits go through one softmax"""
    classes: tuple[str, ...] | None = None
    """one name per class, in the order of the model's outputs"""
    engine: Engine = "auto"
    """what computes an ONNX file; auto measures once per machine and model file"""
    precision: Precision = "auto"
    """number format inside an ONNX engine; auto takes bfloat16 where it is native, faster and close to float32"""

    def __post_init__(self) -> None:
        """Refuse sizes, numbers and words that no teacher can have."""
        _require(
            _is_list(self.input_size, 2, int) and min(self.input_size) > 0 and max(self.input_size) <= MAX_SIDE_PX,
            "input_size",
            self,
            f"[height, width], 1 to {MAX_SIDE_PX} each",
        )
        _require(_is_list(self.mean, 3, float), "mean", self, "three numbers")
        _require(_is_list(self.std, 3, float) and min(self.std) > 0, "std", self, "three numbers above 0")
        _require(self.output in ("logits", "probabilities"), "output", self, '"logits" or "probabilities"')
        named = self.classes is None or _is_list(self.classes, None, str)
        _require(named, "classes", self, "a list of class names")
        for name, kind in (("engine", Engine), ("precision", Precision)):
            _require(getattr(self, name) in get_args(kind), name, self, " or ".join(get_args(kind)))

    def fingerprint(self, *files: Path) -> str:
        """Hash the model's files and what changes its meaning: 12 hex digits of SHA-256.

        Engine and precision are left out: they say how the black box is computed, not which one it is.
        """
        meaning = {name: getattr(self, name) for name in ("input_size", "mean", "std", "output", "classes")}
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:12]

    def to_toml(self) -> str:
        """Write the description as TOML (JSON's strings, numbers and lists are TOML's)."""
        set_fields = ((field.name, getattr(self, field.name)) for field in fields(self))
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in set_fields if value is not None)


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
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; allowed: {MAX_BYTES}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}. For example:\n\n{EXAMPLE}") from error
    return _parse(content, path)


def _parse(content: dict[str, Any], path: Path) -> Description:
    allowed = [field.name for field in fields(Description)]
    required = ["input_size", "mean", "std", "output"]
    unknown = sorted(set(content) - set(allowed))
    missing = [name for name in required if name not in content]
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown fields {unknown}, missing fields {missing}; allowed: {', '.join(allowed)}. "
            f"For example:\n\n{EXAMPLE}"
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    try:
        return Description(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. For example:\n\n{EXAMPLE}") from error


def _is_list(value: Any, length: int | None, kind: type) -> bool:
    def fits(item: Any) -> bool:
        if kind is float:
            return isinstance(item, int | float) and not isinstance(item, bool) and -1e9 < item < 1e9
        return isinstance(item, kind) and not isinstance(item, bool)

    return isinstance(value, tuple) and length in (None, len(value)) and all(fits(item) for item in value)


def _require(holds: bool, name: str, description: Description, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {getattr(description, name)!r}; allowed: {allowed}")
