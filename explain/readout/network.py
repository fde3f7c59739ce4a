"""Read-out: a small network that combines the student's attention maps and class activation maps to one map.

The paper multiplies two sums of these maps and leaves better combinations open (section 5). Here the combination is
learned once, from maps of training images by a query-based method (`explain.readout.fit`); then a map costs one forward
and one backward pass of the student and no query.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.methods.grid import grid_size
from explain.methods.options import NoOptions, takes_options
from explain.methods.white_box.hooks import activations, class_scores, gradients, require_eval
from explain.methods.white_box.layer_maps import upsample
from explain.methods.white_box.matt import attention_maps

LAYERS = ("layer2", "layer3", "layer4")
"""Layers with class activation maps, as in ML-Grad-CAM."""

WIDTH = 48
"""Channels of the hidden convolutions; half as many for each layer's activations."""

DILATIONS = (1, 2, 4)
"""Dilations of the hidden convolutions: the last one sees 15 cells across, half of the image."""

NUM_PLACES = 3
"""Maps of a cell's position: x, y and the distance from the center."""


class StudentFeatures(NamedTuple):
    """Features of a student for some images and classes: the inputs of a read-out."""

    maps: Tensor
    """(B, M, h, w): attention, class activation maps, places; each of an image with mean 0 and variance 1."""
    layers: tuple[Tensor, ...]
    """The activations of `LAYERS`, each (B, C, h', w')."""


class ReadOut(nn.Module):
    """Combine a student's features by 3x3 convolutions over a grid of cells."""

    def __init__(self, num_attention: int, channels: tuple[int, ...], *, width: int = WIDTH) -> None:
        """Draw the weights; the last layer's are zero.

        Args:
            num_attention: CBAM modules of the student.
            channels: Channels of `LAYERS`.
            width: Channels of the hidden convolutions.
        """
        super().__init__()
        self.num_attention, self.channels, self.width = num_attention, channels, width
        self.fingerprint = ""  # SHA-256 of the stored weights in hex; empty before it is stored
        self.context = nn.ModuleList(nn.Conv2d(number, width // 2, 1) for number in channels)
        num_maps = 2 * num_attention + 2 * len(channels) + NUM_PLACES
        sizes = (num_maps + len(channels) * (width // 2), *(width for _ in DILATIONS))
        self.hidden = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=dilation, dilation=dilation)
            for a, b, dilation in zip(sizes, sizes[1:], DILATIONS, strict=False)
        )
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, features: StudentFeatures) -> Tensor:
        """Return maps (B, h, w)."""
        size = (features.maps.shape[2], features.maps.shape[3])
        contexts = (resized(conv(layer), size) for conv, layer in zip(self.context, features.layers, strict=True))
        x = torch.cat([features.maps, *contexts], dim=1)
        for conv in self.hidden:
            x = F.relu(conv(x))
        return self.last(x)[:, 0]


def extract_features(model: nn.Module, images: Tensor, target: Tensor) -> StudentFeatures:
    """Extract a student's features: for each CBAM F_o - F_i and its absolute value, for each layer two CAMs.

    They are the channels' means of the differences (eq. 7), Grad-CAM's sum_k a_k A^k without its ReLU (eq. 6), and
    sum_k g_k A^k with the gradient of every place itself (HiResCAM, Draelos and Carin 2020).

    Args:
        model: A student in eval mode with attention modules named `*.cbam`.
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
    """
    require_eval(model)
    signed, absolute = (attention_maps(model, sign=sign, collapse="mean") for sign in ("positive", "absolute"))
    with signed as changes, absolute as sizes, torch.enable_grad(), activations(model, LAYERS) as kept:
        grads = gradients(class_scores(model(images), target, "logit"), kept)
    with torch.no_grad():
        feature_maps = [*changes.values(), *sizes.values()]
        for name in LAYERS:
            feature_maps.append((grads[name].mean(dim=(2, 3), keepdim=True) * kept[name]).sum(dim=1))
            feature_maps.append((grads[name] * kept[name]).sum(dim=1))
        size = grid_size(images.shape[2], images.shape[3])
        maps = torch.stack([upsample(each.float(), size) for each in feature_maps], dim=1)
        places = _places(size, images.device).expand(len(images), -1, -1, -1)
        return StudentFeatures(
            standardised(torch.cat([maps, places], dim=1)), tuple(kept[name].detach().float() for name in LAYERS)
        )


@takes_options(NoOptions)
def readout(model: nn.Module, images: Tensor, target: Tensor, options: NoOptions) -> Tensor:
    """Combine the student's features by its trained read-out, on the grid of `explain.methods.grid`.

    Args:
        model: A student in eval mode with a `ReadOut` as its module `readout`.
        images: (B, 3, H, W), normalized for the model.
        target: (B,) class indices.
        options: None.

    Returns:
        (B, h, w) float32 of either sign, mean 0 and variance 1: a map's order counts, not its size.

    Raises:
        ValueError: If no read-out was fitted to this student.
    """
    head = require_readout(model)
    features = extract_features(model, images, target)
    with torch.no_grad():
        return standardised(head(features))


def require_readout(model: nn.Module) -> ReadOut:
    """Return a network's read-out. Raises: ValueError where it has none."""
    head = getattr(model, "readout", None)
    if not isinstance(head, ReadOut):
        raise ValueError("the student has no read-out; python -m explain fit makes one (or explain by mal_grad_cam)")
    return head


def standardised(maps: Tensor) -> Tensor:
    """Give each map of (..., h, w) mean 0 and variance 1; a constant map becomes zeros."""
    centred = maps - maps.mean(dim=(-2, -1), keepdim=True)
    variance = centred.pow(2).mean(dim=(-2, -1), keepdim=True)
    return centred / variance.clamp_min(torch.finfo(maps.dtype).tiny).sqrt()


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly (align_corners=False)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _places(size: tuple[int, int], device: torch.device) -> Tensor:
    """Make the maps of places, (NUM_PLACES, h, w)."""
    y, x = (torch.linspace(-1, 1, side, device=device) for side in size)
    y, x = y[:, None].expand(size), x[None, :].expand(size)
    return torch.stack([x, y, (x**2 + y**2).sqrt()])
