"""Patches of a grid, as the games and the oracle's search hide them."""

import torch
from torch import Tensor


def patch_numbers(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Number the patch of a grid that each pixel belongs to, row by row: (H, W) int64.

    Patch i of P owns rows floor(i H / P) to floor((i + 1) H / P); so patches differ by a row or a column where P does
    not divide.
    """
    rows, columns = (_owner(length, num) for length, num in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def _owner(length: int, num: int) -> Tensor:
    assert num <= length, "each patch has a row and a column of its own"
    starts = torch.arange(num) * length // num
    return torch.searchsorted(starts, torch.arange(length), right=True) - 1
