"""Noiseless linear imputation (Rong et al. 2022): removed pixels become the weighted mean of their neighbors.

The linear system is a Laplace equation with the kept pixels as its border, so multigrid solves it in about ten steps
whatever the shape of the hole. Each step is a few shifted sums over whole frames: no matrix is built, all colors and
masks go side by side, and it runs where the frames are.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-5  # largest residual, in units of the pixels; leaves errors of 1e-4, a hundredth of ROAD's noise
MAX_STEPS = 200  # ten are usual
MIN_SIDE_PX = 4  # of the coarsest level
COARSE_SWEEPS = 4  # enough to solve a level of a few pixels


@dataclass(frozen=True)
class _Level:
    """One resolution: which pixels are unknown, (N, 1, h, w) of 0 and 1, and the sum of each one's weights."""

    unknown: Tensor
    sums: Tensor
    step: Tensor
    """unknown / sums: one Jacobi step per unit of residual."""


def linear_imputation(image: Tensor, removed: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Fill the removed pixels of an image, once per mask.

    Each removed pixel i is x_i = sum_j w_ij x_j / sum_j w_ij over its neighbors j inside the image, w = 1/6 for the
    four direct and 1/12 for the four diagonal ones; the others stay as they are. Multigrid-preconditioned conjugate
    gradients solve sum_j w_ij (x_i - x_j) = 0 for all colors at once.

    Args:
        image: (3, H, W), finite, of any scale.
        removed: bool (N, H, W), with at least one kept pixel in each mask.
        tolerance: largest absolute residual left, in the image's units.

    Returns:
        (N, 3, H, W).

    Raises:
        ValueError: a mask keeps no pixel, so that nothing says what to fill in.
    """
    if bool(removed.flatten(1).all(dim=1).any()):
        raise ValueError("a mask removes the whole image; keep at least one pixel to fill the others from")
    height, width = image.shape[-2:]
    levels = _levels(removed[:, None].to(image), _num_halvings(height, width))
    unknown = levels[0].unknown
    pad = (0, unknown.shape[-1] - width, 0, unknown.shape[-2] - height)
    kept = F.pad(image, pad) * (1 - unknown)
    return (kept + _solve(unknown * around(kept), levels, tolerance))[..., :height, :width]


def around(x: Tensor) -> Tensor:
    """Sum each pixel's neighbors, 1/6 of the direct and 1/12 of the diagonal ones, nothing beyond the border.

    The kernel is ([1, 2, 1] outer [1, 2, 1] - 4 in the middle) / 12.
    """
    rows = 2 * x
    rows[..., 1:, :] += x[..., :-1, :]
    rows[..., :-1, :] += x[..., 1:, :]
    out = 2 * rows
    out[..., 1:] += rows[..., :-1]
    out[..., :-1] += rows[..., 1:]
    return out.sub_(x, alpha=4).div_(12)


def _num_halvings(height: int, width: int) -> int:
    return max(0, int(math.log2(max(1, min(height, width) / MIN_SIDE_PX))))


def _levels(unknown: Tensor, num_halvings: int) -> list[_Level]:
    """Halve the masks; a coarse pixel is unknown where all four of its pixels are."""
    height, width = unknown.shape[-2:]
    multiple = 2**num_halvings
    pad = (0, -width % multiple, 0, -height % multiple)
    inside = F.pad(torch.ones_like(unknown[:1]), pad)
    unknown = F.pad(unknown, pad)
    levels = []
    for _ in range(num_halvings + 1):
        sums = around(inside)
        levels.append(_Level(unknown, sums, torch.where(sums > 0, unknown / sums, 0.0)))
        if not bool(unknown.any()) or min(unknown.shape[-2:]) < 2:
            break
        unknown = (F.avg_pool2d(unknown, 2) == 1).to(unknown)
        inside = F.max_pool2d(inside, 2)
    return levels


def _solve(b: Tensor, levels: list[_Level], tolerance: float) -> Tensor:
    """Run conjugate gradients, each color of each mask with its own step length."""
    x, residual = torch.zeros_like(b), b
    direction, rz = torch.zeros_like(b), torch.full_like(b[..., :1, :1], torch.inf)
    for _ in range(MAX_STEPS):
        if not bool(residual.abs().amax() > tolerance):
            return x
        z = _v_cycle(residual, levels)
        rz, before = _dot(residual, z), rz
        direction = direction.mul_(rz / before.clamp(min=1e-30)).add_(z)
        image = _apply(direction, levels[0])
        length = rz / _dot(direction, image).clamp(min=1e-30)
        x.addcmul_(length, direction)
        residual = residual.addcmul(length, image, value=-1)
    raise AssertionError(f"no solution within {MAX_STEPS} steps")


def _apply(x: Tensor, level: _Level) -> Tensor:
    return (level.sums * x).sub_(around(x)).mul_(level.unknown)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(-2, -1), keepdim=True)


def _v_cycle(residual: Tensor, levels: list[_Level]) -> Tensor:
    """Solve roughly for a residual: a Jacobi step, the rest on the next coarser level, another Jacobi step.

    In two dimensions the stencil's energy does not depend on the pixel's size, so every level has the same one, and
    restriction (sum of four) is the transpose of prolongation (repeat): the cycle is symmetric, as gradients need.
    """
    level = levels[0]
    x = level.step * residual
    if len(levels) == 1:
        for _ in range(COARSE_SWEEPS):
            x.addcmul_(level.step, residual - _apply(x, level))
        return x
    rest = F.avg_pool2d(residual - _apply(x, level), 2).mul_(4).mul_(levels[1].unknown)
    coarse = F.interpolate(_v_cycle(rest, levels[1:]), scale_factor=2.0)
    x.addcmul_(level.unknown, coarse)
    return x.addcmul_(level.step, residual - _apply(x, level))
