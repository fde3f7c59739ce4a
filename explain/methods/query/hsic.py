"""HSIC attribution (Novello et al. 2022): how far the response depends on whether each cell of a grid is shown.

All queries follow from (seed, number): plain Bernoulli masks in place of the authors' Latin hypercube, so that a
smaller budget's are the first of a larger one's.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from explain.methods.options import HsicOptions, takes_options
from explain.methods.query.grid_masks import baseline, map_of, masked
from explain.methods.query.queries import Queries

TINY = 1e-12
"""Least width of the output's kernel, for a black box that always answers 0."""


@takes_options(HsicOptions)
def hsic(model: Queries, images: Tensor, target: Tensor, options: HsicOptions, *, seeds: Sequence[int]) -> Tensor:
    """Estimate the Hilbert-Schmidt independence criterion of each cell's presence and the response.

    With kernels K_i = 1[x_i = x_i'] and L = exp(-(y - y')^2 / (2 w^2)), w the median response as the authors' package
    has it, and H = I - 1/n, the index is tr(K_i H L H) / (n - 1)^2 (Gretton et al. 2005; Novello et al. 2022). Of
    binary x that is 2 x_i^T H L H x_i / (n - 1)^2, which makes no K_i.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it.
        target: (B,) class indices.
        options: Number of masks, grid and baseline.
        seeds: One for each image. Fewer samples are the first of more.

    Returns:
        (B, H, W) float32, without a sign: it counts how much a cell matters, not for or against.
    """
    maps = []
    for i, image in enumerate(images):
        shown = np.random.default_rng(seeds[i]).random((options.num_samples, options.grid**2)) < 0.5
        masks = torch.from_numpy(shown).view(-1, options.grid, options.grid)
        frames = functools.partial(masked, image, baseline(image, options.substrate), masks)
        responses = model.query(i, range(options.num_samples), frames, int(target[i])).double().numpy()
        maps.append(map_of(torch.from_numpy(dependence(shown, responses)).view(options.grid, -1), image))
    return torch.stack(maps)


def dependence(shown: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Compute the criterion of each cell, (cells,), of masks (N, cells) and responses (N,)."""
    width = max(float(np.median(responses)), TINY)
    kernel = np.exp(-(((responses[:, None] - responses) / width) ** 2) / 2)
    x = shown - shown.mean(axis=0)
    return 2 * (x * (kernel @ x)).sum(axis=0) / (len(x) - 1) ** 2
