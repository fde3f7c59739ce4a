"""Name ImageNet's classes by the WordNet ids that class folders have: index among the thousand, and readable name."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib.resources import files

NUM_CLASSES = 1000
WORDNET_ID = re.compile(r"n\d{8}")


@functools.cache
def wordnet_ids() -> dict[str, int]:
    """Map the WordNet id of each of ImageNet-1k's classes to the index that every ImageNet model gives it."""
    lines = files("distill.data.layouts").joinpath("wordnet_ids.txt").read_text().split()
    return {wordnet_id: index for index, wordnet_id in enumerate(lines)}


def classes(folders: Sequence[str]) -> list[tuple[int, str]] | None:
    """Return index and name of each folder's class; None unless every folder is named by an ImageNet-1k id."""
    if not folders or not all(WORDNET_ID.fullmatch(name) for name in folders):
        return None
    indices = [wordnet_ids().get(name) for name in folders]
    if None in indices:
        return None
    names = imagenet_names()
    return [(index, names[index]) for index in indices if index is not None]


def imagenet_names() -> list[str]:
    """Return the names of ImageNet's 1,000 classes in their order, as torchvision's weights carry them."""
    from torchvision.models import ResNet50_Weights

    return list(ResNet50_Weights.DEFAULT.meta["categories"])
