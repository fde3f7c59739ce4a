"""KernelSHAP (Lundberg and Lee 2017): Shapley values of superpixels by one weighted regression on the black box."""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from distill.perturb.superpixels import compose, hidden, paint, superpixels
from explain.methods.options import KernelShapOptions, takes_options
from explain.methods.query.queries import Queries

LEAST_SINGULAR = 0.2
"""Smallest singular value of the regression that counts, as a share of the largest."""


@takes_options(KernelShapOptions)
def kernel_shap(
    model: Queries, images: Tensor, target: Tensor, options: KernelShapOptions, *, seeds: Sequence[int]
) -> Tensor:
    """Share the target's probability among superpixels as Shapley values; a pixel gets its superpixel's.

    Number 0 hides all superpixels, number 1 none; these two hold exactly, so the values of all superpixels add up to
    the difference of their answers. The others are pairs of a coalition and its complement, none of them twice, which
    count in the regression by the Shapley kernel over their chance to be among those asked (Lundberg and Lee 2017,
    theorem 2). The values are exact once all 2^S coalitions are asked; no more than those are.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it.
        target: (B,) class indices.
        options: Most samples, superpixels and baseline.
        seeds: One for each image. Fewer samples are the first of more.

    Returns:
        (B, H, W) float32, of either sign, in units of probability: constant where there is one superpixel only.
    """
    maps = []
    for i, image in enumerate(images):
        segments = superpixels(image, num_segments=options.num_segments, compactness=options.compactness)
        samples = coalitions(seeds[i], options.num_samples, int(segments.max()) + 1)
        frames = functools.partial(_frames, image, hidden(image, segments, options.substrate), segments, samples)
        responses = model.query(i, range(len(samples)), frames, int(target[i]))
        values = shapley_values(samples.numpy(), responses.double().numpy())
        maps.append(paint(torch.from_numpy(values), segments))
    return torch.stack(maps)


def coalitions(seed: int, num_samples: int, num_segments: int) -> Tensor:
    """Draw coalitions, (N, S) bool: none, all, then pairs of complements, none twice; N is at most 2^S.

    The sizes s and S - s get a share of the pairs in proportion to 1 / sqrt(s (S - s)), between the Shapley kernel's
    own and leverage scores, for which all sizes are alike (Musco and Witter 2025). A size whose coalitions all fit
    into its share is asked whole, and the others share what is left.
    """
    sizes = np.arange(1, num_segments // 2 + 1)
    halves = np.where(2 * sizes == num_segments, 2, 1)  # the middle size holds its complements itself
    remaining = np.array([math.comb(num_segments, size) for size in sizes.tolist()], dtype=np.float64) / halves
    share, due = 1 / np.sqrt(sizes * (num_segments - sizes)) / halves, np.zeros(len(sizes))
    rng = np.random.default_rng(seed)
    hands = [_deal(rng, size, num_segments) for size in sizes.tolist()]
    drawn = [np.zeros(num_segments, dtype=bool), np.ones(num_segments, dtype=bool)]
    while len(drawn) < num_samples and remaining.any():
        due += np.where(remaining > 0, share, 0) / share[remaining > 0].sum()
        chosen = int(np.where(remaining > 0, due, -np.inf).argmax())
        due[chosen] -= 1
        remaining[chosen] -= 1
        shown = next(hands[chosen])
        drawn += [shown, ~shown]
    return torch.from_numpy(np.stack(drawn[: max(num_samples, 2)]))


def _deal(rng: np.random.Generator, size: int, num_segments: int) -> Iterator[np.ndarray]:
    """Deal coalitions of one size like hands from a shuffled pack, so that superpixels are shown equally often.

    A hand is passed over that was dealt before, itself or its complement.
    """
    times_shown, dealt = np.zeros(num_segments), set()
    while True:
        hand = np.lexsort((rng.random(num_segments), times_shown))[:size]
        times_shown[hand] += 1
        shown = np.zeros(num_segments, dtype=bool)
        shown[hand] = True
        if not dealt & {shown.tobytes(), (~shown).tobytes()}:
            dealt.add(shown.tobytes())
            yield shown


def shapley_values(samples: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Regress answers (N,) on coalitions (N, S), the first none and the second all, exact at both; return (S,) values.

    The coalitions of size s share the Shapley kernel's mass 1 / (s (S - s)) of their size. Differences between
    superpixels that the coalitions tell poorly (`LEAST_SINGULAR`) are left at zero, lest chance decide them: all where
    there are two coalitions, none where there are enough.
    """
    total, num_segments = responses[1] - responses[0], samples.shape[1]
    equal = np.full(num_segments, total / num_segments)
    x = samples[2:].astype(np.float64)
    if not len(x):
        return equal
    size = samples[2:].sum(axis=1)
    num_asked = np.bincount(size)[size]
    root = 1 / np.sqrt(size * (num_segments - size) * num_asked)
    differences, rest = x - x.mean(axis=1, keepdims=True), responses[2:] - responses[0] - x @ equal
    values, *_ = np.linalg.lstsq(differences * root[:, None], rest * root, rcond=LEAST_SINGULAR)
    return equal + values


def _frames(image: Tensor, other: Tensor, segments: Tensor, samples: Tensor, numbers: range) -> Tensor:
    return compose(image, other, segments, samples[numbers.start : numbers.stop])
