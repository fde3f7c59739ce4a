"""What hides parts of a view: what RISE and the games show the black box, for the student to follow it there too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from distill.perturb.rise_masks import FAMILIES, rise_masks

BLUR_SIGMAS = (0.01, 0.1)
"""Share of the longer side: RISE's blur is as wide as a Gaussian of .014, LIME's and KernelSHAP's is one of .05."""

ORDER_CELLS = (3, 28)
"""Cells of a random order along each side: from the last layer of a student at 96 px to a layer 2 at 224 px."""


def masked(view: np.ndarray, generator: np.random.Generator, mean: Sequence[float]) -> np.ndarray:
    """Hide a part of a view: one time in two under a mask of RISE, else as in a frame of a game.

    RISE's mask, of either family, leaves m x + (1 - m) mean. A game's frame shows the first pixels of a random order,
    a share of them that is uniform in (0, 1), and in place of the others the mean colour or the blurred view.

    Args:
        view: uint8 (H, W, 3) at the teacher's size.
        generator: source of randomness.
        mean: the teacher's mean colour, per channel in [0, 1].

    Returns:
        uint8 (H, W, 3).
    """
    size, hidden = (view.shape[0], view.shape[1]), 255 * np.asarray(mean)
    if generator.integers(2):
        num_cells, keep_probability = FAMILIES[generator.integers(2)]
        seed = int(generator.integers(2**63))
        masks = rise_masks(range(1), seed=seed, size=size, num_cells=num_cells, keep_probability=keep_probability)
        return blend(view, hidden, masks[0].numpy())
    order = random_order(generator, size)
    shown = order >= np.quantile(order, generator.random())
    return blend(view, blurred(view, generator) if generator.integers(2) else hidden, shown)


def random_order(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a map (H, W) float32 to rank pixels by: uniform numbers in a grid, as patches or smoothed to blobs."""
    low, high = ORDER_CELLS
    num_cells = round(math.exp(generator.uniform(math.log(low), math.log(high))))
    grid = Image.fromarray(generator.random((num_cells, num_cells), dtype=np.float32))
    kernel = Image.Resampling.BILINEAR if generator.integers(2) else Image.Resampling.NEAREST
    return np.asarray(grid.resize((size[1], size[0]), kernel))


def blurred(view: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blur a view, uint8 (H, W, 3), by a Gaussian whose sigma is drawn log-uniformly from `BLUR_SIGMAS`."""
    low, high = BLUR_SIGMAS
    sigma_px = max(view.shape) * math.exp(generator.uniform(math.log(low), math.log(high)))
    return np.asarray(Image.fromarray(view).filter(ImageFilter.GaussianBlur(sigma_px)))


def blend(view: np.ndarray, other: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Compute `share * view + (1 - share) * other`, rounded to uint8 levels.

    Args:
        view: uint8 (H, W, 3).
        other: (H, W, 3), or one colour (3,), in levels from 0 to 255.
        share: in [0, 1], one number or (H, W).

    Returns:
        uint8 (H, W, 3).
    """
    height, width, _ = view.shape
    rows = (height, width * 3)  # numpy is slow where the innermost axis is three long
    other = np.tile(other, width) if other.ndim == 1 else other.reshape(rows)
    other = other.astype(np.float32)
    mixed = view.reshape(rows) - other
    mixed *= np.repeat(share.astype(np.float32), 3, axis=1) if isinstance(share, np.ndarray) else share
    mixed += other
    return np.rint(mixed, out=mixed).astype(np.uint8).reshape(view.shape)
