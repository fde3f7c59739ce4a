"""MAL-Grad-CAM, the paper's map: where the student attends, times what raises the class score."""

import torch
from torch import Tensor, nn

from explain.methods.options import MalGradCamOptions, takes_options
from explain.methods.white_box.grad_cam import class_activation_map
from explain.methods.white_box.hooks import gradient_cams
from explain.methods.white_box.layer_maps import sum_over_layers
from explain.methods.white_box.matt import attention_maps


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


@takes_options(MalGradCamOptions)
def mal_grad_cam(model: nn.Module, images: Tensor, target: Tensor, options: MalGradCamOptions) -> Tensor:
    """Multiply attention by what raises the class: softmax(MATT * ML-Grad-CAM) over pixels (eq. 9).

    The softmax is monotone: it changes no ranking of pixels, so no game that uses ranks only. Of min-max layers'
    products float32 holds all its shares apart. Raw layers' products run from -1e4 to 1e3, and 24 to 100 % of the
    pixels of a half-trained student's maps were stored as zero (8 images): there "none" keeps the ranking.

    Args:
        model: A student in eval mode, (B, 3, H, W) -> logits (B, K), with attention modules named `*.cbam`.
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Those of `ml_grad_cam` and `matt`, and whether the softmax over pixels is taken.

    Returns:
        (B, H, W) float32; after "softmax" in [0, 1] with sum one, else of either sign.

    Raises:
        ValueError: For an unknown layer or target, a model without CBAM, or a model in training mode.
    """
    size = (images.shape[2], images.shape[3])
    with attention_maps(model, sign=options.sign, collapse=options.collapse) as attention:
        cams = gradient_cams(
            model,
            images,
            target,
            target_layers=options.target_layers,
            class_score=options.class_score,
            formula=class_activation_map,
        )
    with torch.no_grad():
        matt = sum_over_layers(list(attention.values()), size, normalise=options.normalise_attention)
        raw = matt.double() * sum_over_layers(cams, size, normalise=options.normalise_cams).double()
        return softmax_over_pixels(raw) if options.normalisation == "softmax" else raw.float()
