"""LayerCAM (Jiang et al. 2021): each place of a layer weighted by its own gradient; fit for early, fine layers too."""

import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.options import GradCamOptions, takes_options
from explain.methods.white_box.hooks import gradient_cam


def layer_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute ReLU(sum_k ReLU(g_ij^k) A_ij^k) of (B, K, h, w): (B, h, w)."""
    return F.relu((F.relu(gradient) * activation).sum(dim=1))


@takes_options(GradCamOptions)
def layer_cam(model: nn.Module, images: Tensor, target: Tensor, options: GradCamOptions) -> Tensor:
    """Map what raises the class score: ReLU(sum_k ReLU(g_ij^k) A_ij^k) (Jiang et al. 2021, eqs. 5 to 7).

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
        formula=layer_map,
    )
