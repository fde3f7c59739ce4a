"""MATLAB files as SciPy writes and reads them, and as an enemy changes them."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import eye

from distill.data.layouts.matlab import MAX_BYTES, MAX_DEPTH, MatlabError, read_variable

RECORDS = np.array([(1.5, "köln.jpg", np.uint8(7), [1, 2, 3]), (-2, "b", 9, [])], dtype=[(n, object) for n in "abcd"])
CONTENT: dict[str, Any] = {
    "other": np.eye(2),
    "records": RECORDS[None],
    "one": {"fname": "x.jpg", "class": 3},
    "names": np.array(["AM General Hummer SUV 2000", "b", ""], dtype=object)[None],
    "numbers": np.array([[1, 2], [3, 4]], np.int16),
    "text": "a text",
}


def saved(*, compressed: bool = False, content: dict[str, Any] = CONTENT) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=compressed, long_field_names=True)
    return buffer.getvalue()


def plain(value: Any) -> Any:
    """Turn what SciPy reads into what `read_variable` returns."""
    if isinstance(value, np.ndarray) and value.dtype.names:
        rows = [{name: plain(row[name]) for name in value.dtype.names} for row in np.atleast_1d(value)]
        return rows[0] if len(rows) == 1 else rows
    if isinstance(value, np.ndarray):
        flat = [plain(one) for one in value.ravel(order="F")]
        return "" if not flat and value.dtype.kind == "U" else flat[0] if len(flat) == 1 else flat
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", CONTENT)
def test_values_are_those_that_scipy_reads(name: str, compressed: bool) -> None:
    data = saved(compressed=compressed)
    assert read_variable(data, name) == plain(loadmat(io.BytesIO(data), squeeze_me=True)[name])
    assert read_variable(data, "nothing") == []


def test_the_other_order_of_bytes() -> None:
    """Written by hand as the format's description shows it; SciPy reads the same."""
    element = struct.pack(">II", 6, 8) + struct.pack(">II", 6, 0) + struct.pack(">IIii", 5, 8, 1, 2)
    element += struct.pack(">HH", 1, 1) + b"v\0\0\0" + struct.pack(">IIdd", 9, 16, 0.5, -3)
    data = b" " * 116 + bytes(8) + b"\x01\x00MI" + struct.pack(">II", 14, len(element)) + element
    assert loadmat(io.BytesIO(data))["v"].tolist() == [[0.5, -3.0]]
    assert read_variable(data, "v") == [0.5, -3.0]


@pytest.mark.parametrize("compressed", [False, True])
def test_changed_bytes_are_an_error_or_other_values(compressed: bool) -> None:
    rng, good, errors = random.Random(0), saved(compressed=compressed), 0  # noqa: S311 - repeatable damage
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(116, len(data))] = rng.choice([0, 1, 14, 15, 255, rng.randrange(256)])
        try:
            read_variable(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]), rng.choice([*CONTENT]))
        except MatlabError:
            errors += 1
    assert 1000 < errors < 3000


def test_what_is_not_read_is_said() -> None:
    with pytest.raises(MatlabError, match="begin"):
        read_variable(b"MATLAB 7.3 MAT-file" + bytes(109), "x")
    deep: Any = "end"
    for _ in range(MAX_DEPTH + 2):
        deep = np.array([[deep, 0]], dtype=object)
    with pytest.raises(MatlabError, match=f"more than {MAX_DEPTH}"):
        read_variable(saved(content={"deep": deep}), "deep")
    with pytest.raises(MatlabError, match="class 5"):
        read_variable(saved(content={"sparse": eye(3).tocsc()}), "sparse")


def test_a_bomb_is_not_unpacked() -> None:
    packer = zlib.compressobj(9)
    packed = packer.compress(struct.pack("<II", 14, 2**31)) + packer.compress(bytes(MAX_BYTES)) + packer.flush()
    header = saved()[:128]
    with pytest.raises(MatlabError, match=f"larger than {MAX_BYTES} bytes"):
        read_variable(header + struct.pack("<II", 15, len(packed)) + packed, "x")


def test_a_count_that_the_bytes_cannot_hold_is_refused() -> None:
    data = bytearray(saved(content={"c": np.array(["a", "b"], dtype=object)[None]}))
    place = data.index(struct.pack("<ii", 1, 2))
    data[place : place + 8] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    with pytest.raises(MatlabError, match="cut off"):
        read_variable(bytes(data), "c")
