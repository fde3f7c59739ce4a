"""A tiny black box that takes its time, named `python:benchmarks.reliability.slow_box:make`: its jobs mostly wait.

`SLOW_BOX_S` in the environment says how many seconds each image takes, without using the processor.
"""

import os
import time

import numpy as np

LATENCY = "SLOW_BOX_S"
SIZE = (8, 12)  # height, width in pixels
NUM_CLASSES = 10


class SlowBox:
    """Ten classes by mean brightness."""

    input_size = SIZE
    fingerprint = "slow box"

    def __init__(self, latency_s: float) -> None:
        """Remember how long an image takes."""
        self.latency_s = latency_s

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 8, 12, 3) to probabilities (B, 10)."""
        time.sleep(self.latency_s * len(images))
        centers = (np.arange(NUM_CLASSES) + 0.5) * 256 / NUM_CLASSES
        closeness = -np.abs(images.mean(axis=(1, 2, 3))[:, None] - centers) / 10
        shares = np.exp(closeness - closeness.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)


def make() -> SlowBox:
    """Make the black box."""
    return SlowBox(float(os.environ.get(LATENCY, "0")))
