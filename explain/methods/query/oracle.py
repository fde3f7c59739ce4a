"""Oracle of a game: the best order of patches that a direct search on the black box finds for an image.

It queries the frames of the game itself and keeps the order that scores best. So a map can reach at least as much, and
it explains nothing: what moves the probability most may be noise that only this black box sees.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from distill.perturb.blur import rise_blur
from distill.perturb.patches import patch_numbers
from distill.perturb.superpixels import compose
from explain.methods.options import OracleOptions, takes_options
from explain.methods.query.queries import Queries

CANDIDATES = 8
"""Patches that each step of the greedy walk tries: those that did best when they were last tried."""

LENGTHS = (2, 4, 8, 16, 32)
"""Patches of a walk within which two runs change places, from sweep to sweep."""

Ask = Callable[[np.ndarray], np.ndarray | None]
"""Which patches are hidden, (M, P) bool -> what that costs, (M,), lower is better; None where the budget is spent."""


@takes_options(OracleOptions)
def oracle(model: Queries, images: Tensor, target: Tensor, options: OracleOptions, *, seeds: Sequence[int]) -> Tensor:
    """Search for the order of patches with the least area under the deletion curve, or the most under insertion's.

    Both games are walks from the image to what hides it, a patch at a time: zero (the mean color) in deletion, RISE's
    blur in insertion, which goes that way backwards. The first walk is greedy. Then runs of patches change places, and
    stay so where the mean probability along the walk is better for it, until the budget is spent.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it.
        target: (B,) class indices.
        options: Game, patches along each side (at most one for each pixel), and most queries per image.
        seeds: One for each image. The queries of a smaller budget are the first of a larger one's.

    Returns:
        (B, H, W) float32: 1 for the patch that the game changes first, down to 0 for the last, evenly spaced.
    """
    size, grid, num_queries = (images.shape[2], images.shape[3]), options.grid, options.num_queries
    numbers = patch_numbers(size, (min(grid, size[0]), min(grid, size[1]))).to(images.device)
    num_patches = int(numbers.max()) + 1
    maps = []
    for i, image in enumerate(images):
        other, sign = (torch.zeros_like(image), 1.0) if options.game == "deletion" else (rise_blur(image), -1.0)
        shown = functools.partial(compose, image, other, numbers)
        ask = _asking(functools.partial(model.query, i, target=int(target[i])), shown, sign, num_queries)
        walk = better_walk(ask, greedy_walk(ask, num_patches), np.random.default_rng(seeds[i]), num_sweeps=num_queries)
        order = walk if options.game == "deletion" else walk[::-1]
        values = np.empty(num_patches, dtype=np.float32)
        values[order] = np.linspace(1, 0, num_patches)
        maps.append(torch.from_numpy(values).to(images.device)[numbers])
    return torch.stack(maps)


def greedy_walk(ask: Ask, num_patches: int) -> np.ndarray:
    """Hide at each step the best of a few patches; all are asked for alone first. Returns their order, (P,)."""
    walk: list[int] = []
    effect, remaining, num_tried = np.zeros(num_patches), np.arange(num_patches), num_patches
    hidden = np.zeros(num_patches, dtype=bool)
    costs = ask(hidden[None])
    while costs is not None and len(remaining):
        cost, candidates = costs.min(), remaining[:num_tried]
        costs = ask(hidden | (candidates[:, None] == np.arange(num_patches)))
        if costs is not None:
            effect[candidates] = (costs - cost) / max(abs(cost), np.finfo(np.float32).tiny)
            walk.append(int(candidates[costs.argmin()]))
            hidden[walk[-1]] = True
            remaining = remaining[remaining != walk[-1]]
            remaining, num_tried = remaining[effect[remaining].argsort(kind="stable")], CANDIDATES
    return np.array([*walk, *remaining], dtype=np.int64)


def better_walk(ask: Ask, walk: np.ndarray, rng: np.random.Generator, *, num_sweeps: int) -> np.ndarray:
    """Let two runs of patches change places in each part of a walk, and keep what is better, sweep after sweep.

    Frames between two parts are the same in either order, so a sweep's exchanges are judged each on its own.
    """
    costs = ask(_frames(walk))
    for sweep in range(num_sweeps):
        length = LENGTHS[sweep % len(LENGTHS)]
        starts = np.unique([0, *range(int(rng.integers(length)), len(walk), length)])
        proposed = walk.copy()
        for part in np.split(proposed, starts[1:]):
            _exchange(part, rng)
        new_costs = ask(_frames(proposed))
        if new_costs is None or costs is None:
            break
        better = np.add.reduceat(new_costs - costs, starts) < 0
        taken = better.repeat(np.diff(starts, append=len(walk)))
        walk, costs = np.where(taken, proposed, walk), np.where(taken, new_costs, costs)
    return walk


def _exchange(part: np.ndarray, rng: np.random.Generator) -> None:
    """Let two runs of one length change places, in place."""
    if len(part) > 1:
        length = int(rng.integers(1, len(part) // 2 + 1))
        first = int(rng.integers(len(part) - 2 * length + 1))
        second = int(rng.integers(first + length, len(part) - length + 1))
        one, other = part[first : first + length].copy(), part[second : second + length].copy()
        part[first : first + length], part[second : second + length] = other, one


def _frames(walk: np.ndarray) -> np.ndarray:
    """List what is hidden after each step of a walk, (P, P) bool."""
    return walk.argsort() <= np.arange(len(walk))[:, None]


def _asking(model: Callable[..., Tensor], shown: Callable[[Tensor], Tensor], sign: float, num_queries: int) -> Ask:
    """Make what asks the black box, each question once: questions are numbered as they come up."""
    known: dict[bytes, float] = {}

    def ask(hidden: np.ndarray) -> np.ndarray | None:
        nonlocal num_queries
        keys = [row.tobytes() for row in hidden]
        new = [key for key in dict.fromkeys(keys) if key not in known]
        first = len(known)
        if first + len(new) > num_queries:
            num_queries = 0  # for good: a larger budget would ask this next, and by this number
            return None
        presence = ~torch.from_numpy(np.frombuffer(b"".join(new), dtype=bool).reshape(len(new), hidden.shape[1]).copy())
        frames = lambda numbers: shown(presence[numbers.start - first : numbers.stop - first])  # noqa: E731
        responses = model(numbers=range(first, first + len(new)), frames=frames)
        known.update(zip(new, responses.tolist(), strict=True))
        return sign * np.array([known[key] for key in keys])

    return ask
