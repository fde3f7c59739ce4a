"""Read the files that official layouts list their images in: text tables and MATLAB's; errors name the file."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from distill.data.boxes import Corners
from distill.data.image_set import ImageSet
from distill.data.layouts.matlab import MatlabError, read_variable
from distill.data.objects import Objects
from distill.data.root import Listing, Root
from distill.data.splits import SplitPart


def find_base(root: Root, bases: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first of `bases` ("" or "folder/") that holds any file or folder of `names`; None without one."""
    return next((base for base in bases if any(root.has(base + name) for name in names)), None)


def incomplete(root: Root, name: str, detail: str = "") -> FileNotFoundError:
    """Make the error for a data set that lacks the file `name`."""
    return FileNotFoundError(
        f"data set {root.uri!r} is not complete: {name} is missing{detail}; unpack the data set's own archives there "
        "again, or give a plain folder of images"
    )


def read_lines(root: Root, name: str) -> list[str]:
    """Read the lines of a text file, without the empty ones. Raises: FileNotFoundError, or ValueError for no UTF-8."""
    try:
        text = root.read_table(name).decode("utf-8-sig")
    except FileNotFoundError:
        raise incomplete(root, name) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} in {root.uri!r} is not UTF-8 text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_table(root: Root, name: str) -> dict[str, str]:
    """Read a text file of lines `KEY VALUE`, where the value may hold spaces.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line has no value or a key comes twice.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(root, name), start=1):
        key, _, value = line.partition(" ")
        if not value or key in table:
            raise ValueError(f"{name} in {root.uri!r}, entry {number}: {line!r} is no new KEY VALUE")
        table[key] = value.strip()
    return table


def read_column(root: Root, name: str, keys: Iterable[str]) -> list[str]:
    """Read the values of `keys` from such a file. Raises: as `read_table`; ValueError where one is not listed."""
    table = read_table(root, name)
    try:
        return [table[key] for key in keys]
    except KeyError as error:
        raise ValueError(f"{name} in {root.uri!r} has no line for {error.args[0]}") from None


def read_boxes(root: Root, name: str, images: Mapping[str, str]) -> dict[str, Corners]:
    """Read the four numbers of each image's box from such a file.

    Args:
        root: the data set.
        name: the file.
        images: key -> image id.

    Returns:
        Image id -> the numbers, whatever they mean there.
    """
    return {
        image_id: _four_numbers(text, f"{name} in {root.uri!r}, image {key}")
        for (key, image_id), text in zip(images.items(), read_column(root, name, images), strict=True)
    }


def _four_numbers(text: str, where: str) -> Corners:
    try:
        left, top, right, bottom = (float(word) for word in text.split())
    except ValueError:
        raise ValueError(f"{where}: {text!r} is not four numbers") from None
    return left, top, right, bottom


def read_mat(root: Root, name: str, variable: str) -> list[Any]:
    """Read the elements of a variable of a MATLAB file, as `read_variable` does.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is broken, or has no such variable.
    """
    try:
        found = read_variable(root.read_table(name), variable)
    except FileNotFoundError:
        raise incomplete(root, name) from None
    except MatlabError as error:
        raise ValueError(f"{name} in {root.uri!r} is not a MATLAB file of level 5: {error}") from error
    if found in ([], ""):
        raise ValueError(f"{name} in {root.uri!r} has no {variable!r}")
    return found if isinstance(found, list) else [found]


def read_records(root: Root, name: str, variable: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Read the `fields` (name -> int, float or str) of each record of such a variable. Raises: as `read_mat`."""
    rows = read_mat(root, name, variable)
    try:
        return [{field: kind(row[field]) for field, kind in fields.items()} for row in rows]
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{name} in {root.uri!r} has no {variable!r} with {', '.join(fields)}: {error}") from error


def listed_set(
    root: Root,
    listed: Mapping[str, Hashable],
    classes: Mapping[Hashable, str],
    *,
    name: str,
    listed_in: str,
    under: str,
    place: SplitPart,
    objects: Objects,
    banner_px: int = 0,
) -> ImageSet:
    """Make the set of the images that a data set's own files list, once each of them is there.

    Args:
        root: the data set.
        listed: image id -> class, as the files say it, of the part that holds the split.
        classes: class, as the files say it -> name, in the official order.
        name: the data set's name.
        listed_in: the file that says the classes, for messages.
        under: the folder that the images are in.
        place: the split.
        objects: where the images' objects are said.
        banner_px: rows at the bottom of each image that are no part of it.

    Raises:
        FileNotFoundError: if an image that is listed is missing.
        ValueError: if none is listed, or with a class that does not exist.
    """
    if not listed:
        raise ValueError(f"{listed_in} in {root.uri!r} lists no image of the {place.part} split")
    index = {key: number for number, key in enumerate(classes)}
    for image_id, key in listed.items():
        if key not in index:
            raise ValueError(f"{listed_in} in {root.uri!r} gives {image_id} the class {key!r}, which no file names")
    listing = root.list_images(under) if root.has(under) else Listing(names=())
    gone = sorted(listed.keys() - frozenset(listing.names))
    if gone:
        raise incomplete(root, gone[0], f" ({len(gone)} of the {len(listed)} images that {listed_in} lists are)")
    image_ids = place.choose(tuple(sorted(listed)))
    return ImageSet(
        name=name,
        root=root.uri,
        image_ids=image_ids,
        class_ids=tuple(index[listed[image_id]] for image_id in image_ids),
        class_names=tuple(classes.values()),
        split=place.split,
        objects=objects,
        banner_px=banner_px,
        stamps=listing.stamps,
        skipped=listing.skipped,
        official=True,
    )
