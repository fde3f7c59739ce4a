"""RISE (Petsiuk et al. 2018): random masks weighted by the black box's responses to the masked image.

A mask is a coarse grid of zeros and ones, up-sampled and shifted. All of it follows from (seed, number), so that an
image's map is the same alone, in any batch and on any worker, and a smaller budget's masks are a larger one's first.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.perturb.rise_masks import rise_masks
from explain.methods.options import RiseOptions, takes_options
from explain.methods.query.queries import Queries

MASKS_AT_ONCE = 64
"""Masks in memory: 13 MB at 224 px, whatever the budget."""

FIRST_CHECK = 256
"""Masks before `settled` is looked at for the first time; then at each doubling."""


@takes_options(RiseOptions)
def rise(model: Queries, images: Tensor, target: Tensor, options: RiseOptions, *, seeds: Sequence[int]) -> Tensor:
    """Weight random masks by the target's probability on the masked image (Petsiuk et al. 2018, eq. 6).

    With masks m_1 ... m_N and responses p_i = f(image * m_i), the published map is
    sum_i p_i m_i / (N keep_probability), and the centred one, which spends no query on learning the mean,
    sum_i (p_i - mean p) m_i / (N keep_probability).

    Args:
        model: The black box.
        images: (B, 3, H, W), normalized for it: a masked pixel is zero there, the mean color.
        target: (B,) class indices.
        options: Number and kind of masks.
        seeds: One for each image; its masks depend on nothing else.

    Returns:
        (B, H, W) float32; at least zero where published, of either sign where centred.

    """
    size = (images.shape[2], images.shape[3])
    shown = functools.partial(
        rise_masks,
        size=size,
        num_cells=options.num_cells,
        keep_probability=options.keep_probability,
        antithetic=options.antithetic,
    )
    maps = []
    for i, image in enumerate(images):
        make = functools.partial(shown, seed=seeds[i], device=image.device)
        mean = _Mean(size, image.device)
        before = None
        for numbers in _chunks(options.num_masks):
            masks = make(numbers)
            frames = functools.partial(_masked, image, masks, numbers.start)
            mean.add(masks, model.query(i, numbers, frames, int(target[i])))
            if options.settled and _is_check(numbers.stop):
                now = mean.map(centred=options.centred)
                if before is not None and rank_correlation(before, now) >= options.settled:
                    break
                before = now
        maps.append((mean.map(centred=options.centred) / options.keep_probability).float())
    return torch.stack(maps)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Compute Spearman's rank correlation of two maps' values, ties in the order of the pixels."""
    ranks = torch.stack([x.flatten().argsort(stable=True).argsort(stable=True).double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


class _Mean:
    """The running sums behind a map: of p m, of m and of p."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.weighted, self.masks = torch.zeros(2, *size, dtype=torch.float64, device=device)
        self.responses, self.num = 0.0, 0

    def add(self, masks: Tensor, responses: Tensor) -> None:
        weights = torch.stack([responses.to(masks.device), torch.ones(len(responses), device=masks.device)])
        sums = (weights @ masks.flatten(1)).view(2, *masks.shape[1:])
        self.weighted += sums[0]
        self.masks += sums[1]
        self.responses += float(responses.double().sum())
        self.num += len(responses)

    def map(self, *, centred: bool) -> Tensor:
        """Return the mean of p m, or of (p - mean p) m, (H, W) float64."""
        mean_answer = self.responses / self.num if centred else 0.0
        return (self.weighted - mean_answer * self.masks) / self.num


def _masked(image: Tensor, masks: Tensor, first: int, numbers: range) -> Tensor:
    """Show the image (3, H, W) through those masks whose numbers, counted from `first`, are asked for."""
    return image * masks[numbers.start - first : numbers.stop - first, None]


def _chunks(num_masks: int) -> list[range]:
    starts = range(0, num_masks, MASKS_AT_ONCE)
    return [range(start, min(start + MASKS_AT_ONCE, num_masks)) for start in starts]


def _is_check(num: int) -> bool:
    doublings, rest = divmod(num, FIRST_CHECK)
    return not rest and doublings & (doublings - 1) == 0
