"""Splits of a data set: the folder of each split, and a tenth held out where there is no validation split."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SPLITS = ("train", "val", "test")
SPLIT_SEED = "distill-split-0"
"""Goes into the hash that holds out a tenth where a data set has no val part of its own."""

_WORDS = {"train": "train|training|trn", "val": "val|valid|validation|dev", "test": "test|testing|tst"}
_SPLIT_NAMES = {
    split: re.compile(rf"({words})([ _-]?(set|split|data|images|imgs))?", re.IGNORECASE)
    for split, words in _WORDS.items()
}


@dataclass(frozen=True, kw_only=True)
class SplitPart:
    """The part of a data set that holds the images of a split."""

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
        tenth = frozenset(sorted(image_ids, key=_hash)[: math.ceil(len(image_ids) / 10)])
        return tuple(image_id for image_id in image_ids if (image_id in tenth) == (self.split == "val"))


def find_split_part(uri: str, split: str | None, have: Sequence[str]) -> SplitPart:
    """Find the part of a data set that holds the images of a split.

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


def split_of_folder(name: str) -> str | None:
    """Return the split that a folder's name means: `validation`, `valid` and `val_set` mean val; None for no split."""
    return next((split for split, names in _SPLIT_NAMES.items() if names.fullmatch(name)), None)


def split_folders(uri: str, folders: Iterable[str]) -> dict[str, str]:
    """Map each split to the folder that is named after it, in the order of `SPLITS`.

    Raises:
        ValueError: if two folders mean the same split.
    """
    found: dict[str, str] = {}
    for name in sorted(folders):
        split = split_of_folder(name)
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"data folder {uri!r} has two folders for the split {split!r}: {found[split]!r} and {name!r}; "
                "keep one of them there, or give the folder of one as the data"
            )
        found[split] = name
    return {split: found[split] for split in SPLITS if split in found}


def _hash(image_id: str) -> str:
    return hashlib.sha256(f"{SPLIT_SEED}:{image_id}".encode()).hexdigest()
