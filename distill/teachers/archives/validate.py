"""Let only those torch.export archives through that hold numbers and a plain graph.

`torch.export.load` unpickles where an archive asks for it, loads compiled libraries, looks functions up by dotted
names, and evaluates expressions and names as Python: a file's author could run code. So every record is read here
first, by the reader that torch itself uses, and whatever is not on a short list is refused. Left out: graphs that
need too much memory or time.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

RECORDS = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/model_\w+_config\.json"
    r"|data/(weights|constants|sample_inputs)/model\.pt|models/model\.json|extra/[\w./-]+"
    r"|archive_format|archive_version|byteorder|\.data/\w+|\.format_version|\.storage_alignment"
)
LOCAL_HEADER_BYTES = 30  # of a zip entry, before its name
TARGETS = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save|load)\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|[lg][te])",
    re.ASCII,
)
NAMES = re.compile(r"[\w.:]*", re.ASCII)
EXPRESSION = re.compile(
    r"(Symbol\('\w+'|\b(positive|nonnegative|integer)=True|\b[A-Z][A-Za-z]*(?=\()|[-+\d(), ])*", re.ASCII
)
KEYS = re.compile(r'\["\w+"(, ?"\w+")*\]', re.ASCII)
TREE_TYPES = ("builtins.tuple", "builtins.list", "builtins.dict", None)
OPTIONS = ("same", "valid", "none", "tanh", "constant", "reflect", "replicate", "circular", "floor", "trunc")
# Never evaluated; source_fn_stack is looked up by name and not called.
FREE_TEXT = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom", "torch_version")


def check_archive(content: bytes, name: str) -> None:
    """Refuse a torch file whose loading could run code that came with it.

    Args:
        content: the file's bytes; load these very bytes afterwards.
        name: what to call the file in an error.

    Raises:
        ValueError: not a torch.export archive, or it needs unpickling, compiled code or unusual functions.
    """
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        records = reader.get_all_records()
        entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except (RuntimeError, zipfile.BadZipFile) as error:
        raise _refusal(name, "it is not a torch.export archive (a pickled model is not one)") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _refusal(name, "it is packed, so that nobody knows how large it is")
    _check_places(entries, len(content), name)
    unknown = [record for record in records if not RECORDS.fullmatch(record)]
    # torch falls back to the layout of torch 2.7, which it reads with Python's own zip reader
    unknown += [entry.filename for entry in entries if entry.filename.startswith(("version", "serialized_"))]
    if unknown or "models/model.json" not in records:
        raise _refusal(
            name, f"it holds {unknown[:5] or 'no models/model.json'}; pickled or compiled code is never loaded"
        )
    for record in records:
        if record.endswith(".pt"):
            _check_pickle(reader.get_record(record), record, name)
        elif record.endswith("_config.json"):
            _check_payloads(_parse(reader.get_record(record), name), name)
    _check_graph(_parse(reader.get_record("models/model.json"), name), name)


def _check_places(entries: list[zipfile.ZipInfo], num_bytes: int, name: str) -> None:
    """Refuse entries that share bytes, of which a small file could hold any number, or a name."""
    end = 0
    for entry in sorted(entries, key=lambda one: one.header_offset):
        if entry.header_offset < end or entry.file_size != entry.compress_size:
            raise _refusal(name, f"its {entry.filename[:80]!r} lies in the bytes of another entry")
        end = entry.header_offset + LOCAL_HEADER_BYTES + len(entry.orig_filename.encode()) + entry.file_size
    if end > num_bytes:
        raise _refusal(name, "its entries are larger than the file")
    if len({entry.filename for entry in entries}) < len(entries):
        raise _refusal(name, "it holds two entries of one name")


def _check_pickle(content: bytes, record: str, name: str) -> None:
    """Hold a record to torch's restricted unpickler, which knows tensors and containers only."""
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise _refusal(name, f"its {record} is a pickle of more than tensors") from error


def _check_payloads(config: Any, name: str) -> None:
    for _, key, value in _leaves(config):
        if key == "use_pickle" and value:
            raise _refusal(name, "it stores weights or constants as pickles (use_pickle)")
        if isinstance(value, str) and not NAMES.fullmatch(value):
            raise _refusal(name, f"{value[:80]!r} is not a name")


def _check_graph(program: Any, name: str) -> None:
    if not isinstance(program, dict) or program.get("guards_code"):
        raise _refusal(name, "it brings guard code of its own")
    for parent, key, value in _leaves(program):
        if key in ("train", "training"):
            continue
        if key == "expr_str":
            allowed = isinstance(value, str) and EXPRESSION.fullmatch(value)
        elif key in ("in_spec", "out_spec"):
            allowed = isinstance(value, str) and _is_plain_tree(_parse(value, name))
        elif parent == "nodes" and key == "target":
            allowed = isinstance(value, str) and TARGETS.fullmatch(value)
        elif key == "as_string":
            allowed = value in OPTIONS or re.fullmatch(r"[A-Za-z, .]+->[A-Za-z .]*", str(value))
        else:
            allowed = key in FREE_TEXT or not isinstance(value, str) or NAMES.fullmatch(value)
        if not allowed:
            raise _refusal(
                name, f"its graph has {key} {str(value)[:80]!r}, which is not on the list of harmless values"
            )
    _check_mode(program, name)


def _check_mode(program: Any, name: str) -> None:
    """Refuse a graph in training mode: its batch norms would mix the images of a batch."""
    for node in program.get("graph_module", {}).get("graph", {}).get("nodes", []):
        for argument in node.get("inputs", []):
            if argument.get("name") in ("train", "training") and argument.get("arg", {}).get("as_bool"):
                raise ValueError(
                    f"{name} was exported in training mode; call .eval() on the model, then export it again"
                )


def _leaves(value: Any, key: str = "", parent: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (name of the list or mapping around it, key, value) of every leaf, and every key as a leaf named "key"."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield key, "key", inner
            yield from _leaves(item, inner, key)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key, parent)
    else:
        yield parent, key, value


def _is_plain_tree(tree: Any) -> bool:
    """Say whether a serialized argument tree holds built-in containers only, without named arguments."""
    if isinstance(tree, list):
        return all(_is_plain_tree(item) for item in tree)
    if not isinstance(tree, dict):
        return isinstance(tree, int)
    plain = tree.get("type") in TREE_TYPES and (
        tree.get("context") in (None, "null", "[]") or (tree["type"] == "builtins.dict" and _is_keys(tree["context"]))
    )
    return plain and _is_plain_tree(tree.get("children_spec", []))


def _is_keys(context: Any) -> bool:
    """Say whether a dictionary's serialized keys are plain names."""
    return isinstance(context, str) and KEYS.fullmatch(context) is not None


def _parse(text: bytes | str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(name, f"a part of it is not JSON: {error}") from error


def _refusal(name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name} is refused: {reason}. Allowed: what torch.export.save writes for a module in eval mode that takes one "
        "tensor and returns one tensor. Export it again so, or to ONNX (onnx:model.onnx)"
    )
