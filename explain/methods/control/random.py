"""The random control: a map that knows nothing. A method that does not beat it shows nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def random(model: nn.Module | None, images: Tensor, target: Tensor, *, seeds: Sequence[int]) -> Tensor:
    """Draw every pixel from U[0, 1), each image from a generator of its own.

    Args:
        model: Ignored.
        images: (B, 3, H, W); only the shape counts.
        target: Ignored.
        seeds: One for each image; see `explain.seeds.image_seed`.

    Returns:
        (B, H, W) float32 in [0, 1).
    """
    batch, _, height, width = images.shape
    if len(seeds) != batch:
        raise ValueError(f"got {len(seeds)} seeds for {batch} images; give one for each image")
    maps = [torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(maps).to(images.device)
