"""Find the images of a data set: one file per official layout, `folder` for everything else.

To add a layout, write a file with `recognises(root)` and `open_split(root, split)` and name it in `LAYOUTS`.
"""

from __future__ import annotations

from dataclasses import replace

from distill.images import aircraft, cars, cub, folder, imagenet, imagenette
from distill.images.image_set import ImageSet
from distill.images.root import open_root

__all__ = ["ImageSet", "open_images"]

LAYOUTS = (imagenette, imagenet, cub, cars, aircraft, folder)
"""In the order in which they are asked; the first that recognises the folder reads it."""


def open_images(data: str, *, split: str | None = None, limit: int | None = None) -> ImageSet:
    """List the images of `data`, a folder or URI, in sorted order.

    Args:
        data: an image-folder tree (with or without class folders and splits) or a data set's official layout;
            `#family` or another of `LABELS` behind it chooses among several kinds of labels.
        split: "train", "val" or "test"; None means val, else test, else all images of a
            data set without splits.
        limit: take the first so many images only.

    Raises:
        FileNotFoundError: if the folder is missing, or a file of an official layout.
        ValueError: if it has no images, no such split or no such labels, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} is too small; allowed: 1 or more, or none for all images")
    root = open_root(data)
    layout = next(layout for layout in LAYOUTS if layout.recognises(root))
    if root.labels and layout is not aircraft:
        raise ValueError(f"data {data!r} is no FGVC-Aircraft and has one kind of labels; leave #{root.labels} out")
    images = layout.open_split(root, split)
    return replace(images, image_ids=images.image_ids[:limit], class_ids=images.class_ids[:limit])
