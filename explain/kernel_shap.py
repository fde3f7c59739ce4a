"""KernelSHAP (Lundberg and Lee 2017): Shapley values of superpixels by one weighted regression on the black box."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from explain.queries import Queries
from explain.superpixels import Substrate, compose, hidden, paint, superpixels


def kernel_shap(
    model: Queries,
    images: Tensor,
    target: Tensor,
    *,
    seeds: Sequence[int],
    num_samples: int = 1000,
    num_segments: int = 50,
    compactness: float = 10.0,
    substrate: Substrate = "segment_mean",
) -> Tensor:
    """Share the target's probability among superpixels as Shapley values; a pixel gets its superpixel's.

    Number 0 hides all superpixels, number 1 none; these two hold exactly, so the values of all superpixels add up to
    the difference of their answers. The others are pairs of a coalition and its complement, its size s drawn in
    proportion to the Shapley kernel's mass (S - 1) / (s (S - s)), so that the regression counts them alike (Lundberg
    and Lee 2017, theorem 2).

    Args:
        model: The black box.
        images: (B, 3, H, W), normalised for it.
        target: (B,) class indices.
        seeds: One for each image. Fewer samples are the first of more.
        num_samples: Questions per image.
        num_segments: About how many superpixels.
        compactness: Of the superpixels, weight of nearness against colour.
        substrate: What hidden superpixels become.

    Returns:
        (B, H, W) float32, of either sign, in units of probability: constant where there is one superpixel only.
    """
    maps = []
    for i, image in enumerate(images):
        segments = superpixels(image, num_segments=num_segments, compactness=compactness)
        samples = coalitions(seeds[i], num_samples, int(segments.max()) + 1)
        frames = functools.partial(_frames, image, hidden(image, segments, substrate), segments, samples)
        answers = model.ask(i, range(len(samples)), frames, int(target[i]))
        values = shapley_values(samples.numpy(), answers.double().numpy())
        maps.append(paint(torch.from_numpy(values), segments))
    return torch.stack(maps)


def coalitions(seed: int, num_samples: int, num_segments: int) -> Tensor:
    """Draw coalitions, (N, S) bool: none, all, then pairs of complements; N is 2 where there is one superpixel."""
    ends = np.array([[False], [True]]).repeat(num_segments, axis=1)
    if num_segments < 2:
        return torch.from_numpy(ends)
    rng, num_pairs = np.random.default_rng(seed), max(0, -(-(num_samples - 2) // 2))
    sizes = np.arange(1, num_segments)
    mass = 1 / (sizes * (num_segments - sizes))
    # A row of draws per pair: one for the size, one per superpixel for its place; fewer pairs are the first of more.
    drawn = rng.random((num_pairs, num_segments + 1))
    size = 1 + np.searchsorted(np.cumsum(mass / mass.sum())[:-1], drawn[:, 0], side="right")
    shown = drawn[:, 1:].argsort(axis=1).argsort(axis=1) < size[:, None]
    pairs = np.stack([shown, ~shown], axis=1).reshape(-1, num_segments)
    return torch.from_numpy(np.concatenate([ends, pairs])[: max(num_samples, 2)])


def shapley_values(samples: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Regress answers (N,) on coalitions (N, S), the first none and the second all, exact at both; return (S,) values.

    The last superpixel is what the others leave of the whole difference; where too few coalitions decide all values,
    those of the least length are taken.
    """
    x, whole = samples[2:].astype(np.float64), answers[1] - answers[0]
    if samples.shape[1] < 2 or not len(x):
        return np.full(samples.shape[1], whole / samples.shape[1])
    last = x[:, -1]
    rest = answers[2:] - answers[0] - last * whole
    values, *_ = np.linalg.lstsq(x[:, :-1] - last[:, None], rest, rcond=None)
    return np.append(values, whole - values.sum())


def _frames(image: Tensor, other: Tensor, segments: Tensor, samples: Tensor, numbers: range) -> Tensor:
    return compose(image, other, segments, samples[numbers.start : numbers.stop])
