"""RISE (Petsiuk et al. 2018): what the black box says of the image under random masks, and nothing else.

A mask is a coarse grid of zeros and ones, up-sampled and shifted. All of it follows from (seed, number), so that an
image's map is the same alone, in any batch and on any worker, and a smaller budget's masks are a larger one's first.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.perturb.rise_masks import rise_masks
from explain.methods.query.queries import Queries

MASKS_AT_ONCE = 64
"""Masks in memory: 13 MB at 224 px, whatever the budget."""

FIRST_CHECK = 256
"""Masks before `settled` is looked at for the first time; then at each doubling."""


def rise(
    model: Queries,
    images: Tensor,
    target: Tensor,
    *,
    seeds: Sequence[int],
    num_masks: int = 4000,
    num_cells: int = 7,
    keep_probability: float = 0.5,
    antithetic: bool = False,
    centred: bool = False,
    settled: float = 0.0,
) -> Tensor:
    """Weigh random masks by what is left of the target's probability (Petsiuk et al. 2018, eq. 6).

    With masks m_1 ... m_N and answers p_i = f(image * m_i), the published map is sum_i p_i m_i / (N keep_probability),
    the centred one sum_i (p_i - mean p) m_i / (N keep_probability), which spends no query on learning the mean.

    Args:
        model: The black box.
        images: (B, 3, H, W), normalised for it: a masked pixel is zero there, the mean colour.
        target: (B,) class indices.
        seeds: One for each image; its masks depend on nothing else.
        num_masks: N.
        num_cells: s, cells of a mask along each side.
        keep_probability: Probability of a cell to be shown.
        antithetic: Every second mask is its predecessor's complement; for a keep_probability of one half.
        centred: Take the mean of the answers off.
        settled: Stop, at 512 masks or a doubling, once the map's rank correlation with the map at half of the masks is
            at least this; 0 never stops early.

    Returns:
        (B, H, W) float32; at least zero where published, of either sign where centred.

    Raises:
        ValueError: For antithetic masks whose complement has another distribution.
    """
    if antithetic and keep_probability != 0.5:
        raise ValueError(
            f"antithetic masks need keep_probability 0.5, not {keep_probability}: else a complement has another share"
        )
    size = (images.shape[2], images.shape[3])
    shown = functools.partial(
        rise_masks, size=size, num_cells=num_cells, keep_probability=keep_probability, antithetic=antithetic
    )
    maps = []
    for i, image in enumerate(images):
        make = functools.partial(shown, seed=seeds[i], device=image.device)
        mean = _Mean(size, image.device)
        before = None
        for numbers in _chunks(num_masks):
            masks = make(numbers)
            frames = functools.partial(_masked, image, masks, numbers.start)
            mean.add(masks, model.query(i, numbers, frames, int(target[i])))
            if settled and _is_check(numbers.stop):
                now = mean.map(centred=centred)
                if before is not None and rank_correlation(before, now) >= settled:
                    break
                before = now
        maps.append((mean.map(centred=centred) / keep_probability).float())
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
