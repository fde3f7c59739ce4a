"""Object boxes of ImageNet's validation images and others: PASCAL-VOC XML, one file an image.

The files come from elsewhere, so a document type, which could define entities that grow without end or name other
files, is refused before any of it is read.
"""

from dataclasses import dataclass, field
from xml.parsers import expat

import numpy as np

MAX_BYTES = 1_000_000  # the largest of ImageNet's is 10 kB
CORNERS = ("xmin", "ymin", "xmax", "ymax")
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The boxes of one image."""

    size: tuple[int, int]
    """Height and width of the image that they were drawn on, in pixels."""
    corners: tuple[Corners, ...]
    """xmin, ymin, xmax, ymax of each, in pixels of that image."""

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Mark the pixels of a frame whose centers lie in any box, scaled with the image to `size` (H, W).

        Returns:
            bool (H, W).
        """
        (height, width), (rows, columns) = self.size, size
        y, x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
        found = np.zeros(size, dtype=bool)
        for left, top, right, bottom in self.corners:
            found |= ((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))
        return found

    def turned(self, turn: int) -> "Boxes":
        """Turn boxes that were drawn on an image as its file stores it to where they lie on the upright one.

        Args:
            turn: How EXIF says that the image is stored, 1 (upright) to 8.
        """
        height, width = self.size
        places = {
            2: lambda x, y: (width - x, y),
            3: lambda x, y: (width - x, height - y),
            4: lambda x, y: (x, height - y),
            5: lambda x, y: (y, x),
            6: lambda x, y: (height - y, x),
            7: lambda x, y: (height - y, width - x),
            8: lambda x, y: (y, width - x),
        }
        if turn not in places:
            return self
        ends = [(places[turn](box[0], box[1]), places[turn](box[2], box[3])) for box in self.corners]
        corners = tuple((min(a, c), min(b, d), max(a, c), max(b, d)) for (a, b), (c, d) in ends)
        return Boxes(size=self.size if turn < 5 else (width, height), corners=corners)


def read_boxes(data: bytes) -> Boxes:
    """Parse `<annotation>` with its `<size>` and the `<bndbox>` of each `<object>`.

    Raises:
        ValueError: it is no such XML, has a document type, a size or corner that is no number, or no box.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"the annotation has {len(data)} bytes; allowed: {MAX_BYTES}")
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"the annotation is not XML: {error}") from error
    return reader.boxes()


def _refuse_document_type(*_: object) -> None:
    raise ValueError("the annotation has a document type (<!DOCTYPE>), which no annotation needs; remove it")


@dataclass
class _Reader:
    """Collect the numbers that stand under annotation/size and annotation/object/bndbox."""

    path: list[str] = field(default_factory=list)
    size: dict[str, str] = field(default_factory=dict)
    found: list[dict[str, str]] = field(default_factory=list)

    def start(self, name: str, _: object) -> None:
        self.path.append(name)
        if self.path == ["annotation", "object", "bndbox"]:
            self.found.append({})

    def end(self, _: str) -> None:
        self.path.pop()

    def text(self, text: str) -> None:
        *above, name = self.path
        if above == ["annotation", "size"]:
            self.size[name] = self.size.get(name, "") + text
        elif above == ["annotation", "object", "bndbox"]:
            self.found[-1][name] = self.found[-1].get(name, "") + text

    def boxes(self) -> Boxes:
        height, width = (_number(self.size, name) for name in ("height", "width"))
        if min(height, width) < 1:
            raise ValueError(f"the annotation's image is {width:g} x {height:g} pixels; allowed: 1 or more")
        if not self.found:
            raise ValueError("the annotation has no box (annotation/object/bndbox)")
        corners = tuple((*(_number(box, name) for name in CORNERS),) for box in self.found)
        return Boxes(size=(int(height), int(width)), corners=corners)  # pyright: ignore[reportArgumentType]


def _number(values: dict[str, str], name: str) -> float:
    try:
        number = float(values[name])
    except (KeyError, ValueError):
        raise ValueError(f"the annotation's {name} is {values.get(name)!r}, not a number") from None
    if not np.isfinite(number):
        raise ValueError(f"the annotation's {name} is {values[name]!r}, not a finite number")
    return number
