"""CAM (Zhou et al. 2016): the last feature maps weighted by the classifier's own weights; no gradient."""

import torch
from torch import Tensor, nn

from explain.methods.options import CamOptions, takes_options
from explain.methods.white_box.hooks import activations, class_scores, find_modules, require_eval
from explain.methods.white_box.layer_maps import upsample


@takes_options(CamOptions)
def cam(model: nn.Module, images: Tensor, target: Tensor, options: CamOptions) -> Tensor:
    """Weight the last feature maps A^k by the classifier's weights: sum_k w_k^c A^k (Zhou et al. 2016, eq. 2).

    Signed, as published: what is evidence against the class is below zero. Its positive part is Grad-CAM of that
    layer times the number of its places, h w.

    Args:
        model: A classifier in eval mode that pools `target_layer` over space and then applies one linear layer.
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: Names of the last layer and of the classifier.

    Returns:
        (B, H, W) float32, of either sign, in the units of the logits.

    Raises:
        ValueError: For an unknown layer or target, a classifier that is no linear layer of those feature maps, or a
            model in training mode.
    """
    require_eval(model)
    target_layer, classifier = options.target_layer, options.classifier
    (linear,) = find_modules(model, [classifier])
    weight = getattr(linear, "weight", None)  # of nn.Linear, or of what a torch.export archive has in its place
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ValueError(f"classifier {classifier!r} is {type(linear).__name__}; CAM needs a linear layer, as 'fc'")
    with torch.no_grad(), activations(model, [target_layer]) as kept:
        class_scores(model(images), target, "logit")
        maps = kept[target_layer].detach()
        if maps.shape[1] != weight.shape[1]:
            raise ValueError(
                f"target_layer {target_layer!r} has {maps.shape[1]} channels, but classifier {classifier!r} weighs "
                f"{weight.shape[1]}; CAM needs the last layer before the pooling"
            )
        weighed = torch.einsum("bkhw,bk->bhw", maps, weight[target.long()])
        return upsample(weighed.float(), (images.shape[2], images.shape[3]))
