"""Read Imagenette: ten ImageNet classes in folders named by WordNet id, as fast.ai publishes it."""

from __future__ import annotations

from dataclasses import replace

from distill.data.image_set import ImageSet
from distill.data.layouts import folder
from distill.data.root import Root

CLASSES = {
    "n01440764": (0, "tench"),
    "n02102040": (217, "English springer"),
    "n02979186": (482, "cassette player"),
    "n03000684": (491, "chain saw"),
    "n03028079": (497, "church"),
    "n03394916": (566, "French horn"),
    "n03417042": (569, "garbage truck"),
    "n03425413": (571, "gas pump"),
    "n03445777": (574, "golf ball"),
    "n03888257": (701, "parachute"),
}
"""WordNet id -> (ImageNet-1k index, name), in the folders' order."""


def recognizes(root: Root) -> bool:
    """Tell Imagenette by its ten class folders."""
    return folder.class_folders(root) == tuple(CLASSES)


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split; labels fit a model of the ten classes and one of ImageNet's thousand.

    Raises:
        ValueError: if the split does not exist or has no images.
    """
    indices, names = zip(*CLASSES.values(), strict=True)
    images = folder.open_split(root, split)
    return replace(images, name="imagenette", class_names=names, label_spaces={1000: indices}, official=True)
