"""What the games and the search for their ceiling hide alike: patches of a grid, and RISE's blur in their place."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
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
    """Blur each colour of an image (3, H, W) with RISE's kernel, zeros beyond the border of normalised space."""
    kernel = torch.from_numpy(blur_kernel(kernel_px, sigma_px)).to(image)
    return F.conv2d(image[:, None], kernel[None, None], padding=kernel_px // 2)[:, 0]


@functools.cache
def blur_kernel(kernel_px: int, sigma_px: float) -> np.ndarray:
    """Make RISE's blur kernel, (kernel_px, kernel_px) float32 that sums to one.

    It is SciPy's `gaussian_filter` of a unit impulse in an array of that size: truncated at 4 sigma, reflecting
    borders. Both steps are separable, so the kernel is the outer product of the filtered one-dimensional impulse.
    """
    radius = int(4 * sigma_px + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    impulse = np.zeros(kernel_px)
    impulse[kernel_px // 2] = 1
    row = np.convolve(np.pad(impulse, radius, mode="symmetric"), weights / weights.sum(), mode="valid")
    return np.outer(row, row).astype(np.float32)
