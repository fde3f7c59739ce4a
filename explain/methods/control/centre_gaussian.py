"""Control: a Gaussian at the center of the image, where photographers put objects, whatever is there."""

import torch
from torch import Tensor, nn

from explain.methods.options import CentreGaussianOptions, takes_options


@takes_options(CentreGaussianOptions)
def centre_gaussian(model: nn.Module | None, images: Tensor, target: Tensor, options: CentreGaussianOptions) -> Tensor:
    """Fall off from the center: exp(-((y - cy)^2 / (sigma H)^2 + (x - cx)^2 / (sigma W)^2) / 2).

    Args:
        model: Ignored.
        images: (B, 3, H, W); only the shape counts.
        target: Ignored.
        options: The standard deviation sigma, as a share of the height and of the width.

    Returns:
        (B, H, W) float32 in (0, 1], symmetric about the center of the pixel grid.
    """
    batch, _, height, width = images.shape
    y, x = (_distances(size, options.sigma, images.device) for size in (height, width))
    gaussian = torch.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 2)
    return gaussian.float().expand(batch, height, width).clone()


def _distances(size: int, sigma: float, device: torch.device) -> Tensor:
    """Return each pixel's distance from the center of its axis, in standard deviations."""
    position = torch.arange(size, dtype=torch.float64, device=device)
    return (position - (size - 1) / 2) / (sigma * size)
