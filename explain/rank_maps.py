"""Rank maps: a grid of mean ranks, which is all that both games need of a map, in 2 kB instead of 200.

The games look at the order of the pixels alone, and a map of the student is up-sampled from a few cells. So each
pixel's value becomes its place in that order, and a coarse grid is fitted to the places: a spatial softmax, whose
values fall to nothing within a few pixels, keeps all of its order so. Magnitudes are lost.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CORRECTIONS = 4
"""Times that the residual of up-sampling is pooled and added; more change the order by less than float16 does."""


def compact(saliency: np.ndarray, cells: int) -> np.ndarray:
    """Reduce a map to a grid that, up-sampled as the games do it, has nearly the map's order.

    With places `p = (rank - 1/2) / (H W)` of the pixels, equal values sharing the mean of their ranks, the grid is
    `c_0 = pool(p)`, then four times `c_(k+1) = c_k + pool(p - up(c_k))`: pool the mean over each cell, of adaptive
    average pooling (row i of n covers rows floor(i H / n) to ceil((i + 1) H / n)), up bilinear interpolation. Each
    grid is held between the least and the greatest place, and a cell of equal pixels at theirs: a plateau, as a ReLU
    leaves it, stays one, and its pixels tied.

    Args:
        saliency: (H, W), finite.
        cells: rows and columns of the grid; a side that is shorter stays as it is.

    Returns:
        (min(H, cells), min(W, cells)) float16, 0 to 1.
    """
    height, width = saliency.shape
    small = (min(height, cells), min(width, cells))
    places = _places(torch.from_numpy(np.array(saliency))).view(1, 1, height, width)
    least, most = -F.adaptive_max_pool2d(-places, small), F.adaptive_max_pool2d(places, small)
    grid = F.adaptive_avg_pool2d(places, small)
    for _ in range(CORRECTIONS):
        grid = grid + F.adaptive_avg_pool2d(places - _up(grid, (height, width)), small)
        grid = torch.where(least == most, least, grid.clamp(places.min(), places.max()))
    return grid[0, 0].numpy().astype(np.float16)


def _places(values: Tensor) -> Tensor:
    """Return each value's place among all: the share of those below it and of half of its equals, float64."""
    _, which, counts = values.flatten().unique(return_inverse=True, return_counts=True)
    return ((counts.cumsum(0) - counts.double() / 2) / values.numel())[which]


def _up(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
