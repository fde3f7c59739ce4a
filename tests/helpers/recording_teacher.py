"""A black box that notes how many training workers there are, as `python:recording_teacher:make` names it."""

import os
import time
from pathlib import Path

import numpy as np

NOTES = "NOTING_TEACHER_FOLDER"
SLOW_S = 0.1  # an answer, so that there is time to lose a node


class Noting:
    """Three classes by the mean of each color."""

    input_size = (24, 40)
    num_classes = 3
    fingerprint = "noting"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 (B, 24, 40, 3) to probabilities (B, 3)."""
        with (Path(os.environ[NOTES]) / f"{os.getpid()}").open("a") as notes:
            notes.write(f"{time.time()} {os.environ.get('WORLD_SIZE', '0')} {len(images)}\n")
        time.sleep(SLOW_S)
        powers = np.exp(images.mean(axis=(1, 2)) / 50)
        return powers / powers.sum(axis=1, keepdims=True)


def make() -> Noting:
    """Make the black box."""
    return Noting()


def world_sizes(folder: Path) -> list[int]:
    """List the numbers of workers in the order in which they trained, without repeats beside each other."""
    lines = [line.split() for path in folder.iterdir() for line in path.read_text().splitlines()]
    sizes = [int(size) for _, size, _ in sorted(lines, key=lambda line: float(line[0])) if int(size)]
    return [size for k, size in enumerate(sizes) if k == 0 or sizes[k - 1] != size]
