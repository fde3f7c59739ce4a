"""Black boxes for tests, as `python:tiny_teacher:bright` names them."""

import numpy as np

NUM_CLASSES = 10


class Bright:
    """Ten classes by the mean brightness; 40 x 56 pixels, not square."""

    input_size = (40, 56)
    fingerprint = "bright"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        centres = (np.arange(NUM_CLASSES) + 0.5) * 25.6
        closeness = -np.abs(images.mean(axis=(1, 2, 3))[:, None] - centres) / 10
        shares = np.exp(closeness - closeness.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


class Dark(Bright):
    """Another black box with the same classes."""

    fingerprint = "dark"


class Blind(Bright):
    """Answers for images of one color alone."""

    fingerprint = "blind"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        seen = super().__call__(images)
        even = images.max(axis=(1, 2)) == images.min(axis=(1, 2))  # (B, 3)
        return np.where(even.all(axis=1)[:, None], seen, np.nan)


def bright() -> Bright:
    """Return the first black box."""
    return Bright()


def dark() -> Dark:
    """Return the second."""
    return Dark()


def blind() -> Blind:
    """Return the one that sees nothing."""
    return Blind()
