"""LayerCAM (Jiang et al. 2021): each place of a layer weighed by its own gradient, fit for early, fine layers too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.white_box.grad_cam import ClassScore, class_scores
from explain.methods.white_box.hooks import activations, gradients, require_eval
from explain.methods.white_box.layer_maps import upsample


def layer_cam(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layer: str = "layer4",
    class_score: ClassScore = "logit",
) -> Tensor:
    """Map what raises the class score: ReLU(sum_k ReLU(g_ij^k) A_ij^k) (Jiang et al. 2021, eqs. 5 to 7).

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
        weighed = F.relu((F.relu(grads[target_layer]) * kept[target_layer]).sum(dim=1))
        return upsample(weighed.float(), (images.shape[2], images.shape[3]))
