"""What replaces pixels in a game: one function per baseline, all `(image, *, mean, std, rng) -> image`.

Images are (3, H, W) in the teacher's normalized space; `mean` and `std` are its three floats per color, in
units of [0, 1] pixels. Baselines have the image's shape, type and device and share no memory with it.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from distill.perturb.blur import rise_blur
from evaluate.games.protocol import BLUR_KERNEL_PX, BLUR_SIGMA_PX, Baseline


def mean_color(
    image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> torch.Tensor:
    """Make the mean color: zero in normalized space (RISE's deletion)."""
    return torch.zeros_like(image)


def black(
    image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> torch.Tensor:
    """Make black: (0 - mean) / std per color."""
    color = -image.new_tensor(mean) / image.new_tensor(std)
    return color[:, None, None].expand_as(image).contiguous()


def blur(image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator) -> torch.Tensor:
    """Blur each color with RISE's kernel, zeros beyond the border of normalized space (RISE's insertion)."""
    return rise_blur(image, kernel_px=BLUR_KERNEL_PX, sigma_px=BLUR_SIGMA_PX)


def noise(
    image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> torch.Tensor:
    """Draw every color of every pixel uniformly from 0..255, then normalize."""
    pixels = torch.from_numpy(rng.integers(0, 256, tuple(image.shape), dtype=np.uint8)).to(image) / 255
    return (pixels - image.new_tensor(mean)[:, None, None]) / image.new_tensor(std)[:, None, None]


BASELINES: dict[Baseline, Callable[..., torch.Tensor]] = {
    "mean": mean_color,
    "black": black,
    "blur": blur,
    "noise": noise,
}


def image_rng(seed: int, image_id: str) -> np.random.Generator:
    """Make the random generator of one image, the same in every job and for every method."""
    digest = hashlib.sha256(f"{seed}/{image_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
