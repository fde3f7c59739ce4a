"""RISE (Petsiuk et al. 2018): what the black box says of the image under random masks, and nothing else.

A mask is a coarse grid of zeros and ones, up-sampled and shifted. All of it follows from (seed, number), so that an
image's map is the same alone, in any batch and on any worker, and a smaller budget's masks are a larger one's first.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from explain.queries import Queries

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
            mean.add(masks, model.ask(i, numbers, frames, int(target[i])))
            if settled and _is_check(numbers.stop):
                now = mean.map(centred=centred)
                if before is not None and rank_correlation(before, now) >= settled:
                    break
                before = now
        maps.append((mean.map(centred=centred) / keep_probability).float())
    return torch.stack(maps)


def rise_masks(
    numbers: range,
    *,
    seed: int,
    size: tuple[int, int],
    num_cells: int,
    keep_probability: float,
    antithetic: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make the masks of the given numbers, each with a grid and a shift of its own: (len, H, W) float32 in [0, 1].

    As the authors' code does: a grid of s x s cells, shown with `keep_probability`, is up-sampled bilinearly to
    (s + 1) ceil(H / s) by (s + 1) ceil(W / s) pixels, and an H x W part is cut out at a shift of less than one cell.
    """
    cells = [-(-side // num_cells) for side in size]
    drawn = range(numbers.start // 2, (numbers.stop + 1) // 2) if antithetic else numbers
    uniform = _uniform(seed, drawn, num_cells**2 + 2)
    grids = torch.from_numpy(uniform[:, 2:] < keep_probability).float().view(-1, num_cells, num_cells)
    shifts = (uniform[:, :2] * cells).astype(np.int64)
    if antithetic:
        grids = torch.stack([grids, 1 - grids], dim=1).flatten(0, 1)
        shifts = shifts.repeat(2, axis=0)
        first = numbers.start % 2
        grids, shifts = grids[first : first + len(numbers)], shifts[first : first + len(numbers)]
    rows, columns = (
        _upsampling(num_cells, cell).to(device)[torch.from_numpy(shift).to(device)[:, None] + _arange(side, device)]
        for cell, shift, side in zip(cells, shifts.T, size, strict=True)
    )  # each (len, side, s)
    return rows @ grids.to(device) @ columns.transpose(1, 2)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Compute Spearman's rank correlation of two maps' values, ties in the order of the pixels."""
    ranks = torch.stack([x.flatten().argsort(stable=True).argsort(stable=True).double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


class _Mean:
    """The running sums behind a map: of p m, of m and of p."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.weighted, self.masks = torch.zeros(2, *size, dtype=torch.float64, device=device)
        self.answers, self.num = 0.0, 0

    def add(self, masks: Tensor, answers: Tensor) -> None:
        weights = torch.stack([answers.to(masks.device), torch.ones(len(answers), device=masks.device)])
        sums = (weights @ masks.flatten(1)).view(2, *masks.shape[1:])
        self.weighted += sums[0]
        self.masks += sums[1]
        self.answers += float(answers.double().sum())
        self.num += len(answers)

    def map(self, *, centred: bool) -> Tensor:
        """Return the mean of p m, or of (p - mean p) m, (H, W) float64."""
        mean_answer = self.answers / self.num if centred else 0.0
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


def _uniform(seed: int, numbers: range, count: int) -> np.ndarray:
    """Draw `count` values in [0, 1) for each number, (len, count): Philox, its counter set by the number."""
    blocks = -(-count // 4)  # a step of Philox's counter makes four 64-bit words
    stream = np.random.Philox(key=seed)
    stream.advance(numbers.start * blocks)
    raw = stream.random_raw(len(numbers) * blocks * 4).reshape(len(numbers), blocks * 4)[:, :count]
    return (raw >> np.uint64(11)) * 2.0**-53


@functools.cache
def _upsampling(num_cells: int, cell: int) -> Tensor:
    """Make the bilinear weights from s cells to (s + 1) * cell pixels, ((s + 1) * cell, s), mirrored at the borders.

    Pixel j lies at (j + 1/2) s / ((s + 1) cell) - 1/2 in cells; a cell beyond the border is the one mirrored about the
    outermost cell's centre, as scikit-image's `resize(order=1, mode="reflect")` has it.
    """
    num_pixels = (num_cells + 1) * cell
    at = (np.arange(num_pixels) + 0.5) * num_cells / num_pixels - 0.5
    left = np.floor(at).astype(np.int64)
    weights = np.zeros((num_pixels, num_cells))
    for index, weight in ((left, 1 - (at - left)), (left + 1, at - left)):
        inside = np.abs(index)
        inside = np.where(inside >= num_cells, 2 * (num_cells - 1) - inside, inside)
        np.add.at(weights, (np.arange(num_pixels), np.clip(inside, 0, num_cells - 1)), weight)
    return torch.from_numpy(weights).float()


def _arange(side: int, device: torch.device | str) -> Tensor:
    return torch.arange(side, device=device)
