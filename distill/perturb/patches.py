"""What the games and the search for their ceiling hide alike: patches of a grid, and RISE's blur in their place."""

import functools

import numpy as np
import torch
from torch import Tensor


def patch_numbers(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Number the patch of a grid that each pixel belongs to, row by row: (H, W) int64.

    Patch i of P owns rows floor(i H / P) to floor((i + 1) H / P); so patches differ by a row or a column where P does
    not divide.
    """
    rows, columns = (_owner(length, num) for length, num in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def _owner(length: int, num: int) -> Tensor:
    assert num <= length, "each patch has a row and a column of its own"
    starts = torch.arange(num) * length // num
    return torch.searchsorted(starts, torch.arange(length), right=True) - 1


def rise_blur(image: Tensor, *, kernel_px: int = 11, sigma_px: float = 5.0) -> Tensor:
    """Blur each colour of an image (3, H, W) with RISE's kernel, zeros beyond the border of normalised space.

    The kernel is separable: one matrix product blurs all rows and one all columns, in a quarter of a convolution's time
    on a core.
    """
    rows, columns = (_blur_matrix(side, kernel_px, sigma_px).to(image) for side in image.shape[1:])
    return rows @ image @ columns.T


@functools.lru_cache(maxsize=8)
def _blur_matrix(side: int, kernel_px: int, sigma_px: float) -> Tensor:
    """Make the matrix (side, side) that blurs the columns of what it is multiplied with: the weights about each row."""
    by = np.arange(side)[:, None] - np.arange(side) + kernel_px // 2
    weights = blur_weights(kernel_px, sigma_px)[by.clip(0, kernel_px - 1)]
    return torch.from_numpy(np.where((by >= 0) & (by < kernel_px), weights, 0)).float()


def blur_weights(kernel_px: int, sigma_px: float) -> np.ndarray:
    """Make the weights (kernel_px,) that sum to one, whose outer product with themselves is RISE's kernel.

    The kernel is SciPy's `gaussian_filter` of a unit impulse in an array of that size: truncated at 4 sigma, reflecting
    borders. Both steps are separable: the weights are the filtered one-dimensional impulse.
    """
    radius = int(4 * sigma_px + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    impulse = np.zeros(kernel_px)
    impulse[kernel_px // 2] = 1
    return np.convolve(np.pad(impulse, radius, mode="symmetric"), weights / weights.sum(), mode="valid")
