"""Read FGVC-Aircraft 2013b as its archive unpacks: 100 variants of 70 families of 30 manufacturers.

Which of the three are the classes is part of the data set's name: `DIR#variant` (as without), `DIR#family`,
`DIR#manufacturer`. So whatever stores or names the data says it too, and no command needs an option for it.
"""

from __future__ import annotations

from distill.data.image_set import ImageSet
from distill.data.layouts.listing import find_base, listed_set, read_boxes, read_lines, read_table
from distill.data.objects import BoxTable
from distill.data.root import Root
from distill.data.splits import SPLITS, find_split_part

BASES = ("fgvc-aircraft-2013b/data/", "data/", "")
CLASSES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
"""Kind of labels -> the file that lists its classes."""
BANNER_PX = 20
"""Height of the line at the bottom of each image that names its photographer."""


def recognizes(root: Root) -> bool:
    """Tell FGVC-Aircraft by one of its text files."""
    return _base(root) is not None


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one of the official splits, without the images' banners, with the labels that the root's `#` says.

    Raises:
        FileNotFoundError: if a file that the split needs is missing; the message names it.
        ValueError: if the split does not exist or a file is broken.
    """
    base, labels = _base(root) or "", root.labels or "variant"
    root = Root(f"{root.folder}#{labels}")
    place = find_split_part(root.uri, split, SPLITS)
    names = read_lines(root, base + CLASSES[labels])
    listed_in = f"{base}images_{labels}_{place.part}.txt"
    labelled = read_table(root, listed_in)
    images = {key: f"{base}images/{key}.jpg" for key in labelled}
    boxes = read_boxes(root, f"{base}images_box.txt", images)
    return listed_set(
        root,
        {images[key]: name for key, name in labelled.items()},
        {name: name for name in names},
        name=f"aircraft-{labels}",
        listed_in=listed_in,
        under=f"{base}images",
        place=place,
        # the first and the last pixel, counted from 1, are turned into edges
        objects=BoxTable(corners={name: (x1 - 1, y1 - 1, x2, y2) for name, (x1, y1, x2, y2) in boxes.items()}),
        banner_px=BANNER_PX,
    )


def _base(root: Root) -> str | None:
    return find_base(root, BASES, (*CLASSES.values(), "images_box.txt"))
