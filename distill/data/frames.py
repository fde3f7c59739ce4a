"""Images as the models see them here: the whole image, resized, no crop (the protocol's view)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cluster.storage import split_file
from distill.data import ImageSet
from distill.data.decode import ImageError, check_size, decode, resize, to_rgb
from distill.data.root import MAX_BYTES


def read_frame(images: ImageSet, image_id: str, size: tuple[int, int]) -> tuple[np.ndarray | None, str | None]:
    """Read one image at `size` (height, width).

    Returns:
        uint8 (height, width, 3) and None; or None and why the image cannot be used.
    """
    try:
        return resize(images.image(image_id), size), None
    except (ImageError, FileNotFoundError, PermissionError) as error:
        return None, f"{type(error).__name__}: {error}"


def without_image_ids(images: ImageSet) -> ImageSet:
    """Copy the set without its list of images: enough to read them by id, and cheap to send to every actor."""
    return replace(images, image_ids=(), class_ids=(), stamps={})


def as_photographs(images: Sequence[str | Path | np.ndarray | Image.Image]) -> tuple[Image.Image, ...]:
    """Return several images as `as_photograph` does each.

    Raises:
        ValueError: there is none, or one image stands in place of a list, whose rows would be taken for images.
        ImageError, FileNotFoundError: as `as_photograph`.
    """
    is_array = isinstance(images, np.ndarray) and images.ndim in (2, 3) and images.shape[-1] == 3
    if is_array or isinstance(images, str | Path | Image.Image):
        raise ValueError("one image is given in place of a list of images; put it into a list")
    if len(images) == 0:
        raise ValueError("no images are given; give one or more")
    return tuple(as_photograph(image) for image in images)


def as_photograph(source: str | Path | np.ndarray | Image.Image) -> Image.Image:
    """Return an image given as a file's path, a PIL image or an array as upright RGB.

    Args:
        source: a path; a PIL image; or an array (H, W, 3), or (H, W) of gray, of uint8.

    Raises:
        ImageError: the file or array is no image; the message says why.
        FileNotFoundError: there is no such file.
    """
    if isinstance(source, str | Path):
        folder, name = split_file(str(source))
        return decode(folder.read_bytes(name, max_bytes=MAX_BYTES))
    if isinstance(source, Image.Image):
        check_size(*source.size)
        return to_rgb(ImageOps.exif_transpose(source))
    array = np.asarray(source)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ImageError(
            f"an image is uint8 (height, width, 3) or (height, width), got {array.dtype} {array.shape}; "
            "multiply floats in [0, 1] by 255, and put colors last"
        )
    check_size(array.shape[1], array.shape[0])
    return Image.fromarray(array).convert("RGB")
