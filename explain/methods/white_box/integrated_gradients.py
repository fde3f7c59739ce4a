"""Integrated gradients (Sundararajan et al. 2017): gradients summed on the way from mean color to image."""

import numpy as np
import torch
from torch import Tensor, nn

from explain.methods.options import IntegratedGradientsOptions, takes_options
from explain.methods.white_box.hooks import class_scores, require_eval


@takes_options(IntegratedGradientsOptions)
def integrated_gradients(
    model: nn.Module, images: Tensor, target: Tensor, options: IntegratedGradientsOptions
) -> Tensor:
    """Share the class score among the pixels: sum over colors of x * integral_0^1 df(a x)/dx da (eq. 1).

    The baseline is zero in normalized space, the mean color; the integral is Gauss-Legendre quadrature. A map's sum is
    the score of the image minus that of the baseline, up to the quadrature's error.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Number of points, each one forward and one backward pass, and class score.

    Returns:
        (B, H, W) float32, of either sign, in the units of the class score.

    Raises:
        ValueError: For an unknown target, or a model in training mode.
    """
    require_eval(model)
    nodes, weights = np.polynomial.legendre.leggauss(options.num_steps)
    total = torch.zeros_like(images)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        with torch.enable_grad():
            scaled = (images.detach() * float(node)).requires_grad_()
            scores = class_scores(model(scaled), target, options.class_score)
            (gradient,) = torch.autograd.grad(scores.sum(), scaled)
        total += float(weight) * gradient
    return (total * images).sum(dim=1).float()
