"""Read CUB-200-2011 as `CUB_200_2011.tgz` unpacks: 200 kinds of birds; `segmentations.tgz` is optional.

Segmentations are how many of five people marked a pixel: the object is where three or more did. Without them, it is
the data set's box.
"""

from __future__ import annotations

from collections.abc import Mapping

from distill.data.image_set import ImageSet
from distill.data.layouts.listing import find_base, listed_set, read_boxes, read_column, read_table
from distill.data.objects import BoxTable, MaskFiles, Objects
from distill.data.root import Root
from distill.data.splits import find_split_part

BASES = ("CUB_200_2011/", "")
OWN_FILES = ("image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")


def recognizes(root: Root) -> bool:
    """Tell CUB-200-2011 by the text files of its own, of which one is enough."""
    return find_base(root, BASES, OWN_FILES) is not None


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split: the official `test`, or `train` and `val`, nine tenths and one tenth of the official train.

    Raises:
        FileNotFoundError: if a file of the data set is missing; the message names it.
        ValueError: if the split does not exist or a file is broken.
    """
    base = find_base(root, BASES, OWN_FILES) or ""
    place = find_split_part(root.uri, split, ("train", "test"))
    images = {key: f"{base}images/{path}" for key, path in read_table(root, f"{base}images.txt").items()}
    trains = dict(zip(images, read_column(root, f"{base}train_test_split.txt", images), strict=True))
    images = {key: image_id for key, image_id in images.items() if trains[key] == str(int(place.part == "train"))}
    labels_file = f"{base}image_class_labels.txt"
    labels = read_column(root, labels_file, images)
    return listed_set(
        root,
        dict(zip(images.values(), labels, strict=True)),
        {key: _readable(name) for key, name in read_table(root, f"{base}classes.txt").items()},
        name="cub",
        listed_in=labels_file,
        under=f"{base}images",
        place=place,
        objects=_objects(root, base, images),
    )


def _readable(name: str) -> str:
    """Turn 001.Black_footed_Albatross into Black footed Albatross."""
    return name.rpartition(".")[2].replace("_", " ")


def _objects(root: Root, base: str, images: Mapping[str, str]) -> Objects:
    segmentations = find_base(root, (base, ""), ("segmentations",))
    if segmentations is not None:
        return MaskFiles(folder=f"{segmentations}segmentations", below=f"{base}images/")
    boxes = read_boxes(root, f"{base}bounding_boxes.txt", images)
    corners = {name: (left, top, left + width, top + height) for name, (left, top, width, height) in boxes.items()}
    return BoxTable(corners=corners)
