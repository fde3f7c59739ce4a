"""Control: uniform noise. A method that does not beat it shows nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explain.methods.options import NoOptions, takes_options


@takes_options(NoOptions)
def random(
    model: nn.Module | None, images: Tensor, target: Tensor, options: NoOptions, *, seeds: Sequence[int]
) -> Tensor:
    """Draw every pixel from U[0, 1), each image from a generator of its own.

    Args:
        model: Ignored.
        images: (B, 3, H, W); only the shape counts.
        target: Ignored.
        options: None.
        seeds: One for each image; see `explain.seeds.image_seed`.

    Returns:
        (B, H, W) float32 in [0, 1).
    """
    batch, _, height, width = images.shape
    if len(seeds) != batch:
        raise ValueError(f"got {len(seeds)} seeds for {batch} images; give one for each image")
    maps = [torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(maps).to(images.device)
