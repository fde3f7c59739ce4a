"""Check a teacher when it is loaded: made-up images, one alone and among others, in two orders and in a full batch.

A response must belong to its image. Batch norm in training mode, a softmax over the batch or a random layer make it
depend on what else is asked at the moment, and each number that follows is then about something else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from distill.teachers.outputs import class_scores
from distill.teachers.teacher_toml import Output

NUM_IMAGES = 8
NOISE = 1e-3
"""Difference of a score that an engine may make between batches."""
SHARE = 0.2
"""Largest difference between batches, as a share of the difference between images. EfficientNet-Lite0 with ImageNet's
weights have 0.50 with batch norm in training mode, and 0.12 to 0.28, by weight type and engine, with dynamic
quantization, whose scale is the batch's (0.02 on photographs): some of these are refused."""
BRIGHTNESS = 0.8  # of the images at load: on average as bright as photographs, which no service refuses
MAX_PIXELS = 2**24  # of all made-up images of one set


def probe_images(
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    num_images: int = NUM_IMAGES,
    *,
    brightness: float = 1.0,
) -> np.ndarray:
    """Make normalized images (N, 3, H, W): colored squares with a little noise, the same every time.

    There are `num_images` of them, fewer (2 at least) where they are large.
    """
    random = np.random.default_rng(0)
    num_images = max(min(num_images, MAX_PIXELS // (size[0] * size[1])), 2)
    coarse = random.random((num_images, 3, 8, 8), dtype=np.float32)
    rows, columns = (np.arange(length) * 8 // length for length in size)
    images = brightness * coarse[:, :, rows][:, :, :, columns] + random.normal(0, 0.05, (num_images, 3, *size))
    center, width = (np.reshape(values, (1, 3, 1, 1)) for values in (mean, std))
    return ((np.clip(images, 0, 1) - center) / width).astype(np.float32)


def check_batches(first: torch.Tensor, batches: Sequence[torch.Tensor], output: Output, *, spec: str) -> float:
    """Check that a teacher's outputs for an image do not depend on the images beside it.

    Args:
        first: the outputs for the first image alone, (1, K).
        batches: the outputs for the same two or more images in batches of different orders, each (n, K).
        output: what the outputs are.
        spec: the teacher, for messages.

    Returns:
        The largest difference of an output between one image alone and in a batch.

    Raises:
        ValueError: they do depend on it.
    """
    scores = [class_scores(rows, output) for rows in batches]
    far = max(_distance(class_scores(first, output), scores[0][:1]), *(_distance(scores[0], one) for one in scores))
    apart = _distance(scores[0], scores[0].roll(1, 0))
    if far > NOISE and far > SHARE * apart:
        raise ValueError(
            f"teacher {spec!r} has scores for one image alone and among {len(scores[0]) - 1} others that differ by "
            f"{far:.3g}, while those of different images differ by {apart:.3g}: they depend on the rest of the "
            "batch, or on chance. Export the model in eval mode (batch norm, dropout), with no mean or softmax over "
            "the batch; quantize it statically rather than dynamically"
        )
    if far > NOISE:
        logging.getLogger(__name__).warning(
            "%s: the scores of one image alone and in a batch differ by %.3g; maps and scores have that much noise",
            spec,
            far,
        )
    return float((first - batches[0][:1]).abs().max())


def _distance(scores: torch.Tensor, others: torch.Tensor) -> float:
    """Return the difference of the class that differs most, averaged over the images."""
    return float((scores - others).abs().amax(dim=1).mean())
