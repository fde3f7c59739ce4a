"""MASK (Fong and Vedaldi 2017): the smallest region whose replacement lowers the class score, found by gradient."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.options import MaskOptions, takes_options
from explain.methods.white_box.hooks import class_scores, require_eval
from explain.methods.white_box.layer_maps import upsample

Perturbation = Literal["constant", "noise", "blur"]

BLUR_SIGMA = 10 / 224
"""Standard deviation of the blur as a share of the image's longer side, the authors' 10 px at 224 px."""
NOISE = 0.2
"""Standard deviation of the noise around the mean color, in units of the normalized image."""
LEARNING_RATE = 0.1
"""Of Adam, as the authors have it."""


@takes_options(MaskOptions)
def mask(model: nn.Module, images: Tensor, target: Tensor, options: MaskOptions, *, seeds: Sequence[int]) -> Tensor:
    """Learn m in [0, 1], one where the image stays, and return what it deletes, 1 - m (Fong and Vedaldi 2017, eq. 6).

    Minimises  l1 mean(1 - m) + total_variation sum |grad m|^beta + f_c(m' x + (1 - m') x_0)  by Adam, f_c the target's
    probability, x_0 the perturbed image and m' the mask up-sampled and shifted by a random jitter at each iteration.
    The L1 term is a mean over the mask's cells here, so that `l1` means the same at every `mask_size`; |grad m| is the
    difference of neighboring cells, each direction's a mean too.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        seeds: One for each image: its noise and its jitter.
        options: Baseline, size of the mask, steps of Adam, and the weights of the terms.

    Returns:
        (B, H, W) float32 in [0, 1].

    Raises:
        ValueError: For an unknown target, or a model in training mode.
    """
    require_eval(model)
    size = (images.shape[2], images.shape[3])
    generators = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
    other = perturbed(images, options.perturbation, generators)
    cells = torch.ones(len(images), options.mask_size, options.mask_size, device=images.device, requires_grad=True)
    adam = torch.optim.Adam([cells], lr=LEARNING_RATE)
    reach = round(options.jitter * max(size))
    for _ in range(options.num_iterations):
        with torch.enable_grad():
            shifted = _shift(torch.stack([images, other]), reach, generators)
            shown = upsample(cells, size)[:, None]
            scores = class_scores(model(shown * shifted[0] + (1 - shown) * shifted[1]), target, "probability")
            uneven = options.total_variation * unevenness(cells, options.beta)
            regular = options.l1 * (1 - cells).mean(dim=(1, 2)) + uneven
            (gradient,) = torch.autograd.grad((scores + regular).sum(), cells)
        cells.grad = gradient
        adam.step()
        with torch.no_grad():
            cells.clamp_(0, 1)
    with torch.no_grad():
        return upsample(1 - cells.detach(), size).float()


def unevenness(cells: Tensor, beta: float) -> Tensor:
    """Compute mean |m_(i+1)j - m_ij|^beta + mean |m_i(j+1) - m_ij|^beta of (B, h, w) masks: (B,)."""
    return sum((cells.diff(dim=dim).abs() ** beta).mean(dim=(1, 2)) for dim in (1, 2))  # pyright: ignore[reportReturnType]


def perturbed(images: Tensor, perturbation: Perturbation, generators: Sequence[torch.Generator]) -> Tensor:
    """Make what stands in for deleted pixels, (B, 3, H, W)."""
    if perturbation == "constant":
        return torch.zeros_like(images)
    if perturbation == "noise":
        drawn = [torch.randn(images.shape[1:], generator=generator) for generator in generators]
        return NOISE * torch.stack(drawn).to(images)
    radius_px = BLUR_SIGMA * max(images.shape[2:])
    for dim in (2, 3):
        places = torch.arange(images.shape[dim], dtype=images.dtype, device=images.device)
        weights = torch.exp(-(((places[:, None] - places) / radius_px) ** 2) / 2)
        weights = weights / weights.sum(dim=1, keepdim=True)
        images = torch.einsum("bchw,xh->bcxw" if dim == 2 else "bchw,xw->bchx", images, weights)
    return images


def _shift(pairs: Tensor, reach: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Shift image and substitute of (2, B, 3, H, W) alike, each image by its own jitter, mirrored at the borders."""
    if not reach:
        return pairs
    padded = F.pad(pairs.flatten(0, 1), (reach,) * 4, mode="reflect").unflatten(0, pairs.shape[:2])
    height, width = pairs.shape[3:]
    starts = [torch.randint(2 * reach + 1, (2,), generator=generator).tolist() for generator in generators]
    cut = [padded[:, i, :, top : top + height, left : left + width] for i, (top, left) in enumerate(starts)]
    return torch.stack(cut, dim=1)
