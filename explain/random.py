"""The random control: a map that knows nothing. A method that does not beat it shows nothing."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def image_seed(seed: int, image_id: str, method: str) -> int:
    """Derive the seed of one image's map from (seed, image_id, method): neither batch nor order matters."""
    digest = hashlib.sha256(f"{seed}\n{image_id}\n{method}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch's generators take a signed 64-bit seed


def random(model: nn.Module | None, images: Tensor, target: Tensor, *, seeds: Sequence[int]) -> Tensor:
    """Draw every pixel from U[0, 1), each image from a generator of its own.

    Args:
        model: Ignored.
        images: (B, 3, H, W); only the shape counts.
        target: Ignored.
        seeds: One for each image; see `image_seed`.

    Returns:
        (B, H, W) float32 in [0, 1).
    """
    batch, _, height, width = images.shape
    if len(seeds) != batch:
        raise ValueError(f"got {len(seeds)} seeds for {batch} images; give one for each image")
    maps = [torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(maps).to(images.device)
