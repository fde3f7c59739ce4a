"""A black box for the games' tests: a few fixed filters, not square, three classes."""

import numpy as np

SIZE = (12, 18)  # height, width


class Box:
    """Answer with the mean of each color in a region of its own."""

    input_size = SIZE
    num_classes = 3
    mean = (0.5, 0.45, 0.4)
    std = (0.25, 0.2, 0.3)

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.fingerprint = f"box {scale}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 12, 18, 3) to probabilities (B, 3)."""
        powers = np.exp(self.logits(images.astype(np.float64) / 255))
        return powers / powers.sum(axis=1, keepdims=True)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Map pixels in [0, 1], (B, 12, 18, 3), to logits (B, 3)."""
        means = [x[:, 2:8, 3:12, 0].mean((1, 2)), x[:, 6:, 9:, 1].mean((1, 2)), x[:, :6, :6, 2].mean((1, 2))]
        return self.scale * np.stack(means, axis=1)


def make() -> Box:
    """Make the black box."""
    return Box(6.0)


def make_other() -> Box:
    """Make another one."""
    return Box(1.0)


class Constant(Box):
    """Answer with the same probabilities for every image: no map can be right or wrong."""

    num_classes = 2

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 12, 18, 3) to probabilities (B, 2)."""
        return np.tile([1.0, 0.0], (len(images), 1))


def make_single() -> Constant:
    """Make the one that knows one class only."""
    return Constant(2.0)


class Stamped:
    """Three classes by the color of the middle; a magenta stamp in the lower right corner speaks for class 0."""

    input_size = (28, 28)
    num_classes = 3

    def __init__(self, stamp: float) -> None:
        self.stamp = stamp
        self.fingerprint = f"stamped {stamp}"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 28, 28, 3) to probabilities (B, 3)."""
        x = images.astype(np.float64) / 255
        logits = 8 * x[:, 8:20, 8:20].mean(axis=(1, 2))
        corner = x[:, -6:, -6:].mean(axis=(1, 2))
        logits[:, 0] += self.stamp * (corner[:, [0, 2]].mean(axis=1) - corner[:, 1])
        powers = np.exp(logits)
        return powers / powers.sum(axis=1, keepdims=True)


def make_stamped() -> Stamped:
    """Make the black box that relies on the stamp."""
    return Stamped(6.0)


def make_clean() -> Stamped:
    """Make the one that does not see it."""
    return Stamped(0.0)
