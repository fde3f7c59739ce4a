"""Gaussian blurs of normalized pixels: RISE's and the superpixel methods'."""

import functools

import numpy as np
import torch
from torch import Tensor

NO_WEIGHT = 1e-9
"""Weight of a blur that is none: smaller ones change no result, and products with denormal numbers take ten times as
long."""


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur (C, H, W) by a Gaussian of `sigma` times the longer side; weights beyond the border fall away."""
    sigma_px = sigma * max(images.shape[1:])
    rows, columns = (_gaussian_matrix(side, sigma_px).to(images.device) for side in images.shape[1:])
    return rows @ images @ columns.T


def rise_blur(image: Tensor, *, kernel_px: int = 11, sigma_px: float = 5.0) -> Tensor:
    """Blur each color of an image (3, H, W) with RISE's kernel, zeros beyond the border of normalized space.

    The kernel is separable: one matrix product blurs all rows and one all columns, in a quarter of a convolution's time
    on a core.
    """
    rows, columns = (_rise_matrix(side, kernel_px, sigma_px).to(image) for side in image.shape[1:])
    return rows @ image @ columns.T


def blur_weights(kernel_px: int, sigma_px: float) -> np.ndarray:
    """Compute the weights (kernel_px,) that sum to one, whose outer product with themselves is RISE's kernel.

    The kernel is SciPy's `gaussian_filter` of a unit impulse in an array of that size: truncated at 4 sigma, reflecting
    borders. Both steps are separable: the weights are the filtered one-dimensional impulse.
    """
    radius = int(4 * sigma_px + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    impulse = np.zeros(kernel_px)
    impulse[kernel_px // 2] = 1
    return np.convolve(np.pad(impulse, radius, mode="symmetric"), weights / weights.sum(), mode="valid")


def _gaussian_matrix(side: int, sigma_px: float) -> Tensor:
    """Make the weights of a row's or column's pixels in its blurred ones, (side, side)."""
    places = torch.arange(side, dtype=torch.float32)
    weights = torch.exp(-(((places[:, None] - places) / sigma_px) ** 2) / 2)
    weights = torch.where(weights < NO_WEIGHT, 0.0, weights)
    return weights / weights.sum(dim=1, keepdim=True)


@functools.lru_cache(maxsize=8)
def _rise_matrix(side: int, kernel_px: int, sigma_px: float) -> Tensor:
    """Make the matrix (side, side) that blurs the columns of what it is multiplied with: the weights about each row."""
    by = np.arange(side)[:, None] - np.arange(side) + kernel_px // 2
    weights = blur_weights(kernel_px, sigma_px)[by.clip(0, kernel_px - 1)]
    return torch.from_numpy(np.where((by >= 0) & (by < kernel_px), weights, 0)).float()
