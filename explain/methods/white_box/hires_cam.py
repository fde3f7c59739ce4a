"""HiResCAM (Draelos and Carin 2020): each place of each channel weighted by its own gradient, nothing averaged."""

from torch import Tensor, nn

from explain.methods.options import HiResCamOptions, takes_options
from explain.methods.white_box.hooks import gradient_cam


def hires_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Compute sum_k g_ij^k A_ij^k of (B, K, h, w): (B, h, w), of either sign."""
    return (gradient * activation).sum(dim=1)


@takes_options(HiResCamOptions)
def hires_cam(model: nn.Module, images: Tensor, target: Tensor, options: HiResCamOptions) -> Tensor:
    """Map where a layer's activations make the class score: sum_k g_ij^k A_ij^k (Draelos and Carin 2020).

    Signed, as published: evidence against the class is below zero. Where only mean pooling and one linear layer follow,
    it is CAM over the number of places, Grad-CAM before its ReLU, and adds up to the logit without its bias; so an
    earlier layer, on which the two differ, is the default.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Layer and class score.

    Returns:
        (B, H, W) float32, of either sign, in the units of the class score.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    return gradient_cam(
        model,
        images,
        target,
        target_layer=options.target_layer,
        class_score=options.class_score,
        formula=hires_map,
    )
