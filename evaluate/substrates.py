"""What replaces pixels in a game: one function per substrate, all `(image, *, mean, std, rng) -> image`.

Images are (3, H, W) in the teacher's normalised space; `mean` and `std` are its three floats per colour, in
units of [0, 1] pixels. Substrates have the image's shape, type and device and share no memory with it.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from evaluate.protocol import BLUR_KERNEL_PX, BLUR_SIGMA_PX, Substrate


def mean_colour(
    image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> torch.Tensor:
    """Make the mean colour: zero in normalised space (RISE's deletion)."""
    return torch.zeros_like(image)


def black(
    image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> torch.Tensor:
    """Make black: (0 - mean) / std per colour."""
    colour = -image.new_tensor(mean) / image.new_tensor(std)
    return colour[:, None, None].expand_as(image).contiguous()


def blur(image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator) -> torch.Tensor:
    """Blur each colour with RISE's kernel, zeros beyond the border of normalised space (RISE's insertion)."""
    kernel = torch.from_numpy(blur_kernel()).to(image)
    return F.conv2d(image[:, None], kernel[None, None], padding=BLUR_KERNEL_PX // 2)[:, 0]


def noise(
    image: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], rng: np.random.Generator
) -> torch.Tensor:
    """Draw every colour of every pixel uniformly from 0..255, then normalise."""
    pixels = torch.from_numpy(rng.integers(0, 256, tuple(image.shape), dtype=np.uint8)).to(image) / 255
    return (pixels - image.new_tensor(mean)[:, None, None]) / image.new_tensor(std)[:, None, None]


SUBSTRATES: dict[Substrate, Callable[..., torch.Tensor]] = {
    "mean": mean_colour,
    "black": black,
    "blur": blur,
    "noise": noise,
}


@functools.cache
def blur_kernel() -> np.ndarray:
    """Make RISE's blur kernel, (11, 11) float32 that sums to one.

    It is SciPy's `gaussian_filter` of a unit impulse in an 11 x 11 array, sigma 5: truncated at 4 sigma,
    reflecting borders. Both steps are separable, so the kernel is the outer product of the filtered
    one-dimensional impulse.
    """
    radius = int(4 * BLUR_SIGMA_PX + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / BLUR_SIGMA_PX) ** 2)
    impulse = np.zeros(BLUR_KERNEL_PX)
    impulse[BLUR_KERNEL_PX // 2] = 1
    row = np.convolve(np.pad(impulse, radius, mode="symmetric"), weights / weights.sum(), mode="valid")
    return np.outer(row, row).astype(np.float32)


def image_rng(seed: int, image_id: str) -> np.random.Generator:
    """Make the random generator of one image, the same in every job and for every method."""
    digest = hashlib.sha256(f"{seed}/{image_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
