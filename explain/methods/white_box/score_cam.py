"""Score-CAM (Wang et al. 2020): each feature map weighted by the score of the image seen through it; no gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.options import ScoreCamOptions, takes_options
from explain.methods.white_box.hooks import activations, class_scores, require_eval
from explain.methods.white_box.layer_maps import min_max, upsample


@takes_options(ScoreCamOptions)
def score_cam(model: nn.Module, images: Tensor, target: Tensor, options: ScoreCamOptions) -> Tensor:
    """Weight feature maps by the model's score of the image under each: ReLU(sum_k a_k A^k) (Wang et al. 2020, eq. 8).

    a = softmax over k of the target's logit for the image times A^k, up-sampled to the image and scaled to [0, 1] by
    its own minimum and maximum (eqs. 5, 6, 9; the score of the baseline is the same for all k and leaves the softmax).
    One pass for each channel: 2,048 at the last layer of a ResNet-50. Memory does not grow with their number.

    Args:
        model: A classifier in eval mode, (B, 3, H, W) -> logits (B, K).
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Name of the layer.

    Returns:
        (B, H, W) float32, at least zero.

    Raises:
        ValueError: For an unknown layer or target, or a model in training mode.
    """
    require_eval(model)
    size = (images.shape[2], images.shape[3])
    with torch.no_grad():
        with activations(model, [options.target_layer]) as kept:
            class_scores(model(images), target, "logit")
        maps = kept[options.target_layer].detach()
        seen = (images * min_max(upsample(channel.float(), size))[:, None] for channel in maps.unbind(dim=1))
        scores = torch.stack([class_scores(model(frames), target, "logit") for frames in seen], dim=1)
        weighed = F.relu(torch.einsum("bkhw,bk->bhw", maps.float(), scores.float().softmax(dim=1)))
        return upsample(weighed, size)
