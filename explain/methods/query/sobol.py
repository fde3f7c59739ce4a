"""Sobol attribution (Fel et al. 2021): the share of the response's variance that each cell of a grid takes part in.

A design needs a query for each cell and two more, so a budget decides how fine a grid and how many designs it pays for
(`design_of`). Frames of one grid follow from (seed, number); a budget of another grid shares none of them.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from explain.methods.options import SobolOptions, takes_options
from explain.methods.query.grid_masks import baseline, map_of, masked
from explain.methods.query.queries import Queries

LEAST_DESIGNS = 4
"""Designs for which the grid is coarsened: a variance of fewer says little."""


@takes_options(SobolOptions)
def sobol(model: Queries, images: Tensor, target: Tensor, options: SobolOptions, *, seeds: Sequence[int]) -> Tensor:
    """Estimate the total-order Sobol index of each cell of a grid (Fel et al. 2021) by Jansen's estimator (1999).

    With rows A_j, B_j of a scrambled Sobol sequence, and C_j^i = A_j with the value of cell i taken from B_j, the index
    is S_i = sum_j (f(A_j) - f(C_j^i))^2 / (2 N V), V the variance of f(A_j): the share of the variance that is lost
    where cell i is known. Values of a mask lie in [0, 1], from the baseline to the image.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it.
        target: (B,) class indices.
        options: Most queries, finest grid and baseline; `design_of` says what a budget is used for.
        seeds: One for each image. With the same grid, fewer samples are the first of more.

    Returns:
        (B, H, W) float32, without a sign: it counts how much a cell matters, not for or against. All zero where the
        response is constant.
    """
    grid, num_designs = design_of(options.num_samples, options.grid)
    maps = []
    for i, image in enumerate(images):
        masks = designs(seeds[i], num_designs, grid**2)
        frames = functools.partial(
            masked, image, baseline(image, options.substrate), torch.from_numpy(masks).view(-1, grid, grid)
        )
        responses = model.query(i, range(len(masks)), frames, int(target[i])).double().numpy()
        maps.append(map_of(torch.from_numpy(total_order(responses, grid**2)).view(grid, grid), image))
    return torch.stack(maps)


def design_of(num_samples: int, grid: int) -> tuple[int, int]:
    """Return cells a side, `grid` at most, and the designs that the budget pays for.

    The grid is the finest that leaves `LEAST_DESIGNS`, and N designs cost N (cells^2 + 2) queries.
    """
    while grid > 2 and num_samples // (grid**2 + 2) < LEAST_DESIGNS:
        grid -= 1
    return grid, num_samples // (grid**2 + 2)


def designs(seed: int, num_designs: int, num_cells: int) -> np.ndarray:
    """Make the masks, (num_designs * (num_cells + 2), num_cells) float32: of each design A, B, then C of each cell."""
    rows = SobolEngine(2 * num_cells, scramble=True, seed=seed).draw(num_designs).numpy()
    a, b = rows[:, None, :num_cells], rows[:, None, num_cells:]
    crossed = np.where(np.eye(num_cells, dtype=bool), b, a)  # (designs, cells, cells)
    return np.concatenate([a, b, crossed], axis=1).reshape(-1, num_cells)


def total_order(responses: np.ndarray, num_cells: int) -> np.ndarray:
    """Compute Jansen's estimate of each cell's total-order index, (cells,), of responses in the order of `designs`."""
    values = responses.reshape(-1, num_cells + 2)
    variance = values[:, 0].var(ddof=1) if len(values) > 1 else 0.0
    lost = ((values[:, :1] - values[:, 2:]) ** 2).mean(axis=0) / 2
    return lost / variance if variance > 0 else np.zeros(num_cells)
