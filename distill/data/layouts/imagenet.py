"""Read ILSVRC2012: train folders by WordNet id; val flat, with the devkit's ground truth, or sorted into folders.

Classes are numbered as every ImageNet model does, by WordNet id in sorted order, not by the devkit's ILSVRC2012_ID.
"""

from __future__ import annotations

import re

from distill.data.image_set import ImageSet
from distill.data.layouts.listing import find_base, incomplete, listed_set, read_lines, read_records, read_table
from distill.data.objects import BoxFiles
from distill.data.root import Root
from distill.data.splits import SPLITS, SplitPart, find_split_part

NUM_CLASSES = 1000
FIRST = "ILSVRC2012_val_00000001"
DEVKITS = ("ILSVRC2012_devkit_t12/data/", "ILSVRC2012_devkit_t3/data/", "devkit/data/")
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
MAPPING = "map_clsloc.txt"
"""The table of synsets that later years' devkits hold instead: WordNet id, ILSVRC2012_ID, name."""
BOXES = ("val/", "ILSVRC2012_bbox_val_v3/val/", "Annotations/CLS-LOC/val/")
"""Where the XML files of `ILSVRC2012_bbox_val_v3.tgz`, which unpacks to `val/`, may lie."""


def recognizes(root: Root) -> bool:
    """Tell ImageNet by its devkit, its first validation image, or a thousand folders named by WordNet ids."""
    return bool(_devkit(root)) or root.has(f"val/{FIRST}.JPEG") or len(_folders(root)) == NUM_CLASSES


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split; names alone are looked at, and no image is opened.

    Raises:
        FileNotFoundError: if a file or folder that the split needs is missing; the message names it.
        ValueError: if the split does not exist or a file of the devkit is broken.
    """
    have = [name for name in SPLITS if name in root.folders()]
    if not have:
        raise incomplete(root, "folder val (or train)")
    place = find_split_part(root.uri, split, have)
    if place.part == "val" and not root.folders("val"):
        return _open_flat(root, place)
    synsets = _named(root)
    listing = root.list_images(place.part)
    image_ids = listing.names
    class_ids = (None,) * len(image_ids)
    if place.part != "test":  # whose labels nobody has
        _check_folders(root, place.part, {image_id.split("/", 2)[1] for image_id in image_ids}, frozenset(synsets))
        image_ids = place.choose(image_ids)
        index = {wnid: number for number, wnid in enumerate(synsets)}
        class_ids = tuple(index[image_id.split("/", 2)[1]] for image_id in image_ids)
    return ImageSet(
        name="imagenet",
        root=root.uri,
        image_ids=image_ids,
        class_ids=class_ids,
        class_names=tuple(synsets.values()),
        class_folders=tuple(synsets),
        split=place.split,
        objects=_boxes(root),
        stamps=listing.stamps,
        skipped=listing.skipped,
        official=True,
    )


def _open_flat(root: Root, place: SplitPart) -> ImageSet:
    """List val as its archive unpacks: line n of the ground truth is the ILSVRC2012_ID of image n."""
    devkit = _devkit(root) or DEVKITS[0]
    truth = read_lines(root, devkit + GROUND_TRUTH)
    synsets = _numbered(root, devkit)
    return listed_set(
        root,
        {f"val/ILSVRC2012_val_{number:08d}.JPEG": line for number, line in enumerate(truth, start=1)},
        {number: name for number, (_, name) in sorted(synsets.items(), key=lambda item: item[1][0])},
        name="imagenet",
        listed_in=devkit + GROUND_TRUTH,
        under="val",
        place=place,
        objects=_boxes(root),
    )


def _check_folders(root: Root, part: str, found: set[str], known: frozenset[str]) -> None:
    gone, strange = sorted(known - found), sorted(found - known)
    if strange:
        raise ValueError(f"{part}/{strange[0]} in {root.uri!r} is no class folder of ImageNet, named by a WordNet id")
    if gone:
        raise incomplete(root, f"{part}/{gone[0]}", f" or empty ({len(gone)} of {len(known)} class folders are)")


def _named(root: Root) -> dict[str, str]:
    """Name the synsets: WordNet id -> name, sorted; without a devkit as torchvision does."""
    devkit = _devkit(root)
    if devkit:
        return dict(sorted(_numbered(root, devkit).values()))
    folders = _folders(root)
    if len(folders) != NUM_CLASSES:
        raise incomplete(root, DEVKITS[0] + META, f", and there are {len(folders)} class folders, not {NUM_CLASSES}")
    from torchvision.models import ResNet50_Weights

    return dict(zip(folders, ResNet50_Weights.DEFAULT.meta["categories"], strict=True))


def _numbered(root: Root, devkit: str) -> dict[str, tuple[str, str]]:
    """Read the devkit's synsets, those without children: ILSVRC2012_ID -> WordNet id, first of its names."""
    if root.has(devkit + MAPPING) and not root.has(devkit + META):
        rows = {wnid: rest.partition(" ") for wnid, rest in read_table(root, devkit + MAPPING).items()}
        return {number: (wnid, name.replace("_", " ")) for wnid, (number, _, name) in rows.items()}
    fields = {"ILSVRC2012_ID": int, "WNID": str, "words": str, "num_children": int}
    rows = read_records(root, devkit + META, "synsets", fields)
    leaves = (row for row in rows if row["num_children"] == 0)
    return {str(row["ILSVRC2012_ID"]): (row["WNID"], row["words"].partition(",")[0]) for row in leaves}


def _devkit(root: Root) -> str | None:
    return find_base(root, DEVKITS, (GROUND_TRUTH, META, MAPPING))


def _folders(root: Root) -> tuple[str, ...]:
    """List the class folders of train, or of val where there is no train."""
    part = next((name for name in ("train", "val") if name in root.folders()), None)
    return tuple(name for name in root.folders(part) if re.fullmatch(r"n\d{8}", name)) if part else ()


def _boxes(root: Root) -> BoxFiles:
    folder = find_base(root, BOXES, (f"{FIRST}.xml",)) or BOXES[0]
    return BoxFiles(uri=root.child(folder.rstrip("/")))
