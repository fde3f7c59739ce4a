"""Read an image-folder tree: `class/image`, `train|val|test/class/image`, or images without class folders.

`validation`, `valid`, `training_set` and the like are splits too. A class may be named like a split: a folder `train`
of images beside other folders of images is a class. Where both readings are possible, the layout is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from distill.data.image_set import ImageSet
from distill.data.layouts import wordnet
from distill.data.objects import MaskFiles
from distill.data.root import EXTENSIONS, Root, skipped_text
from distill.data.splits import find_split_part, split_folders, split_of_folder

EXTRAS = ("masks", "annotations", "labels", "segmentations", "metadata")
"""Folders that data sets have beside their splits, and that are no class."""


def recognizes(root: Root) -> bool:
    """Take every folder: this layout is the last that is asked."""
    return True


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split of an image-folder tree; `find_split_part` says what a split is.

    Raises:
        ValueError: if the split does not exist, has no images, or it cannot be told which folders are splits.
    """
    have = find_splits(root)
    part = find_split_part(root.uri, split, tuple(have))
    under = have.get(part.part, "")
    listing = root.list_images(under)
    names = listing.names
    if not under:
        masks = {MaskFiles().path(name) for name in names}
        names = tuple(name for name in names if name not in masks)
    if not names:
        raise ValueError(
            f"data folder {root.uri + ('/' + under if under else '')!r} has no images; allowed endings: "
            f"{', '.join(sorted(EXTENSIONS))} (any case){skipped_text(listing.skipped)}"
        )
    folders = _class_folders(root, have, names)
    image_ids = part.choose(names)
    if not image_ids:
        raise ValueError(
            f"data folder {root.uri!r} has too few images to hold some out for validation; add a val folder"
        )
    index = {name: number for number, name in enumerate(folders)}
    known = wordnet.classes(folders)
    return ImageSet(
        name=root.name,
        root=root.uri,
        image_ids=image_ids,
        class_ids=tuple(index.get(_class_folder(image_id, under)) for image_id in image_ids),
        class_names=folders if known is None else tuple(name for _, name in known),
        class_folders=folders,
        label_spaces={} if known is None else {wordnet.NUM_CLASSES: tuple(number for number, _ in known)},
        split=part.split,
        stamps=listing.stamps,
        skipped=listing.skipped,
    )


def find_splits(root: Root) -> dict[str, str]:
    """Map each split that the tree has to its folder; empty for a tree without splits.

    Raises:
        ValueError: if it cannot be told whether a folder is a split or a class.
    """
    folders = root.folders()
    others = [name for name in folders if name.lower() not in EXTRAS]
    have = split_folders(root.uri, folders) if _may_be_splits(root, others) else {}
    inside = root.folders(others[0]) if len(others) == 1 and not have else ()
    if set(split_folders(root.uri, inside)) & {"train", "val"}:
        raise ValueError(
            f"data folder {root.uri!r} holds one folder, {others[0]!r}, which has the splits {', '.join(inside)}; "
            f"give {root.uri}/{others[0]} as the data"
        )
    return have


def _may_be_splits(root: Root, folders: Iterable[str]) -> bool:
    """Tell whether the folders that are named like splits are splits, and not classes.

    Raises:
        ValueError: if they may be either.
    """
    split_like = [name for name in folders if split_of_folder(name)]
    others = [name for name in folders if name not in split_like and root.holds_images(name)]
    if not split_like or not others:
        return bool(split_like)
    nested = [name for name in split_like if root.folders(name)]
    if not nested:
        if len(split_like) == 1:
            return False  # a class, among others
    elif len(nested) == len(split_like) > 1:
        return True  # with class folders in each; other folders are left out
    raise ValueError(
        f"data folder {root.uri!r} has {', '.join(map(repr, split_like))} beside {_shown(others)}: these may be splits "
        "or classes; move the splits, or all class folders, into a folder of their own and give that as the data"
    )


def _shown(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def class_folders(root: Root, have: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """List the class folders' names over all splits, in their order: without looking at any image."""
    have = split_folders(root.uri, root.folders()) if have is None else have
    return class_order({name for part in have.values() for name in root.folders(part)} if have else root.folders())


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort class folders: numbers by their value (2 before 10), other names as text."""
    names = tuple(names)
    if all(re.fullmatch(r"[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _class_folders(root: Root, have: Mapping[str, str], image_ids: Iterable[str]) -> tuple[str, ...]:
    """Number the classes over all splits, so that a class has the same number in each of them."""
    if have:
        return class_folders(root, have)
    return class_order({name for image_id in image_ids if (name := _class_folder(image_id, ""))})


def _class_folder(image_id: str, under: str) -> str:
    inside = image_id.removeprefix(under + "/") if under else image_id
    folder, slash, _ = inside.partition("/")
    return folder if slash else ""
