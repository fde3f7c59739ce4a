"""Grad-CAM (Selvaraju et al. 2017): channels weighted by the mean of their gradient."""

import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.options import GradCamOptions, takes_options
from explain.methods.white_box.hooks import gradient_cam


def class_activation_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weight the channels A^k by the spatial mean a_k of their gradient: ReLU(sum_k a_k A^k) (eqs. 1 and 2).

    Args:
        activation: A, (B, K, h, w).
        gradient: Of the class score, (B, K, h, w).

    Returns:
        (B, h, w), at least zero.
    """
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * activation).sum(dim=1))


@takes_options(GradCamOptions)
def grad_cam(model: nn.Module, images: Tensor, target: Tensor, options: GradCamOptions) -> Tensor:
    """Map what raises the class score, by Grad-CAM of one layer: ReLU(sum_k a_k A^k), a_k = mean_ij g_ij^k (eqs. 1, 2).

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Layer and class score.

    Returns:
        (B, H, W) float32, at least zero, in the units of the class score.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    return gradient_cam(
        model,
        images,
        target,
        target_layer=options.target_layer,
        class_score=options.class_score,
        formula=class_activation_map,
    )
