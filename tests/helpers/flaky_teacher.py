"""A black box that fails on bright images, or now and then, or for good: as `python:flaky_teacher:make` names it."""

from typing import ClassVar

import numpy as np
from box_teacher import Box


class Moody(Box):
    """Answer as the games' black box does, where the mood allows."""

    mood: ClassVar[str] = "well"
    num_calls: ClassVar[int] = 0
    patience: ClassVar[int] = 0  # calls until it is dead
    batch_size = 4

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 12, 18, 3) to probabilities (B, 3)."""
        Moody.num_calls += 1
        bright = images.mean(axis=(1, 2, 3)) > 150
        if Moody.mood == "dead" and Moody.num_calls > Moody.patience:
            raise ConnectionError("nobody there")
        if Moody.mood == "hiccup" and Moody.num_calls % 3:  # two of three calls
            raise TimeoutError("try later")
        if Moody.mood == "slow" and bright.any():
            raise TimeoutError("too bright to be quick")
        if Moody.mood == "picky" and bright.any():
            raise ValueError("too bright")
        probs = super().__call__(images)
        return np.where(bright[:, None] & (Moody.mood == "nan"), np.nan, probs)


def make() -> Moody:
    """Make it."""
    return Moody(6.0)


class Mad:
    """Answer with what is no probability."""

    input_size = (12, 18)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 12, 18, 3) to nothing of use."""
        return np.full((len(images), 3), np.nan)


def mad() -> Mad:
    """Make the one that never works."""
    return Mad()
