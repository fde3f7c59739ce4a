"""HiResCAM (Draelos and Carin 2020): each place of each channel weighed by its own gradient, nothing averaged."""

import torch
from torch import Tensor, nn

from explain.methods.white_box.grad_cam import ClassScore, class_scores
from explain.methods.white_box.hooks import activations, gradients, require_eval
from explain.methods.white_box.layer_maps import upsample


def hires_cam(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layer: str = "layer3",
    class_score: ClassScore = "logit",
) -> Tensor:
    """Map where a layer's activations make the class score: sum_k g_ij^k A_ij^k (Draelos and Carin 2020).

    Signed, as published: what is evidence against the class is below zero. Where only pooling by the mean and one
    linear layer follow, it is CAM over the number of places, Grad-CAM before its ReLU, and adds up to the logit without
    its bias; so an earlier layer, on which the two differ, is the default.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalised for the model.
        target: (B,) class indices.
        target_layer: Name of any module with an output (B, K, h, w).
        class_score: What is differentiated: the target's logit, or its softmax probability.

    Returns:
        (B, H, W) float32, of either sign, in the units of the class score.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    require_eval(model)
    with torch.enable_grad(), activations(model, [target_layer]) as kept:
        grads = gradients(class_scores(model(images), target, class_score), kept)
    with torch.no_grad():
        product = (grads[target_layer] * kept[target_layer]).sum(dim=1)
        return upsample(product.float(), (images.shape[2], images.shape[3]))
