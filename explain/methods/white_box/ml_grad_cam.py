"""ML-Grad-CAM: Grad-CAM summed over layers, one factor of MAL-Grad-CAM."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explain.methods.white_box.grad_cam import ClassScore, class_activation_map, class_scores
from explain.methods.white_box.hooks import activations, gradients, require_eval
from explain.methods.white_box.layer_maps import Normalise, sum_over_layers


def layer_cams(
    model: nn.Module, images: Tensor, target: Tensor, *, target_layers: Sequence[str], class_score: ClassScore
) -> list[Tensor]:
    """Compute the Grad-CAM of each target layer, (B, h, w), from one forward and one backward pass.

    The backward pass stops at the earliest of the layers.
    """
    if not target_layers or len(set(target_layers)) < len(target_layers):
        raise ValueError(f"target_layers {tuple(target_layers)}: name at least one layer, each once")
    with torch.enable_grad(), activations(model, target_layers) as kept:
        grads = gradients(class_scores(model(images), target, class_score), kept)
    with torch.no_grad():
        return [class_activation_map(kept[name], grads[name]) for name in target_layers]


def ml_grad_cam(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layers: Sequence[str] = ("layer2", "layer3", "layer4"),
    class_score: ClassScore = "logit",
    normalise: Normalise = "min_max",
) -> Tensor:
    """Add the Grad-CAMs of several layers: sum over l of ReLU(sum_k a_k A_l^k), up-sampled (eqs. 6, 8).

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalised for the model.
        target: (B,) class indices.
        target_layers: Names of modules; the paper's are the last blocks of layers 2, 3 and 4.
        class_score: What is differentiated: the target's logit, or its softmax probability.
        normalise: "min_max" scales each layer's map to [0, 1] before the sum.

    Returns:
        (B, H, W) float32, at least zero.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    require_eval(model)
    cams = layer_cams(model, images, target, target_layers=target_layers, class_score=class_score)
    with torch.no_grad():
        return sum_over_layers(cams, (images.shape[2], images.shape[3]), normalise=normalise)
