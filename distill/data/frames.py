"""Images as the models see them here: the whole image, resized, no crop (the protocol's view)."""

from dataclasses import replace

import numpy as np

from distill.data import ImageSet
from distill.data.decode import ImageError, resize


def read_frame(images: ImageSet, image_id: str, size: tuple[int, int]) -> tuple[np.ndarray | None, str | None]:
    """Read one image at `size` (height, width).

    Returns:
        uint8 (height, width, 3) and None; or None and why the image cannot be used.
    """
    try:
        return resize(images.image(image_id), size), None
    except (ImageError, FileNotFoundError, PermissionError) as error:
        return None, f"{type(error).__name__}: {error}"


def without_list(images: ImageSet) -> ImageSet:
    """Copy the set without its list of images: enough to read them by id, and cheap to send to every actor."""
    return replace(images, image_ids=(), class_ids=())
