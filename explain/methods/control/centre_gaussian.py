"""The centre control: photographers put things in the middle, and so does this map, whatever is there."""

import torch
from torch import Tensor, nn


def centre_gaussian(model: nn.Module | None, images: Tensor, target: Tensor, *, sigma: float = 0.25) -> Tensor:
    """Fall off from the centre: exp(-((y - cy)^2 / (sigma H)^2 + (x - cx)^2 / (sigma W)^2) / 2).

    Args:
        model: Ignored.
        images: (B, 3, H, W); only the shape counts.
        target: Ignored.
        sigma: Standard deviation as a share of the height and of the width.

    Returns:
        (B, H, W) float32 in (0, 1], symmetric about the centre of the pixel grid.
    """
    if not sigma > 0:
        raise ValueError(f"sigma {sigma} is not positive; 0.25 is a quarter of the image's side")
    batch, _, height, width = images.shape
    y, x = (_distances(size, sigma, images.device) for size in (height, width))
    gaussian = torch.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 2)
    return gaussian.float().expand(batch, height, width).clone()


def _distances(size: int, sigma: float, device: torch.device) -> Tensor:
    """Return each pixel's distance from the centre of its axis, in standard deviations."""
    position = torch.arange(size, dtype=torch.float64, device=device)
    return (position - (size - 1) / 2) / (sigma * size)
