"""Superpixels: the parts of an image that LIME and KernelSHAP show and hide, and what stands in for hidden ones."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.perturb.blur import blur

Substrate = Literal["segment_mean", "mean", "blur"]

BLUR_SIGMA = 0.05
"""Standard deviation of the `blur` substrate as a share of the image's longer side: 11 px at 224 px."""


def superpixels(
    image: Tensor, *, num_segments: int, compactness: float = 10.0, longest_px: int | None = None
) -> Tensor:
    """Cut an image into superpixels with SLIC (Achanta et al. 2012), as scikit-image computes them.

    The normalized image is scaled to [0, 1] by its own minimum and maximum first: what a model's normalization did to
    its colors is not known here.

    Args:
        image: (3, H, W).
        num_segments: About how many.
        compactness: Weight of nearness against color.
        longest_px: An image with a longer side is cut at this one; its superpixels have borders of whole blocks.

    Returns:
        (H, W) int64 on the image's device: 0 ... S - 1, every number present; S may be 1.
    """
    height, width = image.shape[1:]
    if longest_px is not None and max(height, width) > longest_px:
        size = tuple(max(1, round(side * longest_px / max(height, width))) for side in (height, width))
        small = F.interpolate(image[None], size=size, mode="area")[0]
        labels = superpixels(small, num_segments=num_segments, compactness=compactness)
        return F.interpolate(labels[None, None].double(), size=(height, width), mode="nearest-exact")[0, 0].long()
    from skimage.segmentation import slic

    pixels = image.detach().cpu().float().permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    span = float(pixels.max() - pixels.min())
    unit = (pixels - pixels.min()) / span if span > 0 else np.zeros_like(pixels)
    if min(unit.shape[:2]) < 2 or span == 0:
        return torch.zeros(unit.shape[:2], dtype=torch.int64, device=image.device)
    labels = slic(unit, n_segments=num_segments, compactness=compactness, start_label=0)
    _, segments = np.unique(labels, return_inverse=True)
    return torch.from_numpy(segments.reshape(unit.shape[:2]).astype(np.int64)).to(image.device)


def hidden(image: Tensor, segments: Tensor, substrate: Substrate) -> Tensor:
    """Make what stands in for hidden superpixels, (3, H, W): their own mean color, the data's, or a blurred image."""
    if substrate == "mean":
        return torch.zeros_like(image)
    if substrate == "blur":
        return blur(image, BLUR_SIGMA)
    flat, colors = segments.flatten().cpu(), image.double().flatten(1).cpu()  # CUDA sums in an order of its own
    num = int(flat.max()) + 1
    means = torch.zeros(3, num, dtype=torch.float64).index_add_(1, flat, colors) / torch.bincount(flat, minlength=num)
    return means.to(image)[:, segments]


def compose(image: Tensor, other: Tensor, segments: Tensor, presence: Tensor) -> Tensor:
    """Show the superpixels that are present and `other` elsewhere.

    Args:
        image: (3, H, W).
        other: (3, H, W).
        segments: (H, W), 0 ... S - 1.
        presence: (B, S) bool.

    Returns:
        (B, 3, H, W).
    """
    shown = presence.to(segments.device).float().index_select(1, segments.flatten())  # (B, H * W) of 0 and 1
    return torch.lerp(other, image, shown.view(-1, 1, *segments.shape))  # which gives either as it is, to the last bit


def paint(weights: Tensor, segments: Tensor) -> Tensor:
    """Give every pixel its superpixel's weight: (S,) -> (H, W) float32."""
    return F.embedding(segments, weights.float().to(segments.device)[:, None])[..., 0]
