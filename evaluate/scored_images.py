"""Scored images and maps as a page shows them: opened where that is allowed, else a sentence says why not."""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.errors import WorkError
from cluster.locations import Locations
from distill.data import ImageSet, open_images
from distill.data.decode import resize
from evaluate.format.safe_text import readable
from evaluate.games.reader import Results
from evaluate.scored_method import ScoredMethod


def open_scored_images(results: Results, locations: Locations, data: Sequence[str]) -> tuple[ImageSet | None, str]:
    """Open the data set of scores.

    Args:
        results: the scores; their configuration names the data set.
        locations: what may be opened.
        data: data sets that the user named; a single one stands in for a stored one that may not be opened.

    Returns:
        The data set, None where it is not opened, and a sentence that says why, or what is missing of it.
    """
    stored = results.config["data"]
    try:
        root = data[0] if len(data) == 1 and not locations.allows(stored) else locations.check(stored, what="data set")
    except ValueError as error:
        return None, f"The images are not shown: {error} (--data)."
    try:
        images = open_images(root, split=results.config.get("split"))
    except (OSError, ValueError, WorkError) as error:
        return None, f"The data set cannot be opened: {readable(str(error))}"
    missing = set(results.rows["image_id"].unique()) - set(images.image_ids)
    return images, f"{len(missing)} scored images are not in the data folder any more." if missing else ""


def openable_maps(methods: Sequence[ScoredMethod], locations: Locations) -> tuple[Mapping[str, str], str]:
    """Find the folders of maps that may be opened.

    Returns:
        Folders by the method's label, and a sentence that says which are left out; empty where none is.
    """
    folders, refused = {}, []
    for scored in methods:
        try:
            folders[scored.label] = locations.check(scored.maps, what="folder of maps")
        except ValueError as error:
            refused.append(str(error))
    if not refused:
        return folders, ""
    return folders, f"Maps of {len(refused)} of {len(methods)} methods are not shown: {refused[0]} (--maps)."


def read_image(images: ImageSet | None, image_id: str, size: tuple[int, int]) -> np.ndarray | None:
    """Read an image as uint8 (H, W, 3) at a size (height, width); None where it cannot be read any more."""
    if images is None:
        return None
    try:
        return resize(images.image(image_id), size)
    except (OSError, ValueError, WorkError):
        return None
