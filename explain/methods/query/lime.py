"""LIME (Ribeiro et al. 2016): a linear model of the black box's responses to images with hidden superpixels."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.perturb.superpixels import compose, hidden, paint, superpixels
from explain.methods.options import LimeOptions, takes_options
from explain.methods.query.queries import Queries

RIDGE = 1.0
"""L2 penalty of the linear model, as the `lime` package has it."""


@takes_options(LimeOptions)
def lime(model: Queries, images: Tensor, target: Tensor, options: LimeOptions, *, seeds: Sequence[int]) -> Tensor:
    """Fit the target's probability by the presence of superpixels near the image; a pixel gets its superpixel's weight.

    Sample 0 shows all superpixels, every other one each with probability one half. Samples z count by
    exp(-d(z, 1)^2 / kernel_width^2), d the cosine distance (Ribeiro et al. 2016, section 3.4; the square root of it as
    the authors' package takes it). The model is ridge regression with an intercept.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it.
        target: (B,) class indices.
        options: Number of samples, superpixels, kernel and baseline.
        seeds: One for each image. Fewer samples are the first of more.

    Returns:
        (B, H, W) float32, of either sign, in units of probability; all zero where there is one superpixel only.
    """
    maps = []
    for i, image in enumerate(images):
        segments = superpixels(image, num_segments=options.num_segments, compactness=options.compactness)
        samples = presence(seeds[i], options.num_samples, int(segments.max()) + 1)
        frames = functools.partial(_frames, image, hidden(image, segments, options.substrate), segments, samples)
        responses = model.query(i, range(options.num_samples), frames, int(target[i]))
        weights = local_weights(samples.numpy(), responses.double().numpy(), kernel_width=options.kernel_width)
        maps.append(paint(torch.from_numpy(weights), segments))
    return torch.stack(maps)


def presence(seed: int, num_samples: int, num_segments: int) -> Tensor:
    """Draw which superpixels each sample shows, (num_samples, S) bool; sample 0 shows all."""
    drawn = np.random.default_rng(seed).random((num_samples, num_segments)) < 0.5
    drawn[0] = True
    return torch.from_numpy(drawn)


def local_weights(samples: np.ndarray, responses: np.ndarray, *, kernel_width: float) -> np.ndarray:
    """Solve the weighted ridge regression of answers (N,) on samples (N, S) with an intercept; return (S,) weights."""
    x = samples.astype(np.float64)
    if x.shape[1] < 2:
        return np.zeros(x.shape[1])
    shown = x.mean(axis=1)
    distance = 1 - np.sqrt(shown)  # cosine of z and the vector of ones: sum z / (sqrt(sum z) sqrt(S))
    kernel = np.sqrt(np.exp(-(distance**2) / kernel_width**2))
    share = kernel / kernel.sum()
    centred, rest = x - share @ x, responses - share @ responses
    gram = (centred * kernel[:, None]).T @ centred
    return np.linalg.solve(gram + RIDGE * np.eye(x.shape[1]), (centred * kernel[:, None]).T @ rest)


def _frames(image: Tensor, other: Tensor, segments: Tensor, samples: Tensor, numbers: range) -> Tensor:
    return compose(image, other, segments, samples[numbers.start : numbers.stop])
