"""ML-Grad-CAM: Grad-CAM summed over layers, one factor of MAL-Grad-CAM."""

import torch
from torch import Tensor, nn

from explain.methods.options import MlGradCamOptions, takes_options
from explain.methods.white_box.grad_cam import class_activation_map
from explain.methods.white_box.hooks import gradient_cams
from explain.methods.white_box.layer_maps import sum_over_layers


@takes_options(MlGradCamOptions)
def ml_grad_cam(model: nn.Module, images: Tensor, target: Tensor, options: MlGradCamOptions) -> Tensor:
    """Add the Grad-CAMs of several layers: sum over l of ReLU(sum_k a_k A_l^k), up-sampled (eqs. 6, 8).

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Layers (the paper's are the last blocks of layers 2, 3 and 4), class score and scaling.

    Returns:
        (B, H, W) float32, at least zero.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    cams = gradient_cams(
        model,
        images,
        target,
        target_layers=options.target_layers,
        class_score=options.class_score,
        formula=class_activation_map,
    )
    with torch.no_grad():
        return sum_over_layers(cams, (images.shape[2], images.shape[3]), normalise=options.normalise)
