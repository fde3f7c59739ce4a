"""Where a map points: its maximum and its mass against the object, where a data set has masks or boxes.

The maximum is the pointing game of Zhang et al. (2018); the mass is the energy-based pointing game of Score-CAM (Wang
et al. 2020, section 4.3), with object masks where there are any. Neither asks the black box: a map may rightly point
beside the object, where the black box looks.
"""

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from distill.data.objects import resize_mask

if TYPE_CHECKING:
    from distill.data import ImageSet

NUM_PROBES = 32  # images asked for a mask before a data set counts as one without masks


def mass_inside(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Compute the share of a map's mass inside a mask: sum of (s - min s) over the mask / sum over all pixels.

    The minimum goes to zero, as Score-CAM's maps have it; otherwise the floor that a softmax puts under every
    pixel would hide where its peak is.

    Args:
        saliency: the map, (H, W), finite.
        mask: bool, True on the object, (h, w); each map pixel takes the mask pixel under its center.

    Returns:
        The share, in [0, 1]; NaN for a constant map, which points nowhere.

    Raises:
        ValueError: either is not two-dimensional, or the map holds a value that is not finite.
    """
    if saliency.ndim != 2 or mask.ndim != 2 or 0 in (*saliency.shape, *mask.shape):
        raise ValueError(f"a map and a mask must be (height, width), got {saliency.shape} and {mask.shape}")
    mass = saliency.astype(np.float64)
    mass -= mass.min()
    total = mass.sum()
    if not np.isfinite(total):
        raise ValueError("the map holds values that are not finite; it has no mass")
    return float(mass[resize_mask(mask, saliency.shape)].sum() / total) if total > 0 else float("nan")


def pointing_game(saliency: np.ndarray, mask: np.ndarray, *, tolerance_px: float = 15) -> float:
    """Play the pointing game: is the map's maximum on the object, or at most `tolerance_px` pixels beside it?

    Args:
        saliency: the map at the frame's size, (H, W), finite.
        mask: bool, True on the object, (h, w); each map pixel takes the mask pixel under its center.
        tolerance_px: largest distance between the centers of the maximum and the nearest object pixel, in pixels of
            the map.

    Returns:
        1 for a hit, 0 for a miss; of several equal maxima the share that hits. NaN for a constant map, which points
        nowhere, and where the mask is empty at the map's size.

    Raises:
        ValueError: either is not two-dimensional, or the map holds a value that is not finite.
    """
    if saliency.ndim != 2 or mask.ndim != 2 or 0 in (*saliency.shape, *mask.shape):
        raise ValueError(f"a map and a mask must be (height, width), got {saliency.shape} and {mask.shape}")
    if not np.isfinite(saliency).all():
        raise ValueError("the map holds values that are not finite; it has no maximum")
    inside = resize_mask(mask, saliency.shape)
    if saliency.min() == saliency.max() or not inside.any():
        return float("nan")
    near = np.asarray(ndimage.distance_transform_edt(~inside)) <= tolerance_px
    return float(near[saliency == saliency.max()].mean())


def any_masks(images: "ImageSet") -> bool:
    """Tell whether a data set has masks or boxes, by asking for those of some of the images, spread over them."""
    every = max(1, len(images.image_ids) // NUM_PROBES)
    return any(_has_mask(images, image_id) for image_id in images.image_ids[::every])


def _has_mask(images: "ImageSet", image_id: str) -> bool:
    try:
        return images.mask(image_id) is not None
    except ValueError:  # broken, which its own row will say
        return True
