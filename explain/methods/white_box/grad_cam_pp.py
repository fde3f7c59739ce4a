"""Grad-CAM++ (Chattopadhyay et al. 2018): Grad-CAM whose channel weights favour places with a positive gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.white_box.grad_cam import ClassScore, class_scores
from explain.methods.white_box.hooks import activations, gradients, require_eval
from explain.methods.white_box.layer_maps import upsample

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


def grad_cam_pp(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layer: str = "layer4",
    class_score: ClassScore = "logit",
) -> Tensor:
    """Map what raises the class score: ReLU(sum_k w_k A^k) with the weights of `plus_plus_weights`.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalised for the model.
        target: (B,) class indices.
        target_layer: Name of any module with an output (B, K, h, w).
        class_score: What is differentiated: the target's logit, or its softmax probability.

    Returns:
        (B, H, W) float32, at least zero.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    require_eval(model)
    with torch.enable_grad(), activations(model, [target_layer]) as kept:
        grads = gradients(class_scores(model(images), target, class_score), kept)
    with torch.no_grad():
        activation = kept[target_layer]
        weights = plus_plus_weights(activation, grads[target_layer])
        weighed = F.relu(torch.einsum("bkhw,bk->bhw", activation, weights))
        return upsample(weighed.float(), (images.shape[2], images.shape[3]))
