"""What CBAM's gates pool, for training: mean and maximum together, with a backward pass of one sweep over the gradient.

Torch's own gradients of both write three tensors of the activations' size, and compare each activation with its maximum
once more. Here the activations go through, so that what comes back for them meets the pools' gradients in one sum, and
the maximum's goes to where it was found: to the first of equal ones, where torch shares it among them.
"""

from typing import Any

import torch
from torch import Tensor


def pool_pixels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pool activations (B, C, H, W) over their pixels.

    Returns:
        Mean (B, C), maximum (B, C), and the activations, which alone may be used on.
    """
    return _Pixels.apply(x)  # pyright: ignore[reportReturnType]


def pool_channels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pool activations (B, C, H, W) over their channels.

    Returns:
        Mean (B, 1, H, W), maximum (B, 1, H, W), and the activations, which alone may be used on.
    """
    return _Channels.apply(x)  # pyright: ignore[reportReturnType]


class _Pixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        top, place = x.permute(0, 2, 3, 1).flatten(1, 2).max(dim=1)  # (B, C, H, W) -> (B, HW, C) -> (B, C)
        ctx.save_for_backward(place)
        return x.mean(dim=(2, 3)), top, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (place,), (mean, top, through) = ctx.saved_tensors, grads
        num_pixels = through.shape[2] * through.shape[3]
        each = (mean / num_pixels).to(through.dtype)[:, :, None, None]
        whole = (through + each).contiguous(memory_format=torch.channels_last)
        rows = whole.permute(0, 2, 3, 1).view(len(whole), num_pixels, -1)  # the same memory, (B, HW, C)
        rows.scatter_add_(1, place[:, None], top.to(through.dtype)[:, None])
        return whole


class _Channels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        top, place = x.max(dim=1, keepdim=True)
        ctx.save_for_backward(place)
        return x.mean(dim=1, keepdim=True), top, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (place,), (mean, top, through) = ctx.saved_tensors, grads
        whole = through + (mean / through.shape[1]).to(through.dtype)
        return whole.scatter_add_(1, place, top.to(through.dtype))
