"""ROAD (Rong et al. 2022): what the black box makes of an image whose pixels were removed without a trace.

Pixels that turn gray leave the shape of the mask behind, and the black box may read that. Here the removed pixels are
filled in from those around them, with a little noise, so that only what they showed is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.perturb.imputation import linear_imputation


@dataclass(frozen=True, kw_only=True)
class Road:
    """One map's result."""

    morf: float
    """Mean probability of the target with the most relevant pixels removed, in [0, 1]; low is good."""
    lerf: float
    """The same with the least relevant ones removed; high is good."""

    @property
    def gap(self) -> float:
        """Compute (lerf - morf) / 2, as pytorch-grad-cam's ROADCombined; in [-0.5, 0.5], high is good."""
        return (self.lerf - self.morf) / 2


def removed_masks(ranks: Tensor, percentages: Sequence[int]) -> Tensor:
    """Choose the pixels to remove: for each percentage p the first p % of the ranks, then for each the last p %.

    Args:
        ranks: (H, W) int64 from `rank_pixels`: 0 is the most relevant.
        percentages: each above 0 and below 100. Numbers of pixels are rounded down, so one is always kept.

    Returns:
        bool (2 P, H, W): most relevant first, then least relevant first.
    """
    if not percentages or not all(0 < p < 100 for p in percentages):
        raise ValueError(f"percentages {tuple(percentages)} are not allowed; give one or more above 0 and below 100")
    num = ranks.numel()
    counts = torch.tensor([int(num * p / 100) for p in percentages], device=ranks.device)[:, None, None]
    return torch.cat([ranks < counts, ranks >= num - counts])


def road_frames(
    image: Tensor, ranks: Tensor, *, percentages: Sequence[int], rng: np.random.Generator, noise: float = 0.01
) -> Tensor:
    """Make the frames of both directions: the image with its removed pixels filled in, plus noise there.

    Args:
        image: (3, H, W), normalized.
        ranks: (H, W) int64 from `rank_pixels`.
        percentages: of the pixels, each above 0 and below 100.
        rng: `image_rng` of the image: all maps and percentages of an image share one field of noise.
        noise: standard deviation in normalized units, of each color of each removed pixel.

    Returns:
        (2 P, 3, H, W) in the order of `removed_masks`.
    """
    removed = removed_masks(ranks, percentages)
    field = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)).to(image)
    # A core works through its caches, mask by mask; a GPU takes all at once.
    parts = removed.split(len(removed) if image.is_cuda else 1)
    filled = torch.cat([linear_imputation(image, part) for part in parts])
    return filled + noise * field * removed[:, None]


def road(probs: Sequence[float] | np.ndarray) -> Road:
    """Average the target's probabilities on the frames of `road_frames`, (2 P,), over the percentages."""
    morf, lerf = np.asarray(probs, dtype=np.float64).reshape(2, -1).mean(axis=1).tolist()
    return Road(morf=morf, lerf=lerf)
