"""Max-sensitivity (Yeh et al. 2019): how far a map moves when the image moves by less than the eye sees.

It asks whoever makes the maps, never the black box: a map that jumps is hard to believe however well it scores.
"""

from collections.abc import Callable

import numpy as np

Explain = Callable[[np.ndarray], np.ndarray]
"""Frames (N, H, W, 3), float32 in units of [0, 1] pixels -> their maps (N, h, w)."""


def perturbed(image: np.ndarray, *, radius: float, num: int, rng: np.random.Generator) -> np.ndarray:
    """Draw images around an image: each color of each pixel moves by U[-radius, radius].

    They are not clipped to [0, 1], as in Captum and Quantus: the ball is the same around a dark image.

    Args:
        image: (H, W, 3), in [0, 1].
        radius: above 0, in units of [0, 1] pixels.
        num: at least 1.
        rng: `image_rng` of the image, so that every method meets the same ones.

    Returns:
        (num, H, W, 3) float32.

    Raises:
        ValueError: the radius or the number leaves nothing to compare.
    """
    if not radius > 0 or num < 1:
        raise ValueError(f"radius {radius}, num {num}; give a radius above 0 and 1 or more perturbations")
    moves = rng.uniform(-radius, radius, (num, *image.shape))
    return (image + moves).astype(np.float32)


def max_sensitivity(
    explain: Explain, image: np.ndarray, *, rng: np.random.Generator, radius: float = 0.02, num: int = 10
) -> float:
    """Compute max over d of ||phi(x + d) - phi(x)||_2 / ||phi(x)||_2, d drawn in the ball of the maximum norm.

    Args:
        explain: called once, with the image first and the perturbed ones after it.
        image: (H, W, 3), in [0, 1].
        rng: `image_rng` of the image.
        radius: largest change of a pixel's color, in units of [0, 1] pixels.
        num: perturbed images.

    Returns:
        At least 0, low is good; NaN where phi(x) is zero everywhere, or a map is not finite.
    """
    others = perturbed(image, radius=radius, num=num, rng=rng)
    maps = explain(np.concatenate([image[None].astype(np.float32), others]))
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    norm = np.linalg.norm(flat[0])
    if norm == 0 or not np.isfinite(flat).all():
        return float("nan")
    return float(np.linalg.norm(flat[1:] - flat[0], axis=1).max() / norm)
