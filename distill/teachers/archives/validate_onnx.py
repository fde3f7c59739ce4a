"""Look into an ONNX file before an engine does: the files its weights lie in, and batch norm in training mode.

The graph names the files of its weights freely. Each is part of the model, so each is hashed; none may lie outside of
the model's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

MAX_GRAPH_BYTES = 2**31 - 1  # protobuf's own limit
SKIPPED = ("value_info", "metadata_props", "input", "output", "doc_string")
"""Fields that hold neither weights nor operations."""


def read_graph(path: Path) -> Any:
    """Read an ONNX file without the weights that lie outside of it.

    Raises:
        ValueError: it is no ONNX file, or not one file of bounded size.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file() or path.stat().st_size > MAX_GRAPH_BYTES:
        raise ValueError(f"{path} is no regular file of at most {MAX_GRAPH_BYTES} bytes; give an ONNX model file")
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, RuntimeError) as error:
        raise ValueError(f"ONNX Runtime cannot load {path}: {error}; give an ONNX model file") from error


def weight_files(model: Any, name: str) -> list[str]:
    """List the files that a graph's weights lie in, relative to the model's folder, sorted.

    Args:
        model: as `read_graph` returns it.
        name: what to call the model in an error.

    Raises:
        ValueError: one of them lies outside of the model's folder.
    """
    found: set[str] = set()
    for message in _messages(model):
        if message.DESCRIPTOR.name == "TensorProto" and (message.external_data or message.data_location == 1):
            entries = {entry.key: entry.value for entry in message.external_data}
            location = entries.get("location", "")
            path = PurePosixPath(location)
            if not location or path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    f"{name} keeps weights in {location[:200]!r}; allowed: a file in the model's own folder. Save the "
                    "model again with its weights beside it"
                )
            found.add(str(path))
    return sorted(found)


def find_weights(path: Path, locations: list[str]) -> list[Path]:
    """Find the files of a model's weights.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one is a link to somewhere else.
    """
    # A model in a download cache is a link to a folder of contents, and so are its weights.
    roots = {path.parent.resolve(), path.resolve().parent}
    found = []
    for location in locations:
        file = path.parent / location
        if not file.is_file():
            raise FileNotFoundError(f"{path} keeps weights in {location!r}, which is not there; put {file} there")
        if not any(file.resolve().is_relative_to(root) for root in roots):
            raise ValueError(
                f"{path} keeps weights in {location!r}, a link out of its folder; put the file itself there"
            )
        found.append(file)
    return found


def check_mode(model: Any, name: str) -> None:
    """Refuse a graph in training mode: its batch norms would mix the images of a batch.

    Raises:
        ValueError: it has a batch norm in training mode.
    """
    for node in _messages(model):
        if node.DESCRIPTOR.name != "NodeProto" or node.op_type != "BatchNormalization":
            continue
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        if training or sum(bool(output) for output in node.output) > 1:
            raise ValueError(
                f"{name} was exported in training mode (batch norm {node.name!r}): each response would depend on the "
                "rest of its batch. Call .eval() on the model, then export it again"
            )


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all those inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or (field.name in SKIPPED and message.DESCRIPTOR.name != "NodeProto"):
            continue
        for item in [value] if hasattr(value, "ListFields") else value:
            yield from _messages(item)
