"""From the maps of several layers to one map of the input's size."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalise = Literal["none", "min_max"]


def min_max(maps: Tensor) -> Tensor:
    """Scale each map of (B, h, w) to [0, 1] by its own minimum and maximum; a constant map becomes zeros."""
    low = maps.amin(dim=(1, 2), keepdim=True)
    span = maps.amax(dim=(1, 2), keepdim=True) - low
    return torch.where(span > 0, (maps - low) / span, torch.zeros_like(maps))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, h, w) to (B, height, width), bilinear between pixel centers (align_corners=False)."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def sum_over_layers(maps: Sequence[Tensor], size: tuple[int, int], *, normalise: Normalise = "none") -> Tensor:
    """Add the layers' maps pixel by pixel (eq. 8), each up-sampled from its own (B, h, w) to `size`.

    Args:
        maps: One (B, h, w) for each layer.
        size: (height, width) of the sum.
        normalise: "min_max" scales each layer's map of each image to [0, 1] before it is up-sampled.

    Returns:
        (B, height, width) float32.
    """
    sums: dict[torch.Size, Tensor] = {}  # up-sampling is linear: maps of one size are added before it
    for layer in maps:
        scaled = (min_max(layer) if normalise == "min_max" else layer).float()
        sums[layer.shape] = sums[layer.shape] + scaled if layer.shape in sums else scaled
    return torch.stack([upsample(layer, size) for layer in sums.values()]).sum(dim=0)
