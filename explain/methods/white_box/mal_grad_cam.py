"""MAL-Grad-CAM, the paper's map: where the student attends, times what raises the class score."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from explain.methods.white_box.grad_cam import ClassScore
from explain.methods.white_box.hooks import require_eval
from explain.methods.white_box.layer_maps import Normalise, sum_over_layers
from explain.methods.white_box.matt import Collapse, Sign, attention_maps
from explain.methods.white_box.ml_grad_cam import layer_cams

Normalisation = Literal["softmax", "none"]


def softmax_over_pixels(raw: Tensor) -> Tensor:
    """Turn each map into shares that sum to one: exp(raw) / sum over pixels of exp(raw) (eq. 9).

    Monotone: it keeps each image's ranking of pixels. Computed in float64, where raw values may differ by 700
    before they tie. The shares are float32 all the same, so pixels 100 or more below the maximum tie at zero.

    Args:
        raw: (B, H, W), any values.

    Returns:
        (B, H, W) float32 in [0, 1].
    """
    return raw.double().flatten(1).softmax(dim=1).view(raw.shape).float()


def mal_grad_cam(
    model: nn.Module,
    images: Tensor,
    target: Tensor,
    *,
    target_layers: Sequence[str] = ("layer2", "layer3", "layer4"),
    class_score: ClassScore = "logit",
    normalise_cams: Normalise = "min_max",
    sign: Sign = "absolute",
    collapse: Collapse = "mean",
    normalise_attention: Normalise = "min_max",
    normalisation: Normalisation = "softmax",
) -> Tensor:
    """Multiply attention by what raises the class: softmax(MATT * ML-Grad-CAM) over pixels (eq. 9).

    The softmax is monotone: it changes no ranking of pixels, so no game that uses ranks only. Of min-max layers'
    products float32 holds all its shares apart. Raw layers' products run from -1e4 to 1e3, and 24 to 100 % of the
    pixels of a half-trained student's maps were stored as zero (8 images): there "none" keeps the ranking.

    Args:
        model: A student in eval mode, (B, 3, H, W) -> logits (B, K), with attention modules named `*.cbam`.
        images: (B, 3, H, W), normalised for the model.
        target: (B,) class indices.
        target_layers: Layers of ML-Grad-CAM.
        class_score: What is differentiated: the target's logit, or its softmax probability.
        normalise_cams: "min_max" scales each layer's Grad-CAM to [0, 1] before the sum.
        sign: Sign of the attention maps, as in `matt`.
        collapse: How their channels become one, as in `matt`.
        normalise_attention: "min_max" scales each attention map to [0, 1] before the sum.
        normalisation: "none" returns the product; "softmax" takes the softmax over pixels, as the paper writes.

    Returns:
        (B, H, W) float32; after "softmax" in [0, 1] with sum one, else of either sign.

    Raises:
        ValueError: For an unknown layer or target, a model without CBAM, or a model in training mode.
    """
    require_eval(model)
    size = (images.shape[2], images.shape[3])
    with attention_maps(model, sign=sign, collapse=collapse) as attention:
        cams = layer_cams(model, images, target, target_layers=target_layers, class_score=class_score)
    with torch.no_grad():
        matt = sum_over_layers(list(attention.values()), size, normalise=normalise_attention)
        raw = matt.double() * sum_over_layers(cams, size, normalise=normalise_cams).double()
        return softmax_over_pixels(raw) if normalisation == "softmax" else raw.float()
