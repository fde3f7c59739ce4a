"""MATT: the change that each attention module (CBAM) of the student makes, summed over all of them; class-agnostic."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from explain.methods.options import MattOptions, takes_options
from explain.methods.white_box.hooks import module_changes, require_eval
from explain.methods.white_box.layer_maps import sum_over_layers

Sign = Literal["positive", "negative", "absolute"]
Collapse = Literal["sum", "mean", "abs_mean"]


def attention_map(f_in: Tensor, f_out: Tensor, *, sign: Sign, collapse: Collapse) -> Tensor:
    """Collapse ATT = F_o - F_i (eq. 7) over channels: (B, C, h, w) -> (B, h, w).

    Args:
        f_in: F_i, what the attention module gets.
        f_out: F_o, what it returns.
        sign: "positive": F_o - F_i; "negative": F_i - F_o; "absolute": |F_o - F_i|, each channel on its own.
        collapse: "sum" or "mean" over channels, or the mean of the absolute values (the same for every sign).
    """
    change = f_in - f_out if sign == "negative" else f_out - f_in
    if sign == "absolute" or collapse == "abs_mean":
        change = change.abs()
    return change.sum(dim=1) if collapse == "sum" else change.mean(dim=1)


@contextmanager
def attention_maps(model: nn.Module, *, sign: Sign, collapse: Collapse) -> Iterator[dict[str, Tensor]]:
    """Collect the attention map of every module called `*.cbam` during a forward pass.

    Yields:
        A dictionary that the forward pass fills: module name -> (B, h, w), without a graph.

    Raises:
        ValueError: If the model has no such module, or (in the forward pass) if one overwrites its input.
    """
    cbams = {name: module for name, module in model.named_modules() if name.rpartition(".")[2] == "cbam"}
    if not cbams:
        raise ValueError("the model has no module named '*.cbam'; MATT needs a ResCBAM student")
    with module_changes(cbams, functools.partial(attention_map, sign=sign, collapse=collapse)) as kept:
        yield kept


@takes_options(MattOptions)
def matt(model: nn.Module, images: Tensor, target: Tensor, options: MattOptions) -> Tensor:
    """Add what each CBAM changes: MATT = sum_k ATT_k, ATT_k = F_o - F_i, up-sampled (eqs. 7, 8).

    Args:
        model: A student in eval mode, (B, 3, H, W) -> logits (B, K), with attention modules named `*.cbam`.
        images: (B, 3, H, W), normalized for the model.
        target: Ignored: attention does not depend on the class.
        options: Sign, reduction over channels and scaling of the attention maps; see `attention_map`.

    The paper leaves these three open; the defaults put important pixels first on training images of Imagenette
    (results/imagenette/attention_options.md).

    Returns:
        (B, H, W) float32; of either sign, unless made absolute or scaled.

    Raises:
        ValueError: If the model has no module named `*.cbam`, or is in training mode.
    """
    require_eval(model)
    with torch.no_grad(), attention_maps(model, sign=options.sign, collapse=options.collapse) as kept:
        model(images)
        size = (images.shape[2], images.shape[3])
        return sum_over_layers(list(kept.values()), size, normalise=options.normalise)
