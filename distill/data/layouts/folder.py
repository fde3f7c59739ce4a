"""Read an image-folder tree: `class/image`, `train|val|test/class/image`, or images without class folders."""

from __future__ import annotations

from distill.data.image_set import ImageSet
from distill.data.objects import MaskFiles
from distill.data.root import EXTENSIONS, Root
from distill.data.splits import SPLITS, find_split_part


def recognizes(root: Root) -> bool:
    """Take every folder: this layout is the last that is asked."""
    return True


def open_split(root: Root, split: str | None) -> ImageSet:
    """List one split of an image-folder tree; `find_split_part` says what a split is.

    Raises:
        ValueError: if the split does not exist or has no images.
    """
    have = tuple(name for name in SPLITS if name in root.folders())
    place = find_split_part(root.uri, split, have)
    under = place.part
    image_ids = root.images(under)
    if not under:
        masks = {MaskFiles().path(image_id) for image_id in image_ids}
        image_ids = tuple(image_id for image_id in image_ids if image_id not in masks)
    if not image_ids:
        raise ValueError(
            f"data folder {root.uri + ('/' + under if under else '')!r} has no images; allowed endings: "
            f"{', '.join(sorted(EXTENSIONS))} (any case)"
        )
    folders = _class_folders(root, have, image_ids)
    image_ids = place.choose(image_ids)
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
        split=place.split,
    )


def class_folders(root: Root) -> tuple[str, ...]:
    """List the class folders' names over all splits, sorted: without looking at any image."""
    have = [name for name in SPLITS if name in root.folders()]
    return tuple(sorted({name for split in have for name in root.folders(split)})) if have else root.folders()


def _class_folders(root: Root, have: tuple[str, ...], image_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Number the classes over all splits, so that a class has the same number in each of them."""
    if have:
        return class_folders(root)
    return tuple(sorted({name for image_id in image_ids if (name := _class_folder(image_id, ""))}))


def _class_folder(image_id: str, under: str) -> str:
    inside = image_id.removeprefix(under + "/") if under else image_id
    folder, slash, _ = inside.partition("/")
    return folder if slash else ""
