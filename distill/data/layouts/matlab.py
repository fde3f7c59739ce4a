"""Read variables of MATLAB files, level 5, as data sets list their images in them: texts, numbers, cells and structs.

The files come from elsewhere, and SciPy's reader can crash on a changed byte; here each length is held against the
bytes that are there. Format: MathWorks, "MAT-File Format", level 5. Left out: sparse matrices, objects, functions,
imaginary parts, and which way a matrix of several rows and columns lies.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HEADER_BYTES = 128
MAX_BYTES = 100_000_000  # of one variable, unpacked; the largest that a data set here brings has 3 MB
MAX_DEPTH = 8  # of cells and structs in each other; the data sets have three

# What an element holds, by its type: Python's letter for a number, else the name of a text's encoding.
NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
MATRIX, COMPRESSED = 14, 15
# Classes of a matrix; 6 to 15 are numbers.
CELL, STRUCT, TEXT = 1, 2, 4
ARRAYS = range(6, 16)


class MatlabError(ValueError):
    """The bytes are no MATLAB file of level 5, or it holds what is not read here; the message says why."""


def read_variable(data: bytes, name: str) -> Any:
    """Read a variable, without dimensions of one element, as MATLAB's `squeeze` leaves it.

    Returns:
        A text, a number, a struct as a dict, or a list of such values (a cell, a matrix, a struct array; elements in
        MATLAB's order, columns first); an empty list where there is no such variable, or it is empty.

    Raises:
        MatlabError: The file is broken, or the variable of a kind that is not read.
    """
    if len(data) < HEADER_BYTES or data[126:128] not in (b"IM", b"MI"):
        raise MatlabError("it does not begin as one")
    order = "<" if data[126:128] == b"IM" else ">"
    for kind, content in _Elements(data[HEADER_BYTES:], order):
        if kind == COMPRESSED:
            kind, content = next(iter(_Elements(_unpacked(content), order)), (0, b""))  # noqa: PLW2901
        if kind != MATRIX:
            raise MatlabError(f"it holds an element of type {kind}")
        matrix = _Matrix.open(content, order)
        if matrix.name == name:
            return matrix.value(0)
    return []


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(content, MAX_BYTES)
    except zlib.error as error:
        raise MatlabError(f"its packed part is broken: {error}") from error
    if not unpacker.eof:
        raise MatlabError(f"its packed part is cut off, or larger than {MAX_BYTES} bytes")
    return found


@dataclass
class _Elements:
    """The elements that follow each other in a block of bytes: type and content."""

    data: bytes
    order: str
    place: int = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while self.place < len(self.data):
            yield self.next()

    def next(self) -> tuple[int, bytes]:
        if self.place + 8 > len(self.data):
            raise MatlabError("it is cut off")
        kind, length = struct.unpack_from(f"{self.order}II", self.data, self.place)
        start, room = self.place + 8, len(self.data)
        if kind > 0xFFFF:  # up to four bytes, which stand in the tag itself
            kind, length, start, room = kind & 0xFFFF, kind >> 16, self.place + 4, self.place + 8
        end = start + length
        if end > room:
            raise MatlabError("it is cut off")
        self.place = end if kind == COMPRESSED else end + (self.place - end) % 8
        return kind, self.data[start:end]


@dataclass
class _Matrix:
    """A variable, or a part of one."""

    kind: int
    shape: tuple[int, ...]
    name: str
    parts: _Elements

    @classmethod
    def open(cls, content: bytes, order: str) -> _Matrix:
        parts = _Elements(content, order)
        flags = _numbers(parts)
        shape = tuple(int(size) for size in _numbers(parts))
        if not flags or min(shape, default=-1) < 0:
            raise MatlabError("it has a matrix without a class or a size")
        return cls(int(flags[0]) & 0xFF, shape, _text(parts), parts)

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise MatlabError(f"it has more than {MAX_DEPTH} cells in each other")
        if self.kind == TEXT:
            return _text(self.parts)
        values = self._values(depth)
        return values[0] if len(values) == 1 else values

    def _values(self, depth: int) -> list[Any]:
        if self.kind in ARRAYS:
            return list(_numbers(self.parts))
        if self.kind not in (CELL, STRUCT):
            raise MatlabError(f"it has a matrix of class {self.kind}, which is no text, number, cell or struct")
        fields = _field_names(self.parts) if self.kind == STRUCT else [""]
        num = math.prod(self.shape)
        if num * len(fields) * 8 > len(self.parts.data):  # each takes a tag at least
            raise MatlabError("it is cut off")
        rows = [{field: self._inner(depth) for field in fields} for _ in range(num)]
        return rows if self.kind == STRUCT else [row[""] for row in rows]

    def _inner(self, depth: int) -> Any:
        kind, content = self.parts.next()
        if kind != MATRIX:
            raise MatlabError(f"it has a cell of type {kind}")
        return _Matrix.open(content, self.parts.order).value(depth + 1) if content else []


def _numbers(parts: _Elements) -> tuple[float, ...]:
    kind, content = parts.next()
    letter = NUMBERS.get(kind)
    if letter is None or len(content) % struct.calcsize(f"={letter}"):
        raise MatlabError(f"it has numbers of type {kind} in {len(content)} bytes")
    return struct.unpack(f"{parts.order}{len(content) // struct.calcsize(f'={letter}')}{letter}", content)


def _text(parts: _Elements) -> str:
    kind, content = parts.next()
    if kind not in TEXTS:
        raise MatlabError(f"it has a text of type {kind}")
    encoding = TEXTS[kind] + {"<": "-le", ">": "-be"}[parts.order] * (kind in (4, 17, 18))
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise MatlabError(f"it has a text that is none: {error}") from error


def _field_names(parts: _Elements) -> list[str]:
    """Read a struct's names, each in as many bytes, filled up with zeros."""
    (length, *_), names = _numbers(parts) or (0,), _text(parts)
    length = int(length)
    if length < 1 or not names or len(names) % length:
        raise MatlabError("it has a struct without names")
    return [names[k : k + length].partition("\0")[0] for k in range(0, len(names), length)]
