"""Control: an edge detector, which knows nothing of any model."""

import torch
import torch.nn.functional as F
from torch import Tensor

from explain.methods.options import EdgesOptions, takes_options

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


@takes_options(EdgesOptions)
def edges(model: object, images: Tensor, target: Tensor, options: EdgesOptions) -> Tensor:
    """Map the length of the Sobel gradient of the mean color, smoothed by a Gaussian.

    An edge detector is what a map must beat to say more than where something is drawn (Adebayo et al. 2018).

    Args:
        model: Not looked at.
        images: (B, 3, H, W).
        target: Not looked at.
        options: Standard deviation of the smoothing.

    Returns:
        (B, H, W) float32, at least zero.
    """
    gray = F.pad(images.float().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = images.new_tensor(SOBEL, dtype=torch.float32)
    length = F.conv2d(gray, torch.stack([kernel, kernel.T])[:, None]).norm(dim=1, keepdim=True)
    radius_px = options.sigma * max(images.shape[2:])
    return (_smooth(length, radius_px) if radius_px else length)[:, 0]


def _smooth(maps: Tensor, sigma_px: float) -> Tensor:
    """Blur (B, 1, H, W) by a Gaussian cut at four sigma, as wide a part of it as lies inside the image."""
    for dim in (2, 3):
        places = torch.arange(maps.shape[dim], dtype=torch.float32, device=maps.device)
        apart = (places[:, None] - places) / sigma_px
        weights = torch.exp(-(apart**2) / 2) * (apart.abs() <= 4)
        weights = weights / weights.sum(dim=1, keepdim=True)
        maps = torch.einsum("bchw,xh->bcxw" if dim == 2 else "bchw,xw->bchx", maps, weights)
    return maps
