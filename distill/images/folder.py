"""Read an image-folder tree: `class/image`, `train|val|test/class/image`, or images without class folders."""

from __future__ import annotations

import hashlib
import math

from distill.images.image_set import ImageSet, mask_id
from distill.images.root import EXTENSIONS, Root

SPLITS = ("train", "val", "test")
SPLIT_SEED = "distill-split-0"
"""Goes into the hash that holds out a tenth where a data set has no val folder of its own."""


def recognises(root: Root) -> bool:
    """Take every folder: this layout is the last that is asked."""
    return True


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split of an image-folder tree.

    A folder `split` is taken as it is. Without a `val` folder, `train` and `val` are nine tenths and one
    tenth of the images (of `train`, where that exists), chosen by a hash of the image id. `split=None` means
    `val`, else `test`, else everything.

    Raises:
        ValueError: if the split does not exist or has no images.
    """
    have = tuple(name for name in SPLITS if name in root.folders())
    if split is None:
        split = next((name for name in ("val", "test") if name in have), "val" if have else None)
    if split is not None and split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; allowed: {', '.join(SPLITS)}")
    under, hold_out = _place(root, split, have)
    image_ids = root.images(under)
    if not under:
        masks = {mask_id(image_id) for image_id in image_ids}
        image_ids = tuple(image_id for image_id in image_ids if image_id not in masks)
    if not image_ids:
        raise ValueError(
            f"data folder {root.uri + ('/' + under if under else '')!r} has no images; allowed endings: "
            f"{', '.join(sorted(EXTENSIONS))} (any case)"
        )
    folders = _class_folders(root, have, image_ids)
    if hold_out:
        held_out = _tenth(image_ids)
        image_ids = tuple(image_id for image_id in image_ids if (image_id in held_out) == (split == "val"))
    if not image_ids:
        raise ValueError(
            f"data folder {root.uri!r} has too few images to hold some out for validation; add a val folder"
        )
    index = {name: number for number, name in enumerate(folders)}
    class_ids = tuple(index.get(_class_folder(image_id, under)) for image_id in image_ids)
    return ImageSet(
        name=root.name,
        root=root.uri,
        image_ids=image_ids,
        class_ids=class_ids,
        class_names=folders,
        split=split,
    )


def class_folders(root: Root) -> tuple[str, ...]:
    """List the class folders' names over all splits, sorted: without looking at any image."""
    have = [name for name in SPLITS if name in root.folders()]
    return tuple(sorted({name for split in have for name in root.folders(split)})) if have else root.folders()


def _place(root: Root, split: str | None, have: tuple[str, ...]) -> tuple[str, bool]:
    """Say which folder holds the split, and whether a tenth of it must be held out."""
    if split is None:
        return "", False
    if not have and split in {"train", "val"}:
        return "", True
    if "train" in have and "val" not in have and split in {"train", "val"}:
        return "train", True
    if split in have:
        return split, False
    raise ValueError(
        f"data folder {root.uri!r} has no split {split!r}; "
        f"it has: {', '.join(have) or 'images without splits'}; choose one of those or add a folder {split!r}"
    )


def _class_folders(root: Root, have: tuple[str, ...], image_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Number the classes over all splits, so that a class has the same number in each of them."""
    if have:
        return class_folders(root)
    return tuple(sorted({name for image_id in image_ids if (name := _class_folder(image_id, ""))}))


def _class_folder(image_id: str, under: str) -> str:
    inside = image_id.removeprefix(under + "/") if under else image_id
    folder, slash, _ = inside.partition("/")
    return folder if slash else ""


def _tenth(image_ids: tuple[str, ...]) -> frozenset[str]:
    def draw(image_id: str) -> str:
        return hashlib.sha256(f"{SPLIT_SEED}:{image_id}".encode()).hexdigest()

    return frozenset(sorted(image_ids, key=draw)[: math.ceil(len(image_ids) / 10)])
