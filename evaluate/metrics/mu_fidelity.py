"""Mu-fidelity (Bhatt et al. 2020): do the parts that a map values move the score when they are taken away?

The subsets are drawn from (seed, image_id) alone, so the black box is asked once per image and its answers serve the
maps of every method: `draw_subsets`, `subset_frames` and the black box first, then `mu_fidelity` for each map.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def draw_subsets(rng: np.random.Generator, *, grid: int = 14, share: float = 0.2, num: int = 128) -> np.ndarray:
    """Draw subsets of the cells of a grid, uniformly among all subsets of round(share * grid^2) cells.

    Args:
        rng: `image_rng` of the image.
        grid: cells per side.
        share: of the cells that are in a subset, in (0, 1); at least one cell is in and one is out.
        num: number of subsets.

    Returns:
        bool (num, grid, grid).

    Raises:
        ValueError: a setting leaves no such subset.
    """
    if grid < 2 or not 0 < share < 1 or num < 2:
        raise ValueError(f"grid {grid}, share {share}, num {num}; give grid >= 2, 0 < share < 1, num >= 2")
    cells = grid * grid
    size = min(max(1, round(share * cells)), cells - 1)
    places = rng.random((num, cells)).argsort(axis=1)  # a random order of the cells; the first `size` are in
    return (places < size).reshape(num, grid, grid)


def subset_frames(image: Tensor, subsets: np.ndarray, *, baseline: Tensor) -> Tensor:
    """Replace each subset's pixels by the baseline's.

    Args:
        image: (3, H, W), normalized.
        subsets: bool (S, g, g). Pixel (y, x) is in cell (floor(y g / H), floor(x g / W)).
        baseline: (3, H, W), such as `mean_color` of the image.

    Returns:
        (S, 3, H, W).
    """
    rows, columns = (torch.from_numpy(places) for places in _cells(tuple(image.shape[1:]), subsets.shape[1]))
    masks = torch.from_numpy(subsets)[:, rows[:, None], columns].to(image.device)  # (S, g, g) -> (S, H, W)
    return torch.where(masks[:, None], baseline, image)


def subset_sums(saliency: Tensor, subsets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sum a map over each subset's pixels.

    Args:
        saliency: (h, w), finite; up-sampled bilinearly to `size` first, as the games do.
        subsets: bool (S, g, g).
        size: the frame's (H, W).

    Returns:
        (S,) float64.
    """
    full = F.interpolate(saliency[None, None].double(), size=size, mode="bilinear", align_corners=False)[0, 0]
    grid = subsets.shape[1]
    rows, columns = _cells(size, grid)
    sums = np.zeros((grid, grid))
    np.add.at(sums, (rows[:, None], columns), full.cpu().numpy())
    return subsets.reshape(len(subsets), -1) @ sums.ravel()


def mu_fidelity(sums: np.ndarray, drops: np.ndarray) -> float:
    """Compute Pearson's correlation over subsets S of sum_{i in S} phi_i and f(x) - f(x with S replaced).

    Args:
        sums: (S,) from `subset_sums`.
        drops: (S,), the target's probability on the whole image less that on each frame.

    Returns:
        In [-1, 1], high is good; NaN where either is constant, to 1e-9 of its own size: there is no correlation.
    """
    deviations = [_deviations(np.asarray(values, dtype=np.float64)) for values in (sums, drops)]
    if any(found is None for found in deviations):
        return float("nan")
    a, b = (found for found in deviations if found is not None)
    return float(np.clip(a @ b, -1, 1))


def _deviations(values: np.ndarray) -> np.ndarray | None:
    """Return (v - mean v) / ||v - mean v||; None for a constant, whose rounding would correlate with anything."""
    centred = values - values.mean()
    if np.abs(centred).max() <= 1e-9 * np.abs(values).max():
        return None
    return centred / np.linalg.norm(centred)


def _cells(size: tuple[int, ...], grid: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (np.arange(n) * grid // n for n in size)
    return rows, columns
