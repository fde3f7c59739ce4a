"""Requests and replies of the Open Inference Protocol v2, as JSON or with the binary tensor extension.

https://github.com/open-inference/open-inference-protocol (specification/protocol/inference_rest.md) and Triton's
"binary tensor data extension": a JSON head, whose length an HTTP header gives, and behind it the tensors' bytes, little
endian, in the order of the head. Replies are not trusted: names, shapes and lengths are checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HEAD_LENGTH = "Inference-Header-Content-Length"
EXTENSION = "binary_tensor_data"  # how a server that offers it lists it
DTYPES = {
    "BOOL": np.dtype("?"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
TEXT = "BYTES"


def write_request(
    images: np.ndarray, datatype: str, *, name: str, outputs: Sequence[str], binary: bool
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that ask for some outputs of one input.

    Args:
        images: the input, of `datatype`.
        datatype: its number format in the protocol's words.
        name: the input's name.
        outputs: names of the outputs.
        binary: whether tensors travel as bytes, both ways.
    """
    tensor = {"name": name, "shape": list(images.shape), "datatype": datatype}
    wanted: list[dict[str, Any]] = [{"name": output} for output in outputs]
    if not binary:
        head = {"inputs": [tensor | {"data": images.ravel().tolist()}], "outputs": wanted}
        return json.dumps(head).encode(), {"Content-Type": "application/json"}
    data = images.astype(DTYPES[datatype]).tobytes()
    wanted = [output | {"parameters": {"binary_data": True}} for output in wanted]
    inputs = [tensor | {"parameters": {"binary_data_size": len(data)}}]
    head = json.dumps({"inputs": inputs, "outputs": wanted}).encode()
    return head + data, {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(len(head))}


def read_reply(body: bytes, headers: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read the outputs of a reply by name; text comes as an array of objects.

    Raises:
        ValueError: the body is no reply in the protocol.
    """
    length = headers.get(HEAD_LENGTH)
    if length is None:
        head, rest = read_json(body), memoryview(b"")
    else:
        if not (length.isascii() and length.isdigit()) or int(length) > len(body):
            raise ValueError(f"{HEAD_LENGTH} is {length[:40]!r} in a reply of {len(body)} bytes")
        head, rest = read_json(body[: int(length)]), memoryview(body)[int(length) :]
    outputs = head.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise ValueError("the reply has no list of outputs")
    found = {}
    for output in outputs:
        name, datatype, shape = _declared(output)
        num_bytes = _mapping(output.get("parameters")).get("binary_data_size")
        if num_bytes is None:
            found[name] = _from_json(output.get("data"), datatype, shape)
            continue
        if type(num_bytes) is not int or not 0 <= num_bytes <= len(rest):
            raise ValueError(f"output {name!r} has {num_bytes!r} bytes, of which {len(rest)} came")
        found[name], rest = _from_bytes(rest[:num_bytes], datatype, shape), rest[num_bytes:]
    return found


def read_json(body: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises: ValueError where it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the reply is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"the reply is JSON, but a {type(found).__name__}; allowed: an object")
    return found


def read_tensors(listed: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """Read the inputs or outputs of a model's metadata: name, datatype and shape (-1: any) of each.

    Raises:
        ValueError: they are not described as the protocol has it.
    """
    tensors = [] if listed is None else listed
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise ValueError("the model's metadata has no list of tensors")
    return [_declared(tensor, least=-1) for tensor in tensors]


def _declared(tensor: dict[str, Any], least: int = 0) -> tuple[str, str, tuple[int, ...]]:
    name, datatype, shape = (tensor.get(key) for key in ("name", "datatype", "shape"))
    if not (isinstance(name, str) and isinstance(datatype, str) and isinstance(shape, list)):
        raise ValueError(f"a tensor has name {name!r}, datatype {datatype!r}, shape {shape!r}"[:200])
    if not all(type(size) is int and size >= least for size in shape):
        raise ValueError(f"tensor {name[:80]!r} has shape {str(shape)[:80]}")
    return name, datatype, tuple(shape)


def _from_json(data: Any, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(data, list):
        raise ValueError("an output has no data")
    try:
        values = np.array(data, dtype=object if datatype == TEXT else _dtype(datatype))
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"an output's data are no {datatype}: {error}") from error
    return _shaped(values, shape)


def _from_bytes(data: memoryview, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if datatype == TEXT:
        return _shaped(np.array(_texts(data), dtype=object), shape)
    return _shaped(np.frombuffer(data, dtype=_dtype(datatype)), shape)


def _texts(data: memoryview) -> list[bytes]:
    """Split texts, each behind its length in 4 bytes."""
    texts = []
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        if end > len(data):
            raise ValueError("a text is longer than what came")
        texts.append(bytes(data[4:end]))
        data = data[end:]
    return texts


def _shaped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.size != math.prod(shape):
        raise ValueError(f"an output has {values.size} values, but shape {shape}")
    return values.reshape(shape)


def _dtype(datatype: str) -> np.dtype:
    if datatype not in DTYPES:
        raise ValueError(f"an output is of datatype {datatype[:40]!r}; allowed: {', '.join(DTYPES)}, {TEXT}")
    return DTYPES[datatype]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
