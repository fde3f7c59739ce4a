"""Integrated gradients (Sundararajan et al. 2017): the gradient along the way from grey to the image, added up."""

import numpy as np
import torch
from torch import Tensor, nn

from explain.methods.white_box.grad_cam import ClassScore, class_scores
from explain.methods.white_box.hooks import require_eval


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    num_steps: int = 50,
    class_score: ClassScore = "logit",
) -> Tensor:
    """Share the class score among the pixels: sum over colours of x * integral_0^1 df(a x)/dx da (eq. 1).

    The baseline is zero in normalised space, the mean colour; the integral is Gauss-Legendre quadrature. A map's sum is
    the score of the image minus that of the baseline, up to the quadrature's error.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalised for the model.
        target: (B,) class indices.
        num_steps: Points of the quadrature; one forward and one backward pass for each.
        class_score: What is differentiated: the target's logit, or its softmax probability.

    Returns:
        (B, H, W) float32, of either sign, in the units of the class score.

    Raises:
        ValueError: For an unknown target, or a model in training mode.
    """
    require_eval(model)
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    total = torch.zeros_like(images)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        with torch.enable_grad():
            scaled = (images.detach() * float(node)).requires_grad_()
            scores = class_scores(model(scaled), target, class_score)
            (gradient,) = torch.autograd.grad(scores.sum(), scaled)
        total += float(weight) * gradient
    return (total * images).sum(dim=1).float()
