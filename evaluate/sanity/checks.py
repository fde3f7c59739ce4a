"""Sanity checks of maps (Adebayo et al. 2018): does a map depend on what the student has learned?

A map that stays while the parameters behind it are redrawn shows the image, or the architecture, whatever its score.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from evaluate.statistics import spearman
from explain.runners.white_box import share_weights

Network = TypeVar("Network", bound=nn.Module)
STAGES: dict[str, tuple[str, ...]] = {
    "fc": ("fc",),
    "layer4": ("layer4",),
    "layer3": ("layer3",),
    "layer2": ("layer2",),
    "layer1": ("layer1",),
    "stem": ("conv1", "bn1"),
}
"""The student's stages from the top down, and the modules of each."""


def untrained(make: Callable[[], Network], *, seed: int, draw: int) -> Network:
    """Make a network with new parameters, ready to explain; the global generator stays as it is.

    They are drawn from (seed, draw), hashed: with `seed` as it stands, a student that was trained from the same seed
    would meet the very parameters that it started from, and much of them is left in it.
    """
    stream = np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(stream))
        return make().eval().requires_grad_(False)


def cascade(model: Network, fresh: nn.Module) -> Iterator[tuple[str, Network]]:
    """Yield the model with one more of its stages, from the top down, taken from an untrained one.

    Batch norms start anew too: statistics of trained activations do not fit redrawn weights.

    Args:
        model: the trained network; stays as it is.
        fresh: the untrained one; both keep sharing their weights with what is yielded.

    Yields:
        The stage that was redrawn last, and the network.
    """
    changed = model
    for stage, modules in STAGES.items():
        changed = share_weights(changed)
        for name in modules:
            setattr(changed, name, getattr(fresh, name))
        yield stage, changed


def rank_correlations(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Compute Spearman's rank correlation of two maps over their pixels, of the values and of the absolute values.

    The two differ for maps of either sign: there a map whose sign alone has flipped still points to the same places.

    Args:
        first: (H, W), finite.
        second: (H, W), finite.

    Returns:
        Signed and absolute, each -1 to 1; NaN where a map is constant.
    """
    return spearman(first.ravel(), second.ravel()), spearman(np.abs(first).ravel(), np.abs(second).ravel())


def scaled(saliency: np.ndarray) -> np.ndarray:
    """Scale a map to [0, 1] by its minimum and maximum, float64, as SSIM needs it; a constant map becomes zeros."""
    values = saliency.astype(np.float64)
    span = np.ptp(values)
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)
