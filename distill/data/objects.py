"""Where the object of an image is, as its data set says it: mask files, a file of boxes per image, or one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from distill.data.boxes import MAX_BYTES, Boxes, Corners, read_boxes
from distill.data.decode import decode, stored_view
from distill.data.root import Root

Kind = Literal["masks", "boxes"]


class ImageFiles(Protocol):
    """The part of an `ImageSet` that objects need: its files, and the rows that are no part of the picture."""

    @property
    def banner_px(self) -> int:
        """Rows of text at the bottom of each image."""
        ...

    def read(self, image_id: str) -> bytes:
        """Read a file of the data set, by its path relative to the root."""
        ...


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """A mask for each image: white on the object (128 or more), as large as the image."""

    kind: ClassVar[Kind] = "masks"
    folder: str = "masks"
    """Folder, relative to the data set, that holds them under the images' own paths, ending in .png."""
    below: str = ""
    """Start of the images' paths that the masks' leave out."""

    def path(self, image_id: str) -> str:
        """Name an image's mask, relative to the data set."""
        return f"{self.folder}/{image_id.removeprefix(self.below).rpartition('.')[0]}.png"

    def find(self, images: ImageFiles, image_id: str) -> np.ndarray | None:
        """Read an image's mask, bool (H, W); None where it has none. Raises: ImageError where it is broken."""
        try:
            data = images.read(self.path(image_id))
        except FileNotFoundError:
            return None
        return np.asarray(decode(data).convert("L")) >= 128


@dataclass(frozen=True, kw_only=True)
class BoxFiles:
    """PASCAL-VOC annotations, NAME.xml for the image NAME.*, whatever folder that is in."""

    kind: ClassVar[Kind] = "boxes"
    uri: str
    """The annotations' folder."""

    def path(self, image_id: str) -> str:
        """Name an image's annotation: ILSVRC2012_val_00000001.xml of val/n01751748/ILSVRC2012_val_00000001.JPEG."""
        name = image_id.rpartition("/")[2]
        return (name.rpartition(".")[0] or name) + ".xml"

    def find(self, images: ImageFiles, image_id: str) -> Boxes | None:
        """Read an image's boxes, on the upright image; None where it has none.

        Annotators draw on the pixels as they are stored, whatever EXIF says; where the annotation's size shows that
        they saw the image upright, the boxes stay.

        Raises:
            ValueError: the boxes are broken, or the image.
        """
        try:
            found = read_boxes(Root(self.uri).read_table(self.path(image_id), MAX_BYTES))
        except FileNotFoundError:
            return None
        (height, width), turn = stored_view(images.read(image_id))
        seen_upright = height != width and found.size == (width, height)
        return found if seen_upright else found.turned(turn)


@dataclass(frozen=True, kw_only=True)
class BoxTable:
    """One box for each image, from a data set's own table."""

    kind: ClassVar[Kind] = "boxes"
    corners: Mapping[str, Corners]
    """By image id; in pixels of the image as it is stored, whose top left corner is (0, 0)."""

    def path(self, image_id: str) -> str:
        """Name an image's box, for messages."""
        return f"box of {image_id}"

    def find(self, images: ImageFiles, image_id: str) -> Boxes | None:
        """Make an image's box, on the upright image; None where it has none."""
        if image_id not in self.corners:
            return None
        (height, width), turn = stored_view(images.read(image_id))
        return Boxes(size=(height - images.banner_px, width), corners=(self.corners[image_id],)).turned(turn)


Objects = MaskFiles | BoxFiles | BoxTable


def resize_mask(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Resize a bool mask (h, w) to `size` (H, W): the pixel under each new pixel's center."""
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)].astype(bool)
