"""Grad-CAM (Selvaraju et al. 2017), one layer; and the pieces of it that ML-Grad-CAM shares."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from explain.methods.white_box.hooks import activations, gradients, require_eval
from explain.methods.white_box.layer_maps import upsample

ClassScore = Literal["logit", "probability"]


def class_scores(logits: Tensor, target: Tensor, class_score: ClassScore) -> Tensor:
    """Select each image's score of its `target` from (B, K) logits, as it is or after the softmax: (B,).

    Raises:
        ValueError: If a target is not a class of the model.
    """
    check_target(target, logits.shape[1])
    scores = logits.softmax(dim=1) if class_score == "probability" else logits
    return scores.gather(1, target.long()[:, None]).squeeze(1)


def check_target(target: Tensor, num_classes: int) -> None:
    """Refuse a target, of (B,), that is not a class; of a graph that is being traced it is not known yet.

    Raises:
        ValueError: If there is one; the error names the classes.
    """
    if get_proxy_mode() is None and bool(((target < 0) | (target >= num_classes)).any()):
        raise ValueError(f"target {target.tolist()} holds a class that the model lacks; classes: 0..{num_classes - 1}")


def class_activation_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Weigh the channels A^k by the spatial mean a_k of their gradient: ReLU(sum_k a_k A^k) (eq. 6).

    Args:
        activation: (B, K, h, w).
        gradient: of the class score, (B, K, h, w).

    Returns:
        (B, h, w), never negative.
    """
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * activation).sum(dim=1))


def grad_cam(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layer: str = "layer4",
    class_score: ClassScore = "logit",
) -> Tensor:
    """Map what raises the class score, by Grad-CAM (Selvaraju et al. 2017, eq. 2) at one layer.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalised for the model.
        target: (B,) class indices.
        target_layer: Name of any module with an output (B, K, h, w).
        class_score: What is differentiated: the target's logit, or its softmax probability.

    Returns:
        (B, H, W) float32, at least zero, in the units of the class score.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    require_eval(model)
    with torch.enable_grad(), activations(model, [target_layer]) as kept:
        grads = gradients(class_scores(model(images), target, class_score), kept)
    with torch.no_grad():
        cam = class_activation_map(kept[target_layer], grads[target_layer])
        return upsample(cam.float(), (images.shape[2], images.shape[3]))
