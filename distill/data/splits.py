"""Which images train, validate and are scored: a data set's own parts, with a tenth held out where one is missing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

SPLITS = ("train", "val", "test")
SPLIT_SEED = "distill-split-0"
"""Goes into the hash that holds out a tenth where a data set has no val part of its own."""


@dataclass(frozen=True, kw_only=True)
class SplitPart:
    """Where the images of a split are."""

    split: str | None
    """The split; None for a data set without parts that is taken whole."""
    part: str
    """The data set's own part that holds it; empty where it has no parts."""
    held_out: bool
    """The split is a tenth of that part (val) or the rest (train)."""

    def choose(self, image_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Choose the split's images among those of the part, by a hash of the image id."""
        if not self.held_out:
            return image_ids
        tenth = frozenset(sorted(image_ids, key=_draw)[: math.ceil(len(image_ids) / 10)])
        return tuple(image_id for image_id in image_ids if (image_id in tenth) == (self.split == "val"))


def find_split_part(uri: str, split: str | None, have: Sequence[str]) -> SplitPart:
    """Say where the images of a split are.

    A part `split` is taken as it is. Without a part `val`, `train` and `val` are nine tenths and one tenth of
    `train`, or of everything in a data set without parts. `split=None` means `val`, else `test`, else everything.

    Args:
        uri: the data set, for messages.
        split: what is asked for.
        have: the data set's own parts.

    Raises:
        ValueError: if the split does not exist.
    """
    if split is None:
        split = next((name for name in ("val", "test") if name in have), "val" if have else None)
    if split is None:
        return SplitPart(split=None, part="", held_out=False)
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; allowed: {', '.join(SPLITS)}")
    if not have and split != "test":
        return SplitPart(split=split, part="", held_out=True)
    if "train" in have and "val" not in have and split != "test":
        return SplitPart(split=split, part="train", held_out=True)
    if split in have:
        return SplitPart(split=split, part=split, held_out=False)
    raise ValueError(
        f"data folder {uri!r} has no split {split!r}; "
        f"it has: {', '.join(have) or 'images without splits'}; choose one of those or add a folder {split!r}"
    )


def _draw(image_id: str) -> str:
    return hashlib.sha256(f"{SPLIT_SEED}:{image_id}".encode()).hexdigest()
