"""Find the images of a data set: one file per official layout, `folder` for everything else.

To add a layout, write a file with `recognizes(root)` and `open_split(root, split)` and name it in `LAYOUTS`.
"""

from __future__ import annotations

from distill.data.image_set import ImageSet
from distill.data.layouts import aircraft, cars, cub, folder, imagenet, imagenette
from distill.data.root import open_root

__all__ = ["ImageSet", "open_images"]

LAYOUTS = (imagenette, imagenet, cub, cars, aircraft, folder)
"""In the order in which they are asked; the first that recognizes the folder reads it."""


def open_images(
    data: str, *, split: str | None = None, limit: int | None = None, per_class: int | None = None
) -> ImageSet:
    """List the images of `data`, a folder or URI, in sorted order.

    Args:
        data: an image-folder tree (with or without class folders and splits) or a data set's official layout;
            `#family` or another of `LABELS` behind it chooses among several kinds of labels.
        split: "train", "val" or "test"; None means val, else test, else all images of a
            data set without splits.
        limit: take the first so many images only.
        per_class: take the first so many images of each class only; not together with `limit`.

    Raises:
        FileNotFoundError: if the folder is missing, or a file of an official layout.
        ValueError: if it has no images, no such split or no such labels, or as `ImageSet.first`.
    """
    root = open_root(data)
    layout = next(layout for layout in LAYOUTS if layout.recognizes(root))
    if root.labels and layout is not aircraft:
        raise ValueError(f"data {data!r} is no FGVC-Aircraft and has one kind of labels; leave #{root.labels} out")
    return layout.open_split(root, split).first(limit, per_class)
