"""Where a map points: its maximum and its mass against the object, where a data set has masks or boxes.

The maximum is the pointing game of Zhang et al. (2018); the mass is the energy-based pointing game of Score-CAM (Wang
et al. 2020, section 4.3), with object masks where there are any. Neither asks the black box: a map may rightly point
beside the object, where the black box looks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from distill.images.objects import resize_mask

if TYPE_CHECKING:
    from distill.images import ImageSet

NUM_PROBES = 32  # images asked for a mask before a data set counts as one without masks


def mass_inside(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Compute the share of a map's mass inside a mask: sum of (s - min s) over the mask / sum over all pixels.

    The minimum goes to zero, as Score-CAM's maps have it; otherwise the floor that a softmax puts under every
    pixel would hide where its peak is.

    Args:
        saliency: the map, (H, W), finite.
        mask: bool, True on the object, (h, w); each map pixel takes the mask pixel under its centre.

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
        mask: bool, True on the object, (h, w); each map pixel takes the mask pixel under its centre.
        tolerance_px: largest distance between the centres of the maximum and the nearest object pixel, in pixels of
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


class MaskShares:
    """Measure maps folders against a data set's masks; each mask is read once and kept as bits."""

    def __init__(self, images: "ImageSet") -> None:
        self._images = images
        self._bits: dict[tuple[str, tuple[int, int]], np.ndarray | None] = {}

    def any_masks(self, image_ids: Sequence[str]) -> bool:
        """Tell whether the data set has masks or boxes, by asking for those of some of the images, spread over them."""
        every = max(1, len(image_ids) // NUM_PROBES)
        return any(self._has_mask(image_id) for image_id in image_ids[::every])

    def _has_mask(self, image_id: str) -> bool:
        try:
            return self._images.mask(image_id) is not None
        except ValueError:  # broken, which its own row will say
            return True

    def of(self, maps: str) -> dict[str, float]:
        """Compute `mass_inside` of each map in the folder `maps` whose image has a mask, by image_id."""
        from explain.schema import map_parts, read_part, saliency_maps

        shares = {}
        for part in map_parts(maps):
            table = read_part(maps, part, ["image_id", "map_height", "map_width", "saliency"])
            for image_id, saliency in zip(table["image_id"].to_pylist(), saliency_maps(table), strict=True):
                mask = None if saliency is None else self.mask(image_id, saliency.shape)
                if mask is not None and saliency is not None:
                    shares[image_id] = mass_inside(saliency, mask)
        return shares

    def mask(self, image_id: str, size: tuple[int, int]) -> np.ndarray | None:
        """Return the mask of an image at `size` (H, W); None where it has none."""
        key = (image_id, size)
        if key not in self._bits:
            mask = self._images.mask(image_id, size)
            self._bits[key] = None if mask is None else np.packbits(mask)
        bits = self._bits[key]
        return None if bits is None else np.unpackbits(bits, count=size[0] * size[1]).reshape(size).astype(bool)

    def area(self) -> float:
        """Compute the mean share of the image that the masks read so far cover: what a uniform map would get."""
        sizes = {key: bits for key, bits in self._bits.items() if bits is not None}
        shares = [np.unpackbits(bits, count=size[0] * size[1]).mean() for (_, size), bits in sizes.items()]
        return float(np.mean(shares)) if shares else float("nan")
