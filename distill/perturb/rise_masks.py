"""RISE's masks: random grids, up-sampled and shifted.

Both train with them (`distill.training.masking`) and ask with them (`explain.methods.query.rise`).
"""

import functools

import numpy as np
import torch
from torch import Tensor

FAMILIES = ((7, 0.5), (8, 0.1))
"""The masks that RISE's authors use: cells along each side, and the probability that one is shown."""


def rise_masks(
    numbers: range,
    *,
    seed: int,
    size: tuple[int, int],
    num_cells: int,
    keep_probability: float,
    antithetic: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make the masks of the given numbers, each with a grid and a shift of its own: (len, H, W) float32 in [0, 1].

    As the authors' code does: a grid of s x s cells, shown with `keep_probability`, is up-sampled bilinearly to
    (s + 1) ceil(H / s) by (s + 1) ceil(W / s) pixels, and an H x W part is cut out at a shift of less than one cell.
    """
    cells = [-(-side // num_cells) for side in size]
    drawn = range(numbers.start // 2, (numbers.stop + 1) // 2) if antithetic else numbers
    uniform = _uniform(seed, drawn, num_cells**2 + 2)
    grids = torch.from_numpy(uniform[:, 2:] < keep_probability).float().view(-1, num_cells, num_cells)
    shifts = (uniform[:, :2] * cells).astype(np.int64)
    if antithetic:
        grids = torch.stack([grids, 1 - grids], dim=1).flatten(0, 1)
        shifts = shifts.repeat(2, axis=0)
        first = numbers.start % 2
        grids, shifts = grids[first : first + len(numbers)], shifts[first : first + len(numbers)]
    rows, columns = (
        _upsampling(num_cells, cell).to(device)[torch.from_numpy(shift).to(device)[:, None] + _arange(side, device)]
        for cell, shift, side in zip(cells, shifts.T, size, strict=True)
    )  # each (len, side, s)
    return rows @ grids.to(device) @ columns.transpose(1, 2)


def _uniform(seed: int, numbers: range, count: int) -> np.ndarray:
    """Draw `count` values in [0, 1) for each number, (len, count): Philox, its counter set by the number."""
    blocks = -(-count // 4)  # a step of Philox's counter makes four 64-bit words
    stream = np.random.Philox(key=seed)
    stream.advance(numbers.start * blocks)
    raw = stream.random_raw(len(numbers) * blocks * 4).reshape(len(numbers), blocks * 4)[:, :count]
    return (raw >> np.uint64(11)) * 2.0**-53


@functools.cache
def _upsampling(num_cells: int, cell: int) -> Tensor:
    """Make the bilinear weights from s cells to (s + 1) * cell pixels, ((s + 1) * cell, s), mirrored at the borders.

    Pixel j lies at (j + 1/2) s / ((s + 1) cell) - 1/2 in cells; a cell beyond the border is the one mirrored about the
    outermost cell's center, as scikit-image's `resize(order=1, mode="reflect")` has it.
    """
    num_pixels = (num_cells + 1) * cell
    at = (np.arange(num_pixels) + 0.5) * num_cells / num_pixels - 0.5
    left = np.floor(at).astype(np.int64)
    weights = np.zeros((num_pixels, num_cells))
    for index, weight in ((left, 1 - (at - left)), (left + 1, at - left)):
        inside = np.abs(index)
        inside = np.where(inside >= num_cells, 2 * (num_cells - 1) - inside, inside)
        np.add.at(weights, (np.arange(num_pixels), np.clip(inside, 0, num_cells - 1)), weight)
    return torch.from_numpy(weights).float()


def _arange(side: int, device: torch.device | str) -> Tensor:
    return torch.arange(side, device=device)
