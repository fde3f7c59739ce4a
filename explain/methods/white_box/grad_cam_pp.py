"""Grad-CAM++ (Chattopadhyay et al. 2018): Grad-CAM whose channel weights favor places with a positive gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.options import GradCamOptions, takes_options
from explain.methods.white_box.hooks import gradient_cam

EPSILON = 1e-6
"""Added to the denominator of alpha, which is zero where the gradient is."""


def plus_plus_weights(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute w_k = sum_ij alpha_ij^k ReLU(g_ij^k), alpha = g^2 / (2 g^2 + g^3 sum_ab A_ab^k) (eqs. 5, 19).

    Args:
        activation: A, (B, K, h, w).
        gradient: g, of the class score whose exponential is explained, (B, K, h, w).

    Returns:
        (B, K).
    """
    square = gradient**2
    denominator = 2 * square + gradient * square * activation.sum(dim=(2, 3), keepdim=True) + EPSILON
    alpha = torch.where(gradient != 0, square / denominator, 0)
    return (alpha * F.relu(gradient)).sum(dim=(2, 3))


def plus_plus_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ReLU(sum_k w_k A^k) of (B, K, h, w): (B, h, w)."""
    return F.relu(torch.einsum("bkhw,bk->bhw", activation, plus_plus_weights(activation, gradient)))


@takes_options(GradCamOptions)
def grad_cam_pp(model: nn.Module, images: Tensor, target: Tensor, options: GradCamOptions) -> Tensor:
    """Map what raises the class score: ReLU(sum_k w_k A^k) with the weights of `plus_plus_weights`.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Layer and class score.

    Returns:
        (B, H, W) float32, at least zero.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    return gradient_cam(
        model,
        images,
        target,
        target_layer=options.target_layer,
        class_score=options.class_score,
        formula=plus_plus_map,
    )
