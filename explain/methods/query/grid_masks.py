"""Grids over an image that Sobol and HSIC attribution mask: frames of given masks, and maps of given indices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.perturb.superpixels import Substrate, hidden


def baseline(image: Tensor, substrate: Substrate) -> Tensor:
    """Make what stands in for hidden cells, (3, H, W)."""
    return hidden(image, torch.zeros(image.shape[1:], dtype=torch.int64, device=image.device), substrate)


def masked(image: Tensor, other: Tensor, masks: Tensor, numbers: range) -> Tensor:
    """Show the image (3, H, W) through some of the masks (N, g, g) in [0, 1], `other` elsewhere, cells as blocks."""
    shown = masks[numbers.start : numbers.stop, None].to(image)
    return torch.lerp(other, image, F.interpolate(shown, size=image.shape[1:], mode="nearest-exact"))


def map_of(indices: Tensor, image: Tensor) -> Tensor:
    """Lay a value for each cell, (g, g), over the image by bicubic interpolation: (H, W) float32."""
    return F.interpolate(indices[None, None].float(), size=image.shape[1:], mode="bicubic")[0, 0].to(image.device)
